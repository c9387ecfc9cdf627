//! The socket filter of every ring member, which keeps foreign traffic out of the ring. The parser and the listen list still
//! decide about each frame; the filter must never drop what they would accept.

use libc::sock_filter;

use super::frame::LAST_INCOMING_PKTTYPE;
use crate::{
    bpf::classic::{AD_PKTTYPE, AD_PROTOCOL, Assembler, KEEP_ALL, Label, MAX_INSNS, NET, NEXT},
    packet::{EXTENSION_HEADERS, FRAGMENT_HEADER},
    protocol::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, IPPROTO_UDP},
};

/// The bits of the fragment offset in an IPv4 header. A fragment that is not the first has no ports. With
/// PACKET_FANOUT_FLAG_DEFRAG no fragments arrive.
const FRAGMENT_OFFSET: u32 = 0x1fff;
/// Bytes of a VLAN tag that is still in the frame: of two tags (QinQ) the kernel moves only the outer one to metadata.
const VLAN_TAG: u32 = 4;
/// Upper bound of the instructions besides the two for each port. Too low a bound would make programs that are too long; too
/// high a one lets all UDP pass for a few ports less.
const OVERHEAD: usize = 64;

/// Returns a program that keeps incoming UDP to one of `ports` over IPv4, with options or without, and over IPv6 without
/// extension headers. It keeps every IPv6 packet with an extension header that another one or UDP follows, so not the host's
/// own MLD and ICMPv6: a program without loops cannot find the end of a chain. All offsets count from the network header, so
/// the link layer does not matter.
///
/// The second result is false when there are more ports than a program can hold, about 2,000: all UDP then passes.
pub(super) fn udp_to_ports(ports: &[u16]) -> (Vec<sock_filter>, bool) {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    let fits = ports.len() * 2 + OVERHEAD <= MAX_INSNS;
    let mut a = Assembler::default();
    let [drop, v4, v6, tagged, tagged_v4, tagged_v6] = std::array::from_fn(|_| a.label());
    let [check_port, keep, pre_drop] = std::array::from_fn(|_| a.label());
    a.load_word(AD_PKTTYPE);
    a.if_gt(LAST_INCOMING_PKTTYPE.into(), pre_drop, NEXT);
    a.load_word(AD_PROTOCOL);
    a.if_eq(ETH_P_IP.into(), v4, NEXT);
    a.if_eq(ETH_P_IPV6.into(), v6, NEXT);
    a.if_eq(ETH_P_8021Q.into(), tagged, NEXT);
    a.if_eq(ETH_P_8021AD.into(), tagged, pre_drop);
    a.place(tagged);
    a.load_half(NET + 2);
    a.if_eq(ETH_P_IP.into(), tagged_v4, NEXT);
    a.if_eq(ETH_P_IPV6.into(), tagged_v6, pre_drop);
    for (v4, v6, base) in [(v4, v6, NET), (tagged_v4, tagged_v6, NET + VLAN_TAG)] {
        a.place(v4);
        ipv4_port(&mut a, base, pre_drop);
        a.goto(check_port);
        a.place(v6);
        a.load_byte(base + 6);
        let extended = a.label();
        for header in EXTENSION_HEADERS.into_iter().chain([FRAGMENT_HEADER]) {
            a.if_eq(header.into(), extended, NEXT);
        }
        a.if_eq(IPPROTO_UDP.into(), NEXT, pre_drop);
        a.load_half(base + 40 + 2);
        a.goto(check_port);
        a.place(extended);
        a.load_byte(base + 40);
        for header in EXTENSION_HEADERS.into_iter().chain([FRAGMENT_HEADER]) {
            a.if_eq(header.into(), keep, NEXT);
        }
        a.if_eq(IPPROTO_UDP.into(), keep, pre_drop);
    }
    a.place(keep);
    a.ret(KEEP_ALL);
    a.place(pre_drop);
    a.goto(drop);
    a.place(check_port);
    if fits {
        for port in ports {
            // Each port has a return of its own, because a conditional jump reaches only 255 instructions far.
            let other = a.label();
            a.if_eq(port.into(), NEXT, other);
            a.ret(KEEP_ALL);
            a.place(other);
        }
    } else {
        a.ret(KEEP_ALL);
    }
    a.place(drop);
    a.ret(0);
    (a.finish().expect("branches are near and forward, and the length was checked"), fits)
}

/// Appends A ← destination port of the UDP packet at `base`, behind any IPv4 options. What has no port goes to `drop`.
fn ipv4_port(a: &mut Assembler, base: u32, drop: Label) {
    a.load_byte(base + 9);
    a.if_eq(IPPROTO_UDP.into(), NEXT, drop);
    a.load_half(base + 6);
    a.if_set(FRAGMENT_OFFSET, drop, NEXT);
    a.load_x_ihl(base);
    a.load_half_x(base + 2);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_ports_makes_a_program() {
        let all: Vec<u16> = (1..=u16::MAX).collect();
        for (n, fits) in [(1, true), (300, true), (2000, true), (2100, false), (65_535, false)] {
            let (program, exact) = udp_to_ports(&all[..n]);
            assert!(program.len() <= MAX_INSNS && exact == fits, "{n} ports: {}", program.len());
        }
        assert_eq!(udp_to_ports(&[9, 9, 9]).0.len(), udp_to_ports(&[9]).0.len());
    }
}
