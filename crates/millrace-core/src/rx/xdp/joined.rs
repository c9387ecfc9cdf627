//! Frames larger than a UMEM frame: several descriptors, all but the last with XDP_PKT_CONTD (Linux 6.6), put together
//! in memory of our own, so that UMEM frames go back at once. A frame may be cut by the end of a receive pass.
//!
//! A driver may lose the rest of a frame that it has begun to hand over (zero-copy, rx ring full), and the next frame
//! then follows without a mark. Three things keep bytes of two frames apart: the kernel publishes descriptors by whole
//! frames, so an open frame at the end of the ring has ended ([`Joined::cut_off`]); a piece that begins with the
//! address the frame begins with is another frame's first; and a frame must be exactly as long as its IP header says
//! (the padding of short frames does not occur here).

use crate::packet::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6};

/// Longer than any frame: the largest IP packet, an Ethernet header and two tags.
const MOST: usize = 65_575 + 22;
/// More than a frame has: MAX_SKB_FRAGS is at most 45, and the head comes to it.
const MOST_PIECES: u32 = 64;
/// Bytes of the destination address a frame begins with.
const ADDRESS: usize = 6;

/// The frame being put together.
#[derive(Debug, Default)]
pub(super) struct Joined {
    bytes: Vec<u8>,
    pieces: u32,
    state: State,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// The next piece begins a frame.
    #[default]
    Between,
    /// Pieces were taken and the last one has not come.
    Open,
    /// The frame is lost, and counted; the rest of it is still to come.
    Spoilt,
}

/// What became of a piece.
pub(super) enum Piece<'a> {
    /// Nothing yet.
    Taken,
    /// It was the last one, here is the frame.
    Last(&'a [u8]),
    /// With it a frame is lost; said once for each frame.
    Lost,
}

impl Joined {
    /// Memory for a whole frame when `segments` is on; nothing grows later.
    pub(super) fn new(segments: bool) -> Self {
        let bytes = Vec::with_capacity(if segments { MOST } else { 0 });
        Joined { bytes, pieces: 0, state: State::Between }
    }

    /// True between frames.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.state == State::Between
    }

    /// Adds a piece; `more` follow, or none. Without bytes, or empty, it spoils its frame.
    pub(super) fn add(&mut self, piece: Option<&[u8]>, more: bool) -> Piece<'_> {
        let next = |spoilt| match (more, spoilt) {
            (false, _) => State::Between,
            (true, false) => State::Open,
            (true, true) => State::Spoilt,
        };
        match self.state {
            State::Spoilt => {
                self.state = next(true);
                return Piece::Taken;
            }
            State::Between => {
                self.bytes.clear();
                self.pieces = 0;
            }
            State::Open => {}
        }
        let taken = piece.is_some_and(|piece| self.take(piece));
        self.state = next(!taken);
        match (taken, more) {
            (false, _) => Piece::Lost,
            (true, true) => Piece::Taken,
            (true, false) if !exact(&self.bytes) => Piece::Lost,
            (true, false) => Piece::Last(&self.bytes),
        }
    }

    fn take(&mut self, piece: &[u8]) -> bool {
        let fits = piece.len() <= self.bytes.capacity() - self.bytes.len() && self.pieces < MOST_PIECES;
        let begins_another =
            self.pieces > 0 && self.bytes.len() >= ADDRESS && piece.starts_with(&self.bytes[..ADDRESS]);
        if !fits || begins_another || piece.is_empty() {
            return false;
        }
        self.bytes.extend_from_slice(piece);
        self.pieces += 1;
        true
    }

    /// The ring is empty: what is open has no end. True when a frame is lost by it that was not counted.
    #[cold]
    pub(super) fn cut_off(&mut self) -> bool {
        std::mem::take(&mut self.state) == State::Open
    }
}

