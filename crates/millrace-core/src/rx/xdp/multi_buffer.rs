//! Multi-buffer packets (af_xdp.rst, "Multi-Buffer Support"; Linux 6.6): a packet larger than a UMEM frame comes in several
//! descriptors, here called fragments, all but the last with XDP_PKT_CONTD. Each fragment is copied into memory of this
//! crate at once, so that its UMEM frame goes back in the pass that received it, whether the packet is complete or not. A
//! packet may therefore begin in one receive pass and end in the next, and holds no frame in between.
//!
//! A packet is what comes up to the first descriptor without the mark, whatever is in it: payloads are the senders', and
//! trailers (PRP, switch tags, time stamps, a kept FCS) make a packet longer than its IP header says. In copy mode that is
//! always right, and the kernel publishes descriptors by whole packets, so that a packet still open when the ring is empty
//! has no end ([`MultiBufferPacket::discard_open`]).
//!
//! A zero-copy driver that meets a full rx ring may lose the end of a packet, and the next packet then follows without a
//! mark. When the fragments look like that, and [`super::rx_ring_full`] cannot rule it out, lengths decide, in doubt against
//! the packet: bytes of two packets must never become one.

use crate::protocol::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6};

/// Bytes of the longest packet: the largest IP packet, an Ethernet header and two VLAN tags.
const MAX_PACKET: usize = 65_575 + 22;
/// More fragments than a packet has: MAX_SKB_FRAGS is at most 45, and the linear part comes to it. It bounds the work on a
/// packet whose end never comes.
const MAX_FRAGMENTS: u32 = 64;
/// Bytes of the destination MAC address at the beginning of a packet.
const MAC_ADDRESS: usize = 6;

/// The packet that is being reassembled from fragments.
#[derive(Debug, Default)]
pub(super) struct MultiBufferPacket {
    bytes: Vec<u8>,
    fragments: u32,
    state: Reassembly,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Reassembly {
    /// The next fragment begins a packet.
    #[default]
    Idle,
    /// Fragments were added, and the last one has not come.
    Open,
    /// The packet is dropped and was counted; its remaining fragments are still to come.
    Discarding,
}

/// The outcome of adding a fragment.
pub(super) enum Outcome<'a> {
    /// The packet is not complete, or its drop was counted before.
    Continued,
    /// The fragment was the last one; this is the packet.
    Complete(&'a [u8]),
    /// A packet is dropped because of this fragment, which may have begun the next one. Returned once for each packet.
    Dropped,
    /// The open packet is dropped, and the fragment is a packet by itself.
    DroppedThenComplete(&'a [u8]),
}

impl MultiBufferPacket {
    /// Allocates memory for the longest packet when `multi_buffer` is on; nothing is allocated later.
    pub(super) fn new(multi_buffer: bool) -> Self {
        let bytes = Vec::with_capacity(if multi_buffer { MAX_PACKET } else { 0 });
        MultiBufferPacket { bytes, fragments: 0, state: Reassembly::Idle }
    }

    /// True when the next fragment begins a packet.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.state == Reassembly::Idle
    }

    /// Adds a fragment that is `continued` by others or is the last one. A fragment without bytes, or empty, drops its
    /// packet. `may_lack_end` says whether the kernel may have lost fragments; it is called only when the fragments look
    /// like it.
    pub(super) fn add(
        &mut self,
        fragment: Option<&[u8]>,
        continued: bool,
        may_lack_end: impl FnOnce() -> bool,
    ) -> Outcome<'_> {
        let fragment = fragment.filter(|fragment| !fragment.is_empty());
        match (&self.state, fragment) {
            (Reassembly::Discarding, _) => {
                self.state = if continued { Reassembly::Discarding } else { Reassembly::Idle };
                Outcome::Continued
            }
            (_, None) => self.drop_packet(continued),
            (Reassembly::Idle, Some(fragment)) => {
                self.begin();
                self.append(fragment, continued)
            }
            (Reassembly::Open, Some(fragment))
                if self.looks_truncated(fragment, continued) && may_lack_end() =>
            {
                if !begins_packet(fragment, continued) {
                    return self.drop_packet(continued);
                }
                self.begin();
                match self.append(fragment, continued) {
                    Outcome::Complete(packet) => Outcome::DroppedThenComplete(packet),
                    _ => Outcome::Dropped,
                }
            }
            (Reassembly::Open, Some(fragment)) => self.append(fragment, continued),
        }
    }

    fn begin(&mut self) {
        self.bytes.clear();
        self.fragments = 0;
    }

