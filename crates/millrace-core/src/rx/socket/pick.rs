//! The program that sorts what the stack gives the guard beside a packet ring: classic BPF that returns the number of a
//! datagram's socket in its SO_REUSEPORT group (SO_ATTACH_REUSEPORT_CBPF, socket(7)). Offset 0 is the UDP payload, so the
//! program's packet length is that of the payload; the headers are reached by their own bases.

use libc::sock_filter;

use crate::rx::cbpf::{self, AD_IFINDEX, Assembler, LINK, NEXT};

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
}

impl InRing<'_> {
    /// The program. Datagrams with more than `limit` bytes of payload may have been fragments.
    pub(super) fn pick(&self, limit: Option<u32>) -> Vec<sock_filter> {
        let mut a = Assembler::default();
        let [here, own, elsewhere, holder] = std::array::from_fn(|_| a.label());
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
        if let Some(limit) = limit {
            a.load_len();
            a.if_gt(limit, NEXT, holder);
            a.ret(FRAGMENTS);
        }
        a.place(holder);
        a.ret(HOLDER);
        a.place(elsewhere);
        a.ret(ELSEWHERE);
        a.finish().expect("forward branches, and the length was bounded")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_interfaces_makes_a_program() {
        for n in [0, 1, 255, 300, 5000] {
            let interfaces: Vec<u32> = (1..=n).collect();
            for limit in [None, Some(0), Some(1232)] {
                let in_ring = InRing { interfaces: &interfaces, mac: Some([2, 0, 0, 0, 0, 1]) };
                assert!(in_ring.pick(limit).len() <= cbpf::MAX_INSNS, "{n}");
            }
        }
    }
}
