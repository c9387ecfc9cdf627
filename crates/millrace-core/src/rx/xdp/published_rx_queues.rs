//! The number of rx queues, published by the helper thread and read by receive threads without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// The generation of the attachment in force in the upper half, its number of rx queues in the lower half, so that both are
/// read in one load. 0 while the interface is away: generations begin with 1.
pub(super) struct PublishedRxQueues(AtomicU64);

impl PublishedRxQueues {
    pub(super) fn new(generation: u32, rx_queues: u32) -> Self {
        PublishedRxQueues(AtomicU64::new(pack(generation, rx_queues)))
    }

    /// Callers hold the lock of [`super::interface_state`], so that what is stored last is what its other fields say.
    pub(super) fn publish(&self, generation: u32, rx_queues: u32) {
        self.0.store(pack(generation, rx_queues), Ordering::Release);
    }

    /// Publishes that the interface is away. Callers hold the lock, as for [`PublishedRxQueues::publish`].
    pub(super) fn publish_away(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// Number of rx queues; 0 while the interface is away.
    pub(super) fn count(&self) -> u32 {
        self.0.load(Ordering::Acquire) as u32
    }

    /// Number of rx queues of the attachment `generation`; None when it is not in force any more.
    pub(super) fn count_of(&self, generation: u32) -> Option<u32> {
        let packed = self.0.load(Ordering::Acquire);
        (packed >> 32 == u64::from(generation)).then_some(packed as u32)
    }
}

const fn pack(generation: u32, rx_queues: u32) -> u64 {
    (generation as u64) << 32 | rx_queues as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_generation_in_force_has_rx_queues() {
        let published = PublishedRxQueues::new(1, 4);
        assert_eq!((published.count(), published.count_of(1), published.count_of(2)), (4, Some(4), None));
        published.publish_away();
        assert_eq!((published.count(), published.count_of(1)), (0, None));
        published.publish(2, u32::MAX);
        assert_eq!(
            (published.count(), published.count_of(1), published.count_of(2)),
            (u32::MAX, None, Some(u32::MAX))
        );
    }
}
