//! The program that sorts what the stack gives the guard beside a packet ring: classic BPF that returns the number of a
//! datagram's socket in its SO_REUSEPORT group (SO_ATTACH_REUSEPORT_CBPF, socket(7)). Offset 0 is the UDP payload, so the
//! program's packet length is that of the payload; the headers are reached by their own bases.
//!
//! The kernel turns a program into one of its own, whose bytes may not be more than net.core.optmem_max (20,480 before
//! Linux 6.8, 131,072 since), or attaching fails with ENOMEM (net/core/filter.c). A load by one of the bases becomes about
//! eight instructions there, one from scratch memory a single one.

use std::net::IpAddr;

use libc::sock_filter;

use crate::{
    bpf::classic::{self, AD_IFINDEX, Assembler, LINK, Label, NET, NEXT, code},
    packet::{self},
    protocol::IPPROTO_UDP,
};

/// Position in the group of the socket whose filter drops everything and that nobody reads,
pub(crate) const HOLDER: u32 = 0;
/// of the one for what the ring does not have,
pub(crate) const ELSEWHERE: u32 = 1;
/// and of the one for what may have been fragments.
const FRAGMENTS: u32 = 2;

/// The first bit of an Ethernet address, in its first four bytes: broadcast and multicast.
const TO_MANY: u32 = 1 << 24;

/// As many as the ring's parser walks, and what is behind them.
const STEPS: usize = packet::MAX_EXTENSION_HEADERS + 1;
/// No conforming sender fragments an IPv6 packet that fits the minimum MTU of 1280 (RFC 8200 §5): UDP payload of such a
/// packet without extension headers, bytes.
const NEVER_FRAGMENTED_V6: u32 = 1280 - 40 - 8;

/// Which datagrams have to be looked at, because they may have been fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
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

/// Most interfaces a program looks for at first.
const MOST: usize = classic::MAX_INSNS / 4;
/// Most MACs: as many as hardly any bond has.
const MACS: usize = 64;

/// What a program leaves out because there is no room for it, from little to much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lack {
    /// It has everything.
    Nothing,
    /// The destinations: what is for one that the ring does not know is nobody's. Taking all for unknown would deliver
    /// everything twice.
    Destinations,
    /// These, and some of the interfaces or MACs, whose frames come twice. That is better than not at all.
    Interfaces,
}

/// Which frames the ring has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InRing<'a> {
    /// The ring's interface and those that hand up its frames.
    pub(crate) interfaces: &'a [u32],
    /// The ring's interface. What comes up by that itself the ring has, whatever its address: the stack takes no other
    /// host's frames there. (A VRF, which no ring can read, is refused.)
    pub(crate) own: u32,
    /// Addresses whose frames are for this host on the ring's interface. Frames for others are another host's to the ring,
    /// and may be for something that stands on the interface. It is the frame that tells, not the device it comes up by: a
    /// bridge gets those for its own and for its ports' addresses. Empty where frames have no Ethernet header.
    pub(crate) macs: &'a [[u8; 6]],
    /// Destinations of the family of the group's sockets that the ring takes. None where its sockets are bound to the one
    /// address they are for.
    pub(crate) addresses: Option<&'a [IpAddr]>,
}