    fn drop_packet(&mut self, continued: bool) -> Outcome<'_> {
        self.state = if continued { Reassembly::Discarding } else { Reassembly::Idle };
        Outcome::Dropped
    }

    fn append(&mut self, fragment: &[u8], continued: bool) -> Outcome<'_> {
        if fragment.len() > self.bytes.capacity() - self.bytes.len() || self.fragments == MAX_FRAGMENTS {
            return self.drop_packet(continued);
        }
        self.bytes.extend_from_slice(fragment);
        self.fragments += 1;
        if continued {
            self.state = Reassembly::Open;
            return Outcome::Continued;
        }
        self.state = Reassembly::Idle;
        Outcome::Complete(&self.bytes)
    }

    /// True when the fragment begins with the address that the packet begins with, or when the packet would not end where
    /// its IP packet does.
    fn looks_truncated(&self, fragment: &[u8], continued: bool) -> bool {
        let same_address = self.bytes.get(..MAC_ADDRESS).is_some_and(|address| fragment.starts_with(address));
        let length = self.bytes.len() + fragment.len();
        // A packet that is not IP does not announce its length.
        same_address
            || announced_length(&self.bytes).is_some_and(|l| length > l || (!continued && length < l))
    }

    /// Ends a packet that is open although the ring is empty: its end was lost. True when a packet is dropped by it that was
    /// not counted yet.
    #[cold]
    pub(super) fn discard_open(&mut self) -> bool {
        std::mem::take(&mut self.state) == Reassembly::Open
    }
}

/// True when the fragment is, by its own header, the first of a packet: all of it when it is the last one, a part otherwise.
fn begins_packet(fragment: &[u8], continued: bool) -> bool {
    announced_length(fragment)
        .is_some_and(|l| if continued { fragment.len() < l } else { fragment.len() >= l })
}

