//! A range of queues, and the reduction of a number to it.

use std::num::NonZeroU64;

/// The queues `first..first + count`, with what it takes to reduce a number to them without a division.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queues {
    pub(crate) first: u16,
    count: NonZeroU64,
    /// `⌈2^64 / count⌉` modulo 2^64, for the remainder by multiplication of Lemire, Kaser and Kurz, "Faster Remainder by
    /// Direct Computation" (2019), which is exact for 32-bit numbers.
    magic: u64,
}

impl Queues {
    /// The queues `first..=last`; an empty range counts as one queue.
    pub(crate) fn new(first: u16, last: u16) -> Self {
        let count = NonZeroU64::MIN.saturating_add(u64::from(last.saturating_sub(first)));
        Queues { first, count, magic: (u64::MAX / count).wrapping_add(1) }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.get()
    }

    pub(crate) fn last(&self) -> u16 {
        self.first.saturating_add((self.count.get() - 1) as u16)
    }

    /// `first + value % count`
    #[inline(always)]
    pub(crate) fn select(&self, value: u64) -> u16 {
        let rest = if value <= u64::from(u32::MAX) {
            let low = u128::from(self.magic.wrapping_mul(value));
            ((low * u128::from(self.count.get())) >> 64) as u16
        } else {
            (value % self.count) as u16
        };
        self.first.wrapping_add(rest)
    }
}