impl InRing<'_> {
    /// The program, and ever shorter ones for when there is no room, each with what it leaves out.
    pub(crate) fn programs(&self, look: Look) -> impl Iterator<Item = (Vec<sock_filter>, Lack)> {
        let any = InRing { addresses: None, ..*self };
        let without = self.addresses.map(|_| (any, MOST, Lack::Destinations));
        let most = self.interfaces.len().max(self.macs.len()).min(MOST);
        let fewer = std::iter::successors(Some(most / 2), |most| Some(most / 2)).take_while(|most| *most > 0);
        let fewer = fewer.map(move |most| (any, most, Lack::Interfaces));
        let shapes = std::iter::once((*self, MOST, Lack::Nothing)).chain(without).chain(fewer);
        shapes.filter_map(move |(shape, most, lack)| {
            let cut = shape.interfaces.len() > most || shape.macs.len() > most.min(MACS);
            Some((shape.write(look, most)?, if cut { Lack::Interfaces } else { lack }))
        })
    }

    /// Looks for so many interfaces and MACs. None when it is too long for classic BPF.
    fn write(&self, look: Look, most: usize) -> Option<Vec<sock_filter>> {
        let mut a = Assembler::default();
        let [here, in_ring, ours, fragments, elsewhere, holder] = std::array::from_fn(|_| a.label());
        a.load_word(AD_IFINDEX);
        a.if_eq(self.own, in_ring, NEXT);
        for &index in self.interfaces.iter().take(most) {
            a.if_eq(index, here, NEXT);
        }
        a.goto(elsewhere);
        a.place(here);
        if !self.macs.is_empty() {
            a.load_word(LINK);
            a.if_set(TO_MANY, in_ring, NEXT);
            a.op(code::ST, 0);
            a.load_half(LINK + 4);
            a.op(code::ST, 1);
            for [b0, b1, b2, b3, b4, b5] in self.macs.iter().take(most.min(MACS)) {
                let other = a.label();
                a.op(code::LD_MEM, 0);
                a.if_eq(u32::from_be_bytes([*b0, *b1, *b2, *b3]), NEXT, other);
                a.op(code::LD_MEM, 1);
                a.if_eq(u16::from_be_bytes([*b4, *b5]).into(), in_ring, NEXT);
                a.place(other);
            }
            a.goto(elsewhere);
        }
        a.place(in_ring);
        if let Some(addresses) = self.addresses {
            destinations(&mut a, addresses, ours, elsewhere);
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
    a.op(code::LDX_IMM, 40);
    for _ in 0..STEPS {
        let walk = a.label();
        packet::EXTENSION_HEADERS.iter().for_each(|kind| a.if_eq((*kind).into(), walk, NEXT));
        a.if_eq(packet::FRAGMENT_HEADER.into(), holder, NEXT);
        a.if_eq(IPPROTO_UDP.into(), fragments, elsewhere);
        a.place(walk);
        a.op(code::LD_B_IND, NET);
        a.op(code::ST, 0);
        // Length in units of eight bytes, less one.
        a.op(code::LD_B_IND, NET + 1);
        a.op(code::ADD, 1);
        a.op(code::LSH, 3);
        a.op(code::ADD | code::X, 0);
        a.op(code::TAX, 0);
        a.op(code::LD_MEM, 0);
    }
    a.goto(elsewhere);
}

/// Branches on the destination address of the IP header. All addresses are of one family.
fn destinations(a: &mut Assembler, addresses: &[IpAddr], yes: Label, no: Label) {
    let v4 = |address: &IpAddr| if let IpAddr::V4(v4) = address { Some(v4.to_bits()) } else { None };
    let v6 = |address: &IpAddr| if let IpAddr::V6(v6) = address { Some(v6.to_bits()) } else { None };
    if let Some(IpAddr::V4(_)) = addresses.first() {
        a.load_word(NET + 16);
        addresses.iter().filter_map(v4).for_each(|bits| a.if_eq(bits, yes, NEXT));
    } else {
        for word in 0..4 {
            a.load_word(NET + 24 + 4 * word);
            a.op(code::ST, word);
        }
        let mut addresses: Vec<u128> = addresses.iter().filter_map(v6).collect();
        addresses.sort_unstable();
        if_words(a, &addresses, 0, yes, no);
    }
    a.goto(no);
}

/// Branches on the words of an IPv6 address in scratch memory, from number `at` on; the addresses are sorted and alike up
/// to there, so that those with one prefix share its comparisons. Goes on behind it where none has that word.
fn if_words(a: &mut Assembler, addresses: &[u128], at: u32, yes: Label, no: Label) {
    let word = |address: u128| (address >> (96 - 32 * at)) as u32;
    a.op(code::LD_MEM, at);
    for alike in addresses.chunk_by(|x, y| word(*x) == word(*y)) {
        if at == 3 {
            a.if_eq(word(alike[0]), yes, NEXT);
            continue;
        }
        // Where the branch is not taken A is this word still.
        let other = a.label();
        a.if_eq(word(alike[0]), NEXT, other);
        if_words(a, alike, at + 1, yes, no);
        a.goto(no);
        a.place(other);
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
                    let all: Vec<_> = in_ring.programs(look).collect();
                    let (whole, lack) = &all[0];
                    assert!(whole.len() <= classic::MAX_INSNS, "{n}");
                    assert_eq!(*lack, if n > 64 { Lack::Interfaces } else { Lack::Nothing }, "{n}");
                    // Each is shorter, but where the numbers are below what the first ones look for.
                    assert!(all.is_sorted_by(|a, b| a.0.len() >= b.0.len() && a.1 <= b.1), "{n}");
                    assert!(
                        n == 0 || all.last().unwrap().0.len() < 250,
                        "{n}: {}",
                        all.last().unwrap().0.len()
                    );
                }
            }
        }
    }

    /// Interfaces' own addresses, each with a third word of its own: about five instructions each.
    #[test]
    fn many_addresses_have_room_and_more_are_left_out() {
        for (n, first) in [(500, Lack::Nothing), (2000, Lack::Destinations)] {
            let addresses: Vec<IpAddr> = (0..n)
                .map(|i| IpAddr::from((0xfe80u128 << 112 | (i << 32) | 0xfe00_0000 | i).to_be_bytes()))
                .collect();
            let in_ring = InRing { interfaces: &[1], own: 1, macs: &[], addresses: Some(&addresses) };
            assert_eq!(in_ring.programs(Look::V6).next().unwrap().1, first, "{n}");
        }
    }
}