/// The frame ends where its IP packet does. What is no IP is not ours to judge.
fn exact(frame: &[u8]) -> bool {
    let half =
        |at: usize| frame.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u16::from_be_bytes(*b));
    let mut at = 12;
    while at < 20 && matches!(half(at), ETH_P_8021Q | ETH_P_8021AD) {
        at += 4;
    }
    let network = at + 2;
    match half(at) {
        ETH_P_IP => frame.len() == network + usize::from(half(network + 2)),
        ETH_P_IPV6 => frame.len() == network + 40 + usize::from(half(network + 4)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build::Frame;

    /// A frame of a datagram with `size` bytes `fill`, and its pieces as the kernel makes them.
    fn frame(v6: bool, size: usize, fill: u8) -> Vec<u8> {
        let ip = |last: u8| -> std::net::IpAddr {
            if v6 { format!("2001:db8::{last}") } else { format!("192.0.2.{last}") }.parse().unwrap()
        };
        Frame::new((ip(1), 1), (ip(2), 2)).bytes(&vec![fill; size])
    }

    const PIECE: usize = 1792;

    /// Feeds pieces, the last one without XDP_PKT_CONTD; returns frames and losses.
    fn feed(j: &mut Joined, pieces: &[&[u8]]) -> (Vec<Vec<u8>>, usize) {
        let (mut frames, mut lost) = (Vec::new(), 0);
        for (i, piece) in pieces.iter().enumerate() {
            match j.add(Some(piece), i + 1 < pieces.len()) {
                Piece::Taken => {}
                Piece::Last(frame) => frames.push(frame.to_vec()),
                Piece::Lost => lost += 1,
            }
        }
        (frames, lost)
    }

    fn cut(frame: &[u8]) -> Vec<&[u8]> {
        frame.chunks(PIECE).collect()
    }

    #[test]
    fn pieces_become_frames() {
        let mut j = Joined::new(true);
        for size in [PIECE, 3 * PIECE - 42, 65_507] {
            for v6 in [false, true] {
                let frame = frame(v6, size.min(65_487), size as u8);
                assert_eq!(feed(&mut j, &cut(&frame)), (vec![frame], 0), "{size} {v6}");
                assert!(j.is_empty() && !j.cut_off());
            }
        }
        assert!(j.bytes.capacity() < 2 * MOST);
    }

    #[test]
    fn a_piece_that_is_missing_or_empty_loses_its_frame_and_no_other() {
        let whole = frame(false, 5000, 7);
        let pieces = cut(&whole);
        let mut j = Joined::new(true);
        assert!(matches!(j.add(None, true), Piece::Lost));
        assert!(matches!(j.add(Some(&[1]), true), Piece::Taken), "counted already");
        assert!(matches!(j.add(None, false), Piece::Taken));
        assert!(matches!(j.add(None, false), Piece::Lost));
        assert_eq!(feed(&mut j, &[pieces[0], pieces[2]]), (vec![], 1), "a gap");
        assert_eq!(feed(&mut j, &[pieces[0], &[], pieces[1], pieces[2]]), (vec![], 1), "an empty piece");
        assert_eq!(feed(&mut j, &pieces), (vec![whole.clone()], 0));
    }

    #[test]
    fn a_chain_without_end_is_lost_once_and_at_once() {
        let whole = frame(true, 5000, 7);
        let mut j = Joined::new(true);
        let lost = (0..1000).filter(|_| matches!(j.add(Some(&[2; PIECE]), true), Piece::Lost)).count();
        assert_eq!(lost, 1, "longer than any frame");
        assert!(!j.is_empty() && !j.cut_off() && j.is_empty(), "counted before");
        let lost = (0..1000).filter(|_| matches!(j.add(Some(&[2]), true), Piece::Lost)).count();
        assert_eq!(lost, 1, "more pieces than any frame has");
        assert!(!j.cut_off());
        assert!(matches!(j.add(Some(&whole[..PIECE]), true), Piece::Taken));
        assert!(j.cut_off(), "the ring is empty and its end has not come");
        assert_eq!(feed(&mut j, &cut(&whole)), (vec![whole.clone()], 0));
        assert!(j.bytes.capacity() < 2 * MOST);
    }

    /// The driver lost the end of a frame, and another follows in the same pass.
    #[test]
    fn bytes_of_two_frames_never_become_one() {
        let first = frame(false, 3000, 1);
        let mut other = frame(false, first.len() - PIECE - 42, 2);
        let mut j = Joined::new(true);
        for next in [frame(false, 3000, 2), frame(true, 5000, 2), frame(false, 10, 2), other.clone()] {
            let glued = [&[&first[..PIECE]], cut(&next).as_slice()].concat();
            assert_eq!(feed(&mut j, &glued), (vec![], 1), "{} bytes follow", next.len());
            assert_eq!(feed(&mut j, &cut(&first)), (vec![first.clone()], 0));
        }
        // To another address, and not as long as the rest that is missing.
        other[0] ^= 1;
        other.extend_from_slice(&[0]);
        assert_eq!(feed(&mut j, &[&first[..PIECE], &other]), (vec![], 1));
    }

    #[test]
    fn without_segments_a_piece_is_no_frame() {
        let mut j = Joined::new(false);
        assert!(matches!(j.add(Some(&[1; 60]), true), Piece::Lost));
        assert!(matches!(j.add(Some(&[1; 60]), false), Piece::Taken));
        assert!(j.is_empty());
    }
}
