//! The socket filter of every ring member: keeps foreign traffic out of the ring. The parser and the listen list still
//! decide; this must only never drop what they would take.

use libc::sock_filter;

use crate::{
    bpf::classic::{AD_PKTTYPE, AD_PROTOCOL, Assembler, KEEP_ALL, Label, MAX_INSNS, NET, NEXT},
    protocol::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, IPPROTO_UDP},
};

/// PACKET_MULTICAST; host and broadcast are below, other host, outgoing and loopback above.
const LAST_INCOMING_PKTTYPE: u32 = 2;
/// IPv4 fragment offset: a non-first fragment has no ports. None arrive with PACKET_FANOUT_FLAG_DEFRAG.
const FRAGMENT_OFFSET: u32 = 0x1fff;
/// IPv6 extension headers the parser walks: hop-by-hop, routing, fragment, destination options. A loop-free program
/// cannot find the end of a chain of them.
const EXTENSION_HEADERS: [u32; 4] = [0, 43, 44, 60];
/// Bytes of one VLAN tag still in the frame (QinQ: the kernel moved only the outer one to metadata).
const VLAN_TAG: u32 = 4;
/// Instructions besides the two for each port: a generous bound.
const OVERHEAD: usize = 64;

/// Accepts incoming UDP to one of `ports`, IPv4 with options, IPv6 without extension headers, and every IPv6 packet
/// with an extension header that another one or UDP follows (so not the host's own MLD and ICMPv6). All offsets count from the network header, so the link layer does not matter.
///
/// When there are more ports than a program can hold (about 2,000), all UDP passes; the second result is then false.
pub(super) fn ours(ports: &[u16]) -> (Vec<sock_filter>, bool) {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    let fits = ports.len() * 2 + OVERHEAD <= MAX_INSNS;
    let mut a = Assembler::default();
    let [drop, v4, v6, tagged, tagged_v4, tagged_v6] = std::array::from_fn(|_| a.label());
    let [check_port, keep, pre_drop] = std::array::from_fn(|_| a.label());
    a.load_word(AD_PKTTYPE);
    a.if_gt(LAST_INCOMING_PKTTYPE, pre_drop, NEXT);
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
        for header in EXTENSION_HEADERS {
            a.if_eq(header, extended, NEXT);
        }
        a.if_eq(IPPROTO_UDP.into(), NEXT, pre_drop);
        a.load_half(base + 40 + 2);
        a.goto(check_port);
        a.place(extended);
        a.load_byte(base + 40);
        for header in EXTENSION_HEADERS {
            a.if_eq(header, keep, NEXT);
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
            // A return for each port, because a conditional jump reaches only 255 instructions far.
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

/// A ← destination port of the UDP packet at `base`, behind any IPv4 options.
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
            let (program, exact) = ours(&all[..n]);
            assert!(program.len() <= MAX_INSNS && exact == fits, "{n} ports: {}", program.len());
        }
        assert_eq!(ours(&[9, 9, 9]).0.len(), ours(&[9]).0.len());
    }
}
