//! The numbers of the datagrams, and which thread sends which.
//!
//! All threads take from one counter, a block at a time. A block belongs to the thread that took it, which sends all of
//! it; so shares are disjoint, and whatever ends a run — count, time, a signal — the numbers sent are one gapless
//! range. (Fixed shares, thread t taking every T-th block, would leave holes whenever one thread is slower.) Inside one
//! flow the numbers rise, because a flow belongs to one thread and blocks are taken in rising order.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

/// The shared counter, from 0; the caller adds the number of the first datagram.
#[derive(Debug, Default)]
pub(crate) struct SequenceNumbers {
    next: AtomicU64,
}

impl SequenceNumbers {
    /// The next number that no thread has taken.
    pub(crate) fn next(&self) -> u64 {
        // Relaxed: the number itself is all that is shared.
        self.next.load(Ordering::Relaxed)
    }

    /// Takes up to `most` numbers from `from` on, none at or above `end`. `None` when another thread was faster, or nothing is
    /// left; the caller reads [`SequenceNumbers::next`] again.
    pub(crate) fn allocate(&self, from: u64, most: u64, end: u64) -> Option<Range<u64>> {
        let to = from.saturating_add(most).min(end);
        (to > from && self.next.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok())
            .then_some(from..to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_disjoint_and_complete() {
        let numbers = SequenceNumbers::default();
        let end = 100_003;
        let drawn = std::thread::scope(|s| {
            let threads: Vec<_> = (1..=4u64)
                .map(|t| {
                    let numbers = &numbers;
                    s.spawn(move || {
                        let mut mine = Vec::new();
                        while numbers.next() < end {
                            mine.extend(numbers.allocate(numbers.next(), 7 * t, end));
                        }
                        assert!(mine.windows(2).all(|w| w[0].end <= w[1].start), "blocks of a thread rise");
                        mine
                    })
                })
                .collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect::<Vec<_>>()
        });
        let mut all: Vec<u64> = drawn.into_iter().flatten().collect();
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..end));
    }

    #[test]
    fn nothing_beyond_the_end() {
        let numbers = SequenceNumbers::default();
        assert_eq!(numbers.allocate(0, 10, 4), Some(0..4));
        assert_eq!(numbers.allocate(4, 10, 4), None);
        assert_eq!(numbers.allocate(0, 10, 40), None, "stale start");
        assert_eq!(numbers.allocate(4, u64::MAX, u64::MAX), Some(4..u64::MAX));
    }
}
