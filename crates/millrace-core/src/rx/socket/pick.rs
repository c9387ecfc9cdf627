//! The program that sorts what the stack gives the guard beside a packet ring: classic BPF that returns the number of a
//! datagram's socket in its SO_REUSEPORT group (SO_ATTACH_REUSEPORT_CBPF, socket(7)). Offset 0 is the UDP payload, so the
//! program's packet length is that of the payload; the headers are reached by their own bases.

use std::net::IpAddr;

use libc::sock_filter;

use crate::rx::cbpf::{self, AD_IFINDEX, Assembler, LINK, Label, NET, NEXT};

/// Position in the group of the socket whose filter drops everything and that nobody reads,
pub(super) const HOLDER: u32 = 0;
/// of the one for what the ring does not have,
pub(super) const ELSEWHERE: u32 = 1;
/// and of the one for what may have been fragments.
const FRAGMENTS: u32 = 2;

/// The first bit of an Ethernet address, in its first four bytes: broadcast and multicast.
const TO_MANY: u32 = 1 << 24;

/// Which frames the ring has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct InRing<'a> {
    /// The ring's interface and those that hand up its frames.
    pub(super) interfaces: &'a [u32],
    /// Address of the ring's interface. Frames for another one are another host's to the ring, and may be for something
    /// that stands on the interface. None where frames have no Ethernet header. It is the frame that tells: a VRF or bond
    /// has its ports' frames whatever its own address is, and a bridge those for its own and for its ports' addresses.
    pub(super) mac: Option<[u8; 6]>,
    /// Destinations of the family of the group's sockets that the ring takes. None where its sockets are bound to the one
    /// address they are for.
    pub(super) addresses: Option<&'a [IpAddr]>,
}

impl InRing<'_> {
    /// The program. Datagrams with more than `limit` bytes of payload may have been fragments.
    pub(super) fn pick(&self, limit: Option<u32>) -> Vec<sock_filter> {
        // Too many addresses for a program: then one that the ring does not know is nobody's. Taking all for unknown would
        // deliver everything twice.
        let any = InRing { addresses: None, ..*self };
        self.write(limit).or_else(|| any.write(limit)).expect("forward branches, and the length was bounded")
    }

    /// None when it is too long.
    fn write(&self, limit: Option<u32>) -> Option<Vec<sock_filter>> {
        let mut a = Assembler::default();
        let [here, own, ours, elsewhere, holder] = std::array::from_fn(|_| a.label());
        a.load_word(AD_IFINDEX);
        // More than fit a program stand on no interface; then the rest would come twice, which is better than not at all.
        for &index in self.interfaces.iter().take(cbpf::MAX_INSNS / 4) {
            a.if_eq(index, here, NEXT);
        }
        a.goto(elsewhere);
        a.place(here);
        if let Some([b0, b1, b2, b3, b4, b5]) = self.mac {
            a.load_word(LINK);
            a.if_set(TO_MANY, own, NEXT);
            a.if_eq(u32::from_be_bytes([b0, b1, b2, b3]), NEXT, elsewhere);
            a.load_half(LINK + 4);
            a.if_eq(u16::from_be_bytes([b4, b5]).into(), NEXT, elsewhere);
        }
        a.place(own);
        if let Some(addresses) = self.addresses {
            addresses.iter().for_each(|address| if_destination(&mut a, *address, ours));
            a.goto(elsewhere);
        }
        a.place(ours);
        if let Some(limit) = limit {
            a.load_len();
            a.if_gt(limit, NEXT, holder);
            a.ret(FRAGMENTS);
        }
        a.place(holder);
        a.ret(HOLDER);
        a.place(elsewhere);
        a.ret(ELSEWHERE);
        a.finish()
    }
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
            for limit in [None, Some(0), Some(1232)] {
                let mac = Some([2, 0, 0, 0, 0, 1]);
                let v6: Vec<IpAddr> =
                    (0..n).map(|i| std::net::Ipv6Addr::from(u128::from(i)).into()).collect();
                let v4: Vec<IpAddr> = (0..n).map(|i| std::net::Ipv4Addr::from(i).into()).collect();
                for addresses in [None, Some(&v4[..]), Some(&v6[..])] {
                    let in_ring = InRing { interfaces: &interfaces, mac, addresses };
                    assert!(in_ring.pick(limit).len() <= cbpf::MAX_INSNS, "{n}");
                }
            }
        }
    }
}
