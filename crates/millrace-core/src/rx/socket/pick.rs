//! The program that sorts what the stack gives the guard beside a packet ring: classic BPF that returns the number of a
//! datagram's socket in its SO_REUSEPORT group (SO_ATTACH_REUSEPORT_CBPF, socket(7)). Offset 0 is the UDP payload, so the
//! program's packet length is that of the payload; the headers are reached by their own bases.

use std::net::IpAddr;

use libc::sock_filter;

use crate::{
    packet::IPPROTO_UDP,
    rx::cbpf::{self, AD_IFINDEX, Assembler, LINK, Label, NET, NEXT},
};

const LD_B_IND: u16 = 0x50;
const LD_MEM: u16 = 0x60;
const LDX_IMM: u16 = 0x01;
const ST: u16 = 0x02;
const ADD_K: u16 = 0x04;
const ADD_X: u16 = 0x0c;
const LSH_K: u16 = 0x64;
const TAX: u16 = 0x07;

/// Position in the group of the socket whose filter drops everything and that nobody reads,
pub(super) const HOLDER: u32 = 0;
/// of the one for what the ring does not have,
pub(super) const ELSEWHERE: u32 = 1;
/// and of the one for what may have been fragments.
const FRAGMENTS: u32 = 2;

/// The first bit of an Ethernet address, in its first four bytes: broadcast and multicast.
const TO_MANY: u32 = 1 << 24;

/// IPv6 extension headers that the ring's parser walks, but for the fragment header.
const WALKED: [u32; 3] = [0, 43, 60];
const FRAGMENT_HEADER: u32 = 44;
/// As many as the ring's parser walks, and what is behind them.
const STEPS: usize = crate::packet::MAX_EXTENSION_HEADERS + 1;
/// No conforming sender fragments an IPv6 packet that fits the minimum MTU of 1280 (RFC 8200 §5): UDP payload of such a
/// packet without extension headers, bytes.
const NEVER_FRAGMENTED_V6: u32 = 1280 - 40 - 8;

/// Which datagrams have to be looked at, because they may have been fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// None: the fanout group puts fragments together.
    Never,
    /// All of IPv4 but empty ones, of which nothing is left for a second fragment (RFC 791: all but the last hold a multiple
    /// of eight bytes, and the UDP header has eight). Neither a minimum MTU nor the bit "don't fragment", which some senders
    /// set on fragments, says that a datagram was whole.
    V4,
    /// Those of IPv6 that are large, or have extension headers, which count for the MTU. One with a fragment header is not
    /// among them: the stack leaves it only in atomic fragments (RFC 6946), which the ring has.
    V6,
}

/// Most addresses a program looks for.
const MACS: usize = 64;

/// Which frames the ring has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct InRing<'a> {
    /// The ring's interface and those that hand up its frames.
    pub(super) interfaces: &'a [u32],
    /// The ring's interface. What comes up by that itself the ring has, whatever its address: a VRF has its ports' frames.
    pub(super) own: u32,
    /// Addresses whose frames are for this host on the ring's interface. Frames for others are another host's to the ring,
    /// and may be for something that stands on the interface. It is the frame that tells, not the device it comes up by: a
    /// bridge gets those for its own and for its ports' addresses. Empty where frames have no Ethernet header.
    pub(super) macs: &'a [[u8; 6]],
    /// Destinations of the family of the group's sockets that the ring takes. None where its sockets are bound to the one
    /// address they are for.
    pub(super) addresses: Option<&'a [IpAddr]>,
}

