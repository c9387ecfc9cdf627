//! The program that selects the socket for each unicast datagram that the stack has for the guard beside a packet ring:
//! classic BPF that returns an index in the endpoint's reuseport group (SO_ATTACH_REUSEPORT_CBPF, socket(7)). The
//! program's offset 0 is the UDP payload, and its packet length is that of the payload; the headers are reached by bases of
//! their own (Documentation/networking/filter.rst).
//!
//! The kernel translates a program into a form of its own, whose bytes may not exceed net.core.optmem_max (20,480 before
//! Linux 6.8, 131,072 since), or attaching fails with ENOMEM (net/core/filter.c, `sk_filter_charge` and
//! `__get_filter`). A load by one of the bases becomes about eight instructions there, one from scratch memory a single
//! one. So [`RingCoverage::programs`] offers shorter programs as well, each with what it omits.

use std::{iter, net::IpAddr};

use libc::sock_filter;

use super::{
    destination_match::match_destination,
    fragment_inspection::FragmentInspection,
    omission::Omission,
    role::{OTHER_INTERFACES, PORT_HOLDER, REASSEMBLED},
};
use crate::bpf::classic::{self, AD_IFINDEX, Assembler, LINK, NEXT, code};

/// The bit of an Ethernet address that marks broadcast and multicast, in the address's first four bytes.
const ETHERNET_MULTICAST_BIT: u32 = 1 << 24;
/// Most interfaces that a program compares with. With more there would be no room in classic BPF for anything else.
const MAX_INTERFACES: usize = classic::MAX_INSNS / 4;
/// Most MAC addresses that a program compares with, at five instructions each. Few bonds have as many ports. If it were lower,
/// datagrams of larger bonds would come twice; if it were much higher, other parts of the program would have no room.
const MAX_MACS: usize = 64;

/// A program, and what there was no room for.
pub(super) struct SelectionProgram {
    pub(super) instructions: Vec<sock_filter>,
    pub(super) omitted: Omission,
}

/// Which datagrams of an endpoint the ring has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RingCoverage<'a> {
    /// The ring's interface and those that hand up its frames, by index.
    pub(super) interfaces: &'a [u32],
    /// The ring's interface, by index. The ring has all that comes up by this interface itself, whatever the frame's MAC
    /// address: the stack takes no other host's frames there. (A VRF, which no ring can read, is refused.)
    pub(super) ring_interface: u32,
    /// MAC addresses whose frames are for this host on the ring's interface. The ring regards other frames as another host's,
    /// and they may be for a device that stands on the interface. The device they come up by does not tell: a bridge hands
    /// up those for its own address and for its ports' addresses. Empty where frames have no Ethernet header.
    pub(super) macs: &'a [[u8; 6]],
    /// Destinations, of the address family of the reuseport group's sockets, that the ring accepts. `None` where the
    /// sockets are bound to the one address they are for.
    pub(super) addresses: Option<&'a [IpAddr]>,
}

