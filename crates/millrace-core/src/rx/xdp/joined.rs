//! Frames larger than a UMEM frame: several descriptors, all but the last with XDP_PKT_CONTD (Linux 6.6), put together
//! in memory of our own, so that UMEM frames go back at once. A frame may be cut by the end of a receive pass.

/// Longer than any frame: the largest IP packet, an Ethernet header and two tags.
const MOST: usize = 65_575 + 22;

/// The frame being put together.
#[derive(Debug, Default)]
pub(super) struct Joined {
    bytes: Vec<u8>,
    /// A piece is missing or the frame is too long: drop the rest of it.
    spoilt: bool,
    /// Pieces were taken and the last one has not come.
    open: bool,
}

/// What became of a piece.
pub(super) enum Piece<'a> {
    /// More pieces follow.
    More,
    /// It was the last one, here is the frame.
    Last(&'a [u8]),
    /// It was the last one of a frame that is not whole.
    Lost,
}

impl Joined {
    /// Memory for a whole frame when `segments` is on; nothing grows later.
    pub(super) fn new(segments: bool) -> Self {
        Joined { bytes: Vec::with_capacity(if segments { MOST } else { 0 }), spoilt: false, open: false }
    }

    /// True between frames.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.open
    }

    /// Adds a piece; `more` follow, or none. Pieces without bytes spoil their frame.
    pub(super) fn add(&mut self, piece: Option<&[u8]>, more: bool) -> Piece<'_> {
        if !self.open {
            self.bytes.clear();
            self.spoilt = false;
        }
        self.open = more;
        match piece {
            Some(piece) if !self.spoilt && piece.len() <= self.bytes.capacity() - self.bytes.len() => {
                self.bytes.extend_from_slice(piece);
            }
            _ => self.spoilt = true,
        }
        match (more, self.spoilt) {
            (true, _) => Piece::More,
            (false, true) => Piece::Lost,
            (false, false) => Piece::Last(&self.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_frames_and_gaps_do_not() {
        let mut j = Joined::new(true);
        for round in 0..3u8 {
            assert!(matches!(j.add(Some(&[round; 1792]), true), Piece::More) && !j.is_empty());
            assert!(matches!(j.add(Some(&[round; 8]), false), Piece::Last(f) if f == [round; 1800]));
            assert!(j.is_empty());
        }
        assert!(matches!(j.add(None, true), Piece::More));
        assert!(matches!(j.add(Some(&[1]), false), Piece::Lost));
        assert!(matches!(j.add(None, false), Piece::Lost));
        for _ in 0..100 {
            j.add(Some(&[2; 1792]), true);
        }
        assert!(matches!(j.add(Some(&[2]), false), Piece::Lost), "longer than any frame");
        assert!(matches!(j.add(Some(&[3]), true), Piece::More));
        assert!(matches!(j.add(Some(&[3]), false), Piece::Last(f) if f == [3; 2]));
        assert!(j.bytes.capacity() < 2 * MOST);
    }

    #[test]
    fn without_segments_a_piece_is_no_frame() {
        let mut j = Joined::new(false);
        assert!(matches!(j.add(Some(&[1; 60]), true), Piece::More));
        assert!(matches!(j.add(Some(&[1; 60]), false), Piece::Lost));
    }
}
