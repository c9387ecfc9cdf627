//! Frames larger than a UMEM frame: several descriptors, all but the last with XDP_PKT_CONTD (Linux 6.6), put together
//! in memory of our own, so that UMEM frames go back at once. A frame may be cut by the end of a receive pass.
//!
//! A frame is what comes up to the first descriptor without the mark, whatever is in it: payloads are the senders', and
//! trailers (PRP, switch tags, time stamps, a kept FCS) make a frame longer than its IP header says. In copy mode that is
//! always right, and the kernel publishes descriptors by whole frames, so that one still open at the end of the ring has
//! no end ([`Joined::cut_off`]).
//!
//! A zero-copy driver that meets a full rx ring may lose the end of a frame, and the next frame then follows without a
//! mark. When what came looks like that, and [`super::overflow`] cannot rule it out, lengths decide, in doubt against the
//! frame: bytes of two frames must never become one.

use crate::protocol::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6};

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
    /// With it a frame is lost; said once for each frame. It may have begun the next.
    Lost,
    /// The one before it is lost, and it is a frame by itself.
    LostThen(&'a [u8]),
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

    /// Adds a piece; `more` follow, or none. Without bytes, or empty, it spoils its frame. `torn` says whether the kernel
    /// may have lost pieces; it is asked only when what came looks like it.
    pub(super) fn add(&mut self, piece: Option<&[u8]>, more: bool, torn: impl FnOnce() -> bool) -> Piece<'_> {
        let piece = piece.filter(|piece| !piece.is_empty());
        match (&self.state, piece) {
            (State::Spoilt, _) => {
                self.state = if more { State::Spoilt } else { State::Between };
                Piece::Taken
            }
            (_, None) => self.lose(more),
            (State::Between, Some(piece)) => {
                self.begin();
                self.append(piece, more)
            }
            (State::Open, Some(piece)) if self.looks_torn(piece, more) && torn() => {
                if !begins_frame(piece, more) {
                    return self.lose(more);
                }
                self.begin();
                match self.append(piece, more) {
                    Piece::Last(frame) => Piece::LostThen(frame),
                    _ => Piece::Lost,
                }
            }
            (State::Open, Some(piece)) => self.append(piece, more),
        }
    }

    fn begin(&mut self) {
        self.bytes.clear();
        self.pieces = 0;
    }

    fn lose(&mut self, more: bool) -> Piece<'_> {
        self.state = if more { State::Spoilt } else { State::Between };
        Piece::Lost
    }

    fn append(&mut self, piece: &[u8], more: bool) -> Piece<'_> {
        if piece.len() > self.bytes.capacity() - self.bytes.len() || self.pieces == MOST_PIECES {
            return self.lose(more);
        }
        self.bytes.extend_from_slice(piece);
        self.pieces += 1;
        if more {
            self.state = State::Open;
            return Piece::Taken;
        }
        self.state = State::Between;
        Piece::Last(&self.bytes)
    }

    /// The piece begins with the address that the frame begins with, or the frame would not end where its IP packet does.
    fn looks_torn(&self, piece: &[u8], more: bool) -> bool {
        let address = self.bytes.get(..ADDRESS).is_some_and(|address| piece.starts_with(address));
        let length = self.bytes.len() + piece.len();
        // What is no IP says nothing of its length.
        address || announced(&self.bytes).is_some_and(|l| length > l || (!more && length < l))
    }

    /// The ring is empty: what is open has no end. True when a frame is lost by it that was not counted.
    #[cold]
    pub(super) fn cut_off(&mut self) -> bool {
        std::mem::take(&mut self.state) == State::Open
    }
}

/// A piece that by its own header is the first of a frame: the last one too, or not the whole.
fn begins_frame(piece: &[u8], more: bool) -> bool {
    announced(piece).is_some_and(|l| if more { piece.len() < l } else { piece.len() >= l })
}