impl RingCoverage<'_> {
    /// Returns the programs from the longest to the shortest. The first that the kernel accepts omits least.
    ///
    /// The first one omits nothing, unless there are more than [`MAX_MACS`] MAC addresses or more than [`MAX_INTERFACES`]
    /// interfaces, or the complete program is too long for classic BPF ([`classic::MAX_INSNS`]).
    pub(super) fn programs(&self, inspection: FragmentInspection) -> impl Iterator<Item = SelectionProgram> {
        let any_destination = RingCoverage { addresses: None, ..*self };
        let without_destinations =
            self.addresses.map(|_| (any_destination, MAX_INTERFACES, Omission::Destinations));
        let most = self.interfaces.len().max(self.macs.len()).min(MAX_INTERFACES);
        let halves = iter::successors(Some(most / 2), |limit| Some(limit / 2)).take_while(|limit| *limit > 0);
        let with_fewer_interfaces = halves.map(move |limit| (any_destination, limit, Omission::Interfaces));
        let variants = iter::once((*self, MAX_INTERFACES, Omission::Nothing))
            .chain(without_destinations)
            .chain(with_fewer_interfaces);
        variants.filter_map(move |(coverage, limit, omitted)| {
            let exceeds = coverage.interfaces.len() > limit || coverage.macs.len() > limit.min(MAX_MACS);
            let omitted = if exceeds { Omission::Interfaces } else { omitted };
            Some(SelectionProgram { instructions: coverage.assemble(inspection, limit)?, omitted })
        })
    }

    /// The program that compares with at most `limit` interfaces and MAC addresses. `None` when it is too long for classic
    /// BPF.
    fn assemble(&self, inspection: FragmentInspection, limit: usize) -> Option<Vec<sock_filter>> {
        let mut a = Assembler::default();
        let [compare_mac, frame_in_ring, datagram_in_ring] = std::array::from_fn(|_| a.label());
        let [port_holder, other_interfaces, reassembled] = std::array::from_fn(|_| a.label());
        a.load_word(AD_IFINDEX);
        a.if_eq(self.ring_interface, frame_in_ring, NEXT);
        for &index in self.interfaces.iter().take(limit) {
            a.if_eq(index, compare_mac, NEXT);
        }
        a.goto(other_interfaces);

        a.place(compare_mac);
        if !self.macs.is_empty() {
            a.load_word(LINK);
            a.if_set(ETHERNET_MULTICAST_BIT, frame_in_ring, NEXT);
            a.op(code::ST, 0);
            a.load_half(LINK + 4);
            a.op(code::ST, 1);
            for [b0, b1, b2, b3, b4, b5] in self.macs.iter().take(limit.min(MAX_MACS)) {
                let next_mac = a.label();
                a.op(code::LD_MEM, 0);
                a.if_eq(u32::from_be_bytes([*b0, *b1, *b2, *b3]), NEXT, next_mac);
                a.op(code::LD_MEM, 1);
                a.if_eq(u16::from_be_bytes([*b4, *b5]).into(), frame_in_ring, NEXT);
                a.place(next_mac);
            }
            a.goto(other_interfaces);
        }

        a.place(frame_in_ring);
        if let Some(addresses) = self.addresses {
            match_destination(&mut a, addresses, datagram_in_ring, other_interfaces);
        }

        a.place(datagram_in_ring);
        inspection.append(&mut a, reassembled, other_interfaces, port_holder);

        a.place(port_holder);
        a.ret(PORT_HOLDER);
        a.place(other_interfaces);
        a.ret(OTHER_INTERFACES);
        a.place(reassembled);
        a.ret(REASSEMBLED);
        a.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_interfaces_and_addresses_makes_a_program() {
        for n in [0, 1, 255, 300, 5000] {
            let interfaces: Vec<u32> = (1..=n).collect();
            for inspection in [
                FragmentInspection::Nothing,
                FragmentInspection::NonEmptyIpv4,
                FragmentInspection::LargeOrExtendedIpv6,
            ] {
                let macs = vec![[2, 0, 0, 0, 0, 1]; n as usize];
                let v6: Vec<IpAddr> =
                    (0..n).map(|i| std::net::Ipv6Addr::from(u128::from(i)).into()).collect();
                let v4: Vec<IpAddr> = (0..n).map(|i| std::net::Ipv4Addr::from(i).into()).collect();
                for addresses in [None, Some(&v4[..]), Some(&v6[..])] {
                    let coverage =
                        RingCoverage { interfaces: &interfaces, ring_interface: 1, macs: &macs, addresses };
                    let all: Vec<_> = coverage.programs(inspection).collect();
                    let whole = &all[0];
                    assert!(whole.instructions.len() <= classic::MAX_INSNS, "{n}");
                    let expected = if n > 64 { Omission::Interfaces } else { Omission::Nothing };
                    assert_eq!(whole.omitted, expected, "{n}");
                    // Each is shorter, except where the numbers are below what the first ones compare with.
                    assert!(
                        all.is_sorted_by(
                            |a, b| a.instructions.len() >= b.instructions.len() && a.omitted <= b.omitted
                        ),
                        "{n}"
                    );
                    let shortest = all.last().unwrap().instructions.len();
                    assert!(n == 0 || shortest < 250, "{n}: {shortest}");
                }
            }
        }
    }

    /// The addresses of many interfaces, each with a third word of its own, take about five instructions each.
    #[test]
    fn many_addresses_have_room_and_more_are_left_out() {
        for (n, first) in [(500, Omission::Nothing), (2000, Omission::Destinations)] {
            let addresses: Vec<IpAddr> = (0..n)
                .map(|i| IpAddr::from((0xfe80u128 << 112 | (i << 32) | 0xfe00_0000 | i).to_be_bytes()))
                .collect();
            let coverage =
                RingCoverage { interfaces: &[1], ring_interface: 1, macs: &[], addresses: Some(&addresses) };
            let whole = coverage.programs(FragmentInspection::LargeOrExtendedIpv6).next().unwrap();
            assert_eq!(whole.omitted, first, "{n}");
        }
    }
}
