//! Whether a zero-copy socket may have lost the end of a multi-buffer packet, by the counter `rx_ring_full`.
//!
//! In copy mode it cannot: `__xsk_rcv` makes sure of room for all descriptors of a packet before it writes the first. In
//! zero-copy each descriptor goes by itself, and one that finds the rx ring full always adds to `rx_ring_full`
//! (`__xsk_rcv_zc`). So every packet is whole as long as the counter does not move.

use super::socket::XskStatistics;

/// Remembers what `rx_ring_full` was when every packet that it counts had certainly left the rx ring.
///
/// The kernel is ahead of the receive thread: a packet that it has truncated and counted may still wait in the ring. The
/// counter is believed when it is the same in three readings and the ring was empty between each two: the first time the
/// ring is empty, what was counted before is consumed; until the second time, the driver has published whatever it had
/// counted and not published yet.
#[derive(Debug, Default)]
pub(super) struct RxRingFullTracker {
    /// The value whose packets are gone.
    settled: u64,
    last: u64,
    /// Readings in a row that equalled the one before, the ring being empty in between.
    equal_readings: u8,
    /// The ring was empty since the last reading.
    ring_was_empty: bool,
}

impl RxRingFullTracker {
    /// Call it when the ring is found empty.
    #[inline]
    pub(super) fn record_empty_ring(&mut self) {
        self.ring_was_empty = true;
    }

    /// Call it with each of the readings that are made a few times a second.
    pub(super) fn record_reading(&mut self, statistics: XskStatistics) {
        let equal = self.ring_was_empty && statistics.rx_ring_full == self.last;
        self.equal_readings = if equal { self.equal_readings.saturating_add(1) } else { 0 };
        if self.equal_readings >= 2 {
            self.settled = statistics.rx_ring_full;
        }
        self.last = statistics.rx_ring_full;
        self.ring_was_empty = false;
    }

    /// True when the end of a packet that was just received may be lost. `read_now` is a system call, made only when the last
    /// reading gives no reason for doubt; when it fails, that is one.
    pub(super) fn may_lack_end(&self, read_now: impl FnOnce() -> Option<XskStatistics>) -> bool {
        self.last != self.settled || read_now().is_none_or(|now| now.rx_ring_full != self.settled)
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
        let mut o = RxRingFullTracker::default();
        assert!(!o.may_lack_end(|| Some(full(0))));
        assert!(o.may_lack_end(|| Some(full(1))) && o.may_lack_end(|| None));
        o.record_empty_ring();
        o.record_reading(full(1));
        let moved = |o: &RxRingFullTracker| o.may_lack_end(|| panic!("known without asking"));
        assert!(moved(&o));
        // Twice the same, but the ring was never empty in between.
        o.record_reading(full(1));
        o.record_reading(full(1));
        assert!(moved(&o));
        o.record_empty_ring();
        o.record_reading(full(1));
        assert!(moved(&o), "once is too early");
        o.record_empty_ring();
        o.record_reading(full(2));
        o.record_empty_ring();
        o.record_reading(full(2));
        assert!(moved(&o), "it moved again");
        o.record_empty_ring();
        o.record_reading(full(2));
        assert!(!o.may_lack_end(|| Some(full(2))) && o.may_lack_end(|| Some(full(3))));
    }
}