impl InRing<'_> {
    /// The program.
    pub(super) fn pick(&self, look: Look) -> Vec<sock_filter> {
        // Too many addresses for a program: then one that the ring does not know is nobody's. Taking all for unknown would
        // deliver everything twice.
        let any = InRing { addresses: None, ..*self };
        self.write(look).or_else(|| any.write(look)).expect("forward branches, and the length was bounded")
    }

    /// None when it is too long.
    fn write(&self, look: Look) -> Option<Vec<sock_filter>> {
        let mut a = Assembler::default();
        let [here, in_ring, ours, fragments, elsewhere, holder] = std::array::from_fn(|_| a.label());
        a.load_word(AD_IFINDEX);
        a.if_eq(self.own, in_ring, NEXT);
        // More than fit a program stand on no interface; then the rest would come twice, which is better than not at all.
        for &index in self.interfaces.iter().take(cbpf::MAX_INSNS / 4) {
            a.if_eq(index, here, NEXT);
        }
        a.goto(elsewhere);
        a.place(here);
        if !self.macs.is_empty() {
            a.load_word(LINK);
            a.if_set(TO_MANY, in_ring, NEXT);
            // As many as hardly any bond has; for more the ring's own would come twice.
            for [b0, b1, b2, b3, b4, b5] in self.macs.iter().take(MACS) {
                let other = a.label();
                a.load_word(LINK);
                a.if_eq(u32::from_be_bytes([*b0, *b1, *b2, *b3]), NEXT, other);
                a.load_half(LINK + 4);
                a.if_eq(u16::from_be_bytes([*b4, *b5]).into(), in_ring, NEXT);
                a.place(other);
            }
            a.goto(elsewhere);
        }
        a.place(in_ring);
        if let Some(addresses) = self.addresses {
            addresses.iter().for_each(|address| if_destination(&mut a, *address, ours));
            a.goto(elsewhere);
        }
        a.place(ours);
        match look {
            Look::Never => {}
            Look::V4 => {
                a.load_len();
                a.if_gt(0, fragments, holder);
            }
            Look::V6 => look_v6(&mut a, fragments, elsewhere, holder),
        }
        a.place(holder);
        a.ret(HOLDER);
        a.place(elsewhere);
        a.ret(ELSEWHERE);
        a.place(fragments);
        a.ret(FRAGMENTS);
        a.finish()
    }
}

/// Walks the extension headers of an IPv6 packet. What the ring's parser does not walk is not in the ring.
fn look_v6(a: &mut Assembler, fragments: Label, elsewhere: Label, holder: Label) {
    let extended = a.label();
    a.load_byte(NET + 6);
    a.if_eq(IPPROTO_UDP.into(), NEXT, extended);
    a.load_len();
    a.if_gt(NEVER_FRAGMENTED_V6, fragments, holder);
    a.place(extended);
    // A is the kind of the header at X.
    a.op(LDX_IMM, 40);
    for _ in 0..STEPS {
        let walk = a.label();
        WALKED.iter().for_each(|kind| a.if_eq(*kind, walk, NEXT));
        a.if_eq(FRAGMENT_HEADER, holder, NEXT);
        a.if_eq(IPPROTO_UDP.into(), fragments, elsewhere);
        a.place(walk);
        a.op(LD_B_IND, NET);
        a.op(ST, 0);
        // Length in units of eight bytes, less one.
        a.op(LD_B_IND, NET + 1);
        a.op(ADD_K, 1);
        a.op(LSH_K, 3);
        a.op(ADD_X, 0);
        a.op(TAX, 0);
        a.op(LD_MEM, 0);
    }
    a.goto(elsewhere);
}

/// Branches on the destination address of the IP header.
fn if_destination(a: &mut Assembler, address: IpAddr, yes: Label) {
    match address {
        IpAddr::V4(address) => {
            a.load_word(NET + 16);
            a.if_eq(address.to_bits(), yes, NEXT);
        }
        IpAddr::V6(address) => {
            let other = a.label();
            for (at, shift) in [(24, 96), (28, 64), (32, 32)] {
                a.load_word(NET + at);
                a.if_eq((address.to_bits() >> shift) as u32, NEXT, other);
            }
            a.load_word(NET + 36);
            a.if_eq(address.to_bits() as u32, yes, NEXT);
            a.place(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_interfaces_and_addresses_makes_a_program() {
        for n in [0, 1, 255, 300, 5000] {
            let interfaces: Vec<u32> = (1..=n).collect();
            for look in [Look::Never, Look::V4, Look::V6] {
                let macs = vec![[2, 0, 0, 0, 0, 1]; n as usize];
                let v6: Vec<IpAddr> =
                    (0..n).map(|i| std::net::Ipv6Addr::from(u128::from(i)).into()).collect();
                let v4: Vec<IpAddr> = (0..n).map(|i| std::net::Ipv4Addr::from(i).into()).collect();
                for addresses in [None, Some(&v4[..]), Some(&v6[..])] {
                    let in_ring = InRing { interfaces: &interfaces, own: 1, macs: &macs, addresses };
                    assert!(in_ring.pick(look).len() <= cbpf::MAX_INSNS, "{n}");
                }
            }
        }
    }
}
