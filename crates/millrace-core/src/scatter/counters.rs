//! Counters of a receive thread. Each is written by one thread with plain stores and may be read by any.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

use serde::Serialize;

use crate::{packet::FrameDrop, rx::KernelCounters};

/// A counter with one writer, which needs no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the thread that owns the counter may call it: two writers would lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Reads the counter, from any thread.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Makes `n` counters, all zero.
pub(super) fn zeroed(n: usize) -> Box<[Counter]> {
    (0..n).map(|_| Counter::default()).collect()
}

/// One receive thread's counters. Between two datagrams of the thread, `received = Σ scattered + rule_dropped + Σ
/// queue_full` holds exactly.
///
/// The alignment keeps two threads' counters off one pair of cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct ThreadCounters {
    /// Datagrams that arrived for this process, as far as this thread read them.
    pub received: Counter,
    /// Payload bytes of the datagrams in `received`.
    pub received_bytes: Counter,
    /// Datagrams put into a lane, by queue.
    pub scattered: Box<[Counter]>,
    /// Datagrams lost because the lane was full, by the queue that the rules chose.
    pub queue_full: Box<[Counter]>,
    /// Datagrams that rules dropped; [`super::rule_counters::RuleCounters`] have them by rule. Early drops of the XDP program
    /// are in neither, because no thread sees them.
    pub rule_dropped: Counter,
    /// Frames that are not a datagram for this process, indexed by [`FrameDrop`]. They are not in `received`.
    pub frames: [Counter; FrameDrop::COUNT],
    /// Wake-ups this thread sent to workers.
    pub wakeups: Counter,
    /// Times this thread slept or waited for frames. A wait may end at once.
    pub sleeps: Counter,
    /// Whether the thread runs on the CPU it was given.
    pub pinned: AtomicBool,
    /// The thread's SCHED_FIFO priority, as read back from the kernel; 0 under another policy.
    pub priority: AtomicU8,
    /// The kernel's own counters, read about every 250 ms (up to 100 ms later by an idle thread) and at the end.
    pub kernel: Mutex<KernelCounters>,
    /// Why the thread ended early.
    pub error: Mutex<Option<String>>,
    /// Why the thread has nothing to receive from, while it goes on.
    pub away: Mutex<Option<String>>,
}

/// Datagrams that a thread received and gave to no queue, by reason. These are all reasons there are: a thread's
/// `received` is `scattered` plus the fields here.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct Dropped {
    /// Datagrams that a `drop` or `sample` action dropped.
    pub rule: u64,
    /// Datagrams lost because the lane was full.
    pub queue_full: u64,
}

impl ThreadCounters {
    /// Counters of a thread that serves so many queues, all zero.
    pub fn new(queues: usize) -> Self {
        ThreadCounters {
            received: Counter::default(),
            received_bytes: Counter::default(),
            scattered: zeroed(queues),
            queue_full: zeroed(queues),
            rule_dropped: Counter::default(),
            frames: Default::default(),
            wakeups: Counter::default(),
            sleeps: Counter::default(),
            pinned: AtomicBool::new(false),
            priority: AtomicU8::new(0),
            kernel: Mutex::default(),
            error: Mutex::default(),
            away: Mutex::default(),
        }
    }

    /// Datagrams put into lanes, over all queues.
    pub fn scattered(&self) -> u64 {
        self.scattered.iter().map(Counter::get).sum()
    }

    /// Datagrams received and given to no queue.
    pub fn dropped(&self) -> Dropped {
        Dropped { rule: self.rule_dropped.get(), queue_full: self.queue_full.iter().map(Counter::get).sum() }
    }
}