/// Bytes of a frame up to the end of its IP packet, by its beginning.
fn announced(frame: &[u8]) -> Option<usize> {
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

    /// A frame of a datagram with `size` bytes `fill`, and its pieces as the kernel makes them.
    fn frame(v6: bool, size: usize, fill: u8) -> Vec<u8> {
        let ip = |last: u8| -> std::net::IpAddr {
            if v6 { format!("2001:db8::{last}") } else { format!("192.0.2.{last}") }.parse().unwrap()
        };
        Frame::new((ip(1), 1), (ip(2), 2)).bytes(&vec![fill; size])
    }

    const PIECE: usize = 1792;

    /// Feeds pieces, the last one without XDP_PKT_CONTD; returns frames and losses.
    fn feed(j: &mut Joined, pieces: &[&[u8]], torn: bool) -> (Vec<Vec<u8>>, usize) {
        let marked: Vec<_> = pieces.iter().enumerate().map(|(i, p)| (*p, i + 1 < pieces.len())).collect();
        feed_marked(j, &marked, torn)
    }

    fn feed_marked(j: &mut Joined, pieces: &[(&[u8], bool)], torn: bool) -> (Vec<Vec<u8>>, usize) {
        let (mut frames, mut lost) = (Vec::new(), 0);
        for (piece, more) in pieces {
            match j.add(Some(piece), *more, || torn) {
                Piece::Taken => {}
                Piece::Last(frame) => frames.push(frame.to_vec()),
                Piece::Lost => lost += 1,
                Piece::LostThen(frame) => {
                    frames.push(frame.to_vec());
                    lost += 1;
                }
            }
        }
        (frames, lost)
    }

    fn cut(frame: &[u8]) -> Vec<&[u8]> {
        frame.chunks(PIECE).collect()
    }

    /// The kernel surely has lost nothing.
    fn sound() -> bool {
        false
    }

    #[test]
    fn pieces_become_frames() {
        for torn in [false, true] {
            let mut j = Joined::new(true);
            for size in [PIECE, 3 * PIECE - 42, 65_507] {
                for v6 in [false, true] {
                    let frame = frame(v6, size.min(65_487), size as u8);
                    assert_eq!(feed(&mut j, &cut(&frame), torn), (vec![frame], 0), "{size} {v6}");
                    assert!(j.is_empty() && !j.cut_off());
                }
            }
            assert!(j.bytes.capacity() < 2 * MOST);
        }
    }

    /// Frames that look torn and are not: the payload repeats the address at a piece's beginning, or a trailer follows.
    #[test]
    fn what_the_kernel_did_not_lose_is_whole_whatever_it_looks_like() {
        let mut broadcast = frame(false, 5000, 0xff);
        broadcast[..ADDRESS].fill(0xff);
        let mut repeats = frame(true, 5000, 7);
        repeats.copy_within(..ADDRESS, PIECE);
        let trailer = |v6, len| [frame(v6, len, 7), vec![0xa5; 6]].concat();
        let no_ip = [&[2; 12][..], &[0x88, 0xb5], &[2; 4000]].concat();
        let mut j = Joined::new(true);
        for whole in [broadcast, repeats, trailer(false, 3000), trailer(true, 3000), no_ip] {
            assert_eq!(feed(&mut j, &cut(&whole), false), (vec![whole.clone()], 0));
            assert!(j.is_empty());
        }
        // A frame shorter than it says is for the parser to judge.
        let whole = frame(false, 5000, 7);
        let short = [&whole[..PIECE], &whole[..100]].concat();
        assert_eq!(feed(&mut j, &cut(&short), false), (vec![short.clone()], 0));
    }

    #[test]
    fn a_piece_that_is_missing_or_empty_loses_its_frame_and_no_other() {
        let whole = frame(false, 5000, 7);
        let pieces = cut(&whole);
        let mut j = Joined::new(true);
        assert!(matches!(j.add(None, true, sound), Piece::Lost));
        assert!(matches!(j.add(Some(&[1]), true, sound), Piece::Taken), "counted already");
        assert!(matches!(j.add(None, false, sound), Piece::Taken));
        assert!(matches!(j.add(None, false, sound), Piece::Lost));
        assert_eq!(feed(&mut j, &[pieces[0], pieces[2]], true), (vec![], 1), "a gap");
        let with_nothing = [pieces[0], &[], pieces[1], pieces[2]];
        assert_eq!(feed(&mut j, &with_nothing, false), (vec![], 1), "an empty piece");
        assert_eq!(feed(&mut j, &pieces, false), (vec![whole.clone()], 0));
    }

    #[test]
    fn a_chain_without_end_is_lost_once_and_at_once() {
        let whole = frame(true, 5000, 7);
        let mut j = Joined::new(true);
        let endless = |j: &mut Joined, piece: &[u8]| {
            (0..1000).filter(|_| matches!(j.add(Some(piece), true, sound), Piece::Lost)).count()
        };
        assert_eq!(endless(&mut j, &[2; PIECE]), 1, "longer than any frame");
        assert!(!j.is_empty() && !j.cut_off() && j.is_empty(), "counted before");
        assert_eq!(endless(&mut j, &[2]), 1, "more pieces than any frame has");
        assert!(!j.cut_off());
        assert!(matches!(j.add(Some(&whole[..PIECE]), true, sound), Piece::Taken));
        assert!(j.cut_off(), "the ring is empty and its end has not come");
        assert_eq!(feed(&mut j, &cut(&whole), false), (vec![whole.clone()], 0));
        assert!(j.bytes.capacity() < 2 * MOST);
    }

    /// The driver lost the end of a frame, and another follows in the same pass: the first is lost alone.
    #[test]
    fn bytes_of_two_frames_never_become_one() {
        let first = frame(false, 3000, 1);
        let rest = first.len() - PIECE;
        let mut j = Joined::new(true);
        // The last one is exactly as long as the rest that is missing.
        for other in
            [frame(false, 3000, 2), frame(true, 5000, 2), frame(false, 10, 2), frame(false, rest - 42, 2)]
        {
            let glued = [&[&first[..PIECE]], cut(&other).as_slice()].concat();
            assert_eq!(feed(&mut j, &glued, true), (vec![other.clone()], 1), "{} bytes", other.len());
            assert_eq!(feed(&mut j, &cut(&first), true), (vec![first.clone()], 0));
        }
        // To another address: known by its length.
        let mut other = frame(false, 3000, 2);
        other[0] ^= 1;
        let glued = [&[&first[..PIECE]], cut(&other).as_slice()].concat();
        assert_eq!(feed(&mut j, &glued, true), (vec![other.clone()], 1));
        // What is no frame by itself is not taken for one.
        assert_eq!(feed(&mut j, &[&first[..PIECE], &[3; PIECE]], true), (vec![], 1));
        assert_eq!(feed(&mut j, &[&first[..PIECE], &[3; 10]], true), (vec![], 1), "too short");
        assert_eq!(feed(&mut j, &cut(&first), true), (vec![first.clone()], 0));
    }

    /// Several frames in a row without their ends: each is counted.
    #[test]
    fn each_torn_frame_is_counted() {
        let (torn, whole) = (frame(false, 3000, 1), frame(true, 3000, 2));
        let begun = (&torn[..PIECE], true);
        let pieces = [begun, begun, begun, (&whole[..PIECE], true), (&whole[PIECE..], false)];
        let mut j = Joined::new(true);
        assert_eq!(feed_marked(&mut j, &pieces, true), (vec![whole], 3));
        assert!(j.is_empty());
    }

    #[test]
    fn without_segments_a_piece_is_no_frame() {
        let mut j = Joined::new(false);
        assert!(matches!(j.add(Some(&[1; 60]), true, sound), Piece::Lost));
        assert!(matches!(j.add(Some(&[1; 60]), false, sound), Piece::Taken));
        assert!(j.is_empty());
    }
}