/// Bytes from the beginning of an Ethernet frame to the end of its IP packet, by its headers; None for what is not IP.
fn announced_length(frame: &[u8]) -> Option<usize> {
    let half = |at: usize| frame.get(at..).and_then(<[u8]>::first_chunk).map(|b| u16::from_be_bytes(*b));
    let mut at = 12;
    while at < 20 && matches!(half(at)?, ETH_P_8021Q | ETH_P_8021AD) {
        at += 4;
    }
    let network = at + 2;
    match half(at)? {
        ETH_P_IP => Some(network + usize::from(half(network + 2)?)),
        ETH_P_IPV6 => Some(network + 40 + usize::from(half(network + 4)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build::Frame;

    /// The frame of a datagram with `size` bytes `fill`.
    fn frame(v6: bool, size: usize, fill: u8) -> Vec<u8> {
        let ip = |last: u8| -> std::net::IpAddr {
            if v6 { format!("2001:db8::{last}") } else { format!("192.0.2.{last}") }.parse().unwrap()
        };
        Frame::new((ip(1), 1), (ip(2), 2)).bytes(&vec![fill; size])
    }

    const FRAGMENT: usize = 1792;

    /// Adds fragments, the last one without XDP_PKT_CONTD; returns the packets and the number of drops.
    fn add_all(j: &mut MultiBufferPacket, fragments: &[&[u8]], may_lack_end: bool) -> (Vec<Vec<u8>>, usize) {
        let marked: Vec<_> =
            fragments.iter().enumerate().map(|(i, p)| (*p, i + 1 < fragments.len())).collect();
        add_marked(j, &marked, may_lack_end)
    }

    fn add_marked(
        j: &mut MultiBufferPacket,
        fragments: &[(&[u8], bool)],
        may_lack_end: bool,
    ) -> (Vec<Vec<u8>>, usize) {
        let (mut packets, mut dropped) = (Vec::new(), 0);
        for (fragment, more) in fragments {
            match j.add(Some(fragment), *more, || may_lack_end) {
                Outcome::Continued => {}
                Outcome::Complete(packet) => packets.push(packet.to_vec()),
                Outcome::Dropped => dropped += 1,
                Outcome::DroppedThenComplete(packet) => {
                    packets.push(packet.to_vec());
                    dropped += 1;
                }
            }
        }
        (packets, dropped)
    }

    fn split(frame: &[u8]) -> Vec<&[u8]> {
        frame.chunks(FRAGMENT).collect()
    }

    /// The kernel certainly lost nothing.
    fn sound() -> bool {
        false
    }

    #[test]
    fn fragments_become_packets() {
        for may_lack_end in [false, true] {
            let mut j = MultiBufferPacket::new(true);
            for size in [FRAGMENT, 3 * FRAGMENT - 42, 65_507] {
                for v6 in [false, true] {
                    let frame = frame(v6, size.min(65_487), size as u8);
                    assert_eq!(
                        add_all(&mut j, &split(&frame), may_lack_end),
                        (vec![frame], 0),
                        "{size} {v6}"
                    );
                    assert!(j.is_idle() && !j.discard_open());
                }
            }
            assert!(j.bytes.capacity() < 2 * MAX_PACKET);
        }
    }

    /// Frames that appear truncated and are not: the payload repeats the address at a fragment's beginning, or a trailer
    /// follows.
    #[test]
    fn what_the_kernel_did_not_lose_is_whole_whatever_it_looks_like() {
        let mut broadcast = frame(false, 5000, 0xff);
        broadcast[..MAC_ADDRESS].fill(0xff);
        let mut repeats = frame(true, 5000, 7);
        repeats.copy_within(..MAC_ADDRESS, FRAGMENT);
        let trailer = |v6, len| [frame(v6, len, 7), vec![0xa5; 6]].concat();
        let no_ip = [&[2; 12][..], &[0x88, 0xb5], &[2; 4000]].concat();
        let mut j = MultiBufferPacket::new(true);
        for whole in [broadcast, repeats, trailer(false, 3000), trailer(true, 3000), no_ip] {
            assert_eq!(add_all(&mut j, &split(&whole), false), (vec![whole.clone()], 0));
            assert!(j.is_idle());
        }
        // A frame shorter than it says is for the parser to judge.
        let whole = frame(false, 5000, 7);
        let short = [&whole[..FRAGMENT], &whole[..100]].concat();
        assert_eq!(add_all(&mut j, &split(&short), false), (vec![short.clone()], 0));
    }

    #[test]
    fn a_fragment_that_is_missing_or_empty_loses_its_packet_and_no_other() {
        let whole = frame(false, 5000, 7);
        let fragments = split(&whole);
        let mut j = MultiBufferPacket::new(true);
        assert!(matches!(j.add(None, true, sound), Outcome::Dropped));
        assert!(matches!(j.add(Some(&[1]), true, sound), Outcome::Continued), "counted already");
        assert!(matches!(j.add(None, false, sound), Outcome::Continued));
        assert!(matches!(j.add(None, false, sound), Outcome::Dropped));
        assert_eq!(add_all(&mut j, &[fragments[0], fragments[2]], true), (vec![], 1), "a gap");
        let with_nothing = [fragments[0], &[], fragments[1], fragments[2]];
        assert_eq!(add_all(&mut j, &with_nothing, false), (vec![], 1), "an empty fragment");
        assert_eq!(add_all(&mut j, &fragments, false), (vec![whole.clone()], 0));
    }

    #[test]
    fn a_chain_without_end_is_lost_once_and_at_once() {
        let whole = frame(true, 5000, 7);
        let mut j = MultiBufferPacket::new(true);
        let endless = |j: &mut MultiBufferPacket, fragment: &[u8]| {
            (0..1000).filter(|_| matches!(j.add(Some(fragment), true, sound), Outcome::Dropped)).count()
        };
        assert_eq!(endless(&mut j, &[2; FRAGMENT]), 1, "longer than any frame");
        assert!(!j.is_idle() && !j.discard_open() && j.is_idle(), "counted before");
        assert_eq!(endless(&mut j, &[2]), 1, "more fragments than any frame has");
        assert!(!j.discard_open());
        assert!(matches!(j.add(Some(&whole[..FRAGMENT]), true, sound), Outcome::Continued));
        assert!(j.discard_open(), "the ring is empty and its end has not come");
        assert_eq!(add_all(&mut j, &split(&whole), false), (vec![whole.clone()], 0));
        assert!(j.bytes.capacity() < 2 * MAX_PACKET);
    }

    /// The driver lost the end of a frame, and another follows in the same pass: the first is lost alone.
    #[test]
    fn bytes_of_two_frames_never_become_one() {
        let first = frame(false, 3000, 1);
        let rest = first.len() - FRAGMENT;
        let mut j = MultiBufferPacket::new(true);
        // The last one is exactly as long as the rest that is missing.
        for other in
            [frame(false, 3000, 2), frame(true, 5000, 2), frame(false, 10, 2), frame(false, rest - 42, 2)]
        {
            let glued = [&[&first[..FRAGMENT]], split(&other).as_slice()].concat();
            assert_eq!(add_all(&mut j, &glued, true), (vec![other.clone()], 1), "{} bytes", other.len());
            assert_eq!(add_all(&mut j, &split(&first), true), (vec![first.clone()], 0));
        }
        // This packet is for another address, and is recognized by its length.
        let mut other = frame(false, 3000, 2);
        other[0] ^= 1;
        let glued = [&[&first[..FRAGMENT]], split(&other).as_slice()].concat();
        assert_eq!(add_all(&mut j, &glued, true), (vec![other.clone()], 1));
        // A fragment that is no frame by itself is not taken for one.
        assert_eq!(add_all(&mut j, &[&first[..FRAGMENT], &[3; FRAGMENT]], true), (vec![], 1));
        assert_eq!(add_all(&mut j, &[&first[..FRAGMENT], &[3; 10]], true), (vec![], 1), "too short");
        assert_eq!(add_all(&mut j, &split(&first), true), (vec![first.clone()], 0));
    }

    /// Several frames in a row without their ends: each is counted.
    #[test]
    fn each_truncated_packet_is_counted() {
        let (truncated, whole) = (frame(false, 3000, 1), frame(true, 3000, 2));
        let begun = (&truncated[..FRAGMENT], true);
        let fragments = [begun, begun, begun, (&whole[..FRAGMENT], true), (&whole[FRAGMENT..], false)];
        let mut j = MultiBufferPacket::new(true);
        assert_eq!(add_marked(&mut j, &fragments, true), (vec![whole], 3));
        assert!(j.is_idle());
    }

    #[test]
    fn without_multi_buffer_a_fragment_is_no_packet() {
        let mut j = MultiBufferPacket::new(false);
        assert!(matches!(j.add(Some(&[1; 60]), true, sound), Outcome::Dropped));
        assert!(matches!(j.add(Some(&[1; 60]), false, sound), Outcome::Continued));
        assert!(j.is_idle());
    }
}
