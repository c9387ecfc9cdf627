//! Whether a zero-copy socket may have lost the end of a frame of several descriptors.
//!
//! In copy mode it cannot: `__xsk_rcv` looks for room for all descriptors of a frame before it writes the first. In
//! zero-copy each goes by itself, and one that finds the rx ring full always adds to `rx_ring_full` (`__xsk_rcv_zc`). So
//! while that counter rests, every frame is whole.

use super::socket::XskStatistics;

/// What `rx_ring_full` was when all that it counts was surely behind us.
///
/// The kernel is ahead of us: a frame it has cut and counted may still wait in the ring. The counter is believed when it
/// is the same in three readings and the ring was empty between each two: the first emptiness takes what was counted
/// before, and the time to the second all that the driver had counted and not published yet.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    settled: u64,
    last: u64,
    /// Readings in a row that were as the one before, the ring empty in between.
    resting: u8,
    emptied: bool,
}

impl Overflow {
    /// The ring was found empty.
    #[inline]
    pub(super) fn emptied(&mut self) {
        self.emptied = true;
    }

    /// One of the readings that are made a few times a second.
    pub(super) fn read(&mut self, now: XskStatistics) {
        let rests = self.emptied && now.rx_ring_full == self.last;
        self.resting = if rests { self.resting.saturating_add(1) } else { 0 };
        if self.resting >= 2 {
            self.settled = now.rx_ring_full;
        }
        self.last = now.rx_ring_full;
        self.emptied = false;
    }

    /// True when a frame that was just received may lack its end. `ask` is a system call, made only while the last reading
    /// gives no reason to doubt; one that fails is one.
    pub(super) fn may_have_torn(&self, ask: impl FnOnce() -> Option<XskStatistics>) -> bool {
        self.last != self.settled || ask().is_none_or(|now| now.rx_ring_full != self.settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(rx_ring_full: u64) -> XskStatistics {
        XskStatistics { rx_ring_full, ..XskStatistics::default() }
    }

    #[test]
    fn a_counter_that_moved_is_doubted_until_it_has_rested_and_the_ring_was_empty() {
        let mut o = Overflow::default();
        assert!(!o.may_have_torn(|| Some(full(0))));
        assert!(o.may_have_torn(|| Some(full(1))) && o.may_have_torn(|| None));
        o.emptied();
        o.read(full(1));
        let moved = |o: &Overflow| o.may_have_torn(|| panic!("known without asking"));
        assert!(moved(&o));
        // Twice the same, but the ring was never empty in between.
        o.read(full(1));
        o.read(full(1));
        assert!(moved(&o));
        o.emptied();
        o.read(full(1));
        assert!(moved(&o), "once is too early");
        o.emptied();
        o.read(full(2));
        o.emptied();
        o.read(full(2));
        assert!(moved(&o), "it moved again");
        o.emptied();
        o.read(full(2));
        assert!(!o.may_have_torn(|| Some(full(2))) && o.may_have_torn(|| Some(full(3))));
    }
}
