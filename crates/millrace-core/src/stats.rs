//! Counters of the data plane. Each is written by one thread with plain stores and read by anyone.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

use serde::Serialize;

use crate::{packet::FrameDrop, rx::KernelCounters};

/// A counter with one writer: no locked instruction, one line of the writer's own.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning thread may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Reads, from any thread.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn counters(n: usize) -> Box<[Counter]> {
    (0..n).map(|_| Counter::default()).collect()
}

/// One receive thread's counters. `received = Σ scattered + rule_dropped + Σ queue_full`, exactly, whenever the thread
/// is between two datagrams.
#[derive(Debug)]
#[repr(align(128))]
pub struct ThreadCounters {
    /// Datagrams for us.
    pub received: Counter,
    /// Their payload bytes.
    pub received_bytes: Counter,
    /// Datagrams put into a lane, by queue.
    pub scattered: Box<[Counter]>,
    /// Datagrams lost because their queue's lane was full, by queue.
    pub queue_full: Box<[Counter]>,
    /// Datagrams that rules dropped; by rule they are in [`crate::live_rules::RuleCounters`]. Early drops of the XDP
    /// program are in neither: no thread saw them.
    pub rule_dropped: Counter,
    /// Frames that were no datagram for us, by reason.
    pub frames: [Counter; FrameDrop::COUNT],
    /// Wake-ups sent to workers.
    pub wakeups: Counter,
    /// Times the thread slept.
    pub sleeps: Counter,
    /// The thread runs on the CPU it was given.
    pub pinned: AtomicBool,
    /// Its SCHED_FIFO priority, as the kernel has it; 0: normal.
    pub priority: AtomicU8,
    /// The kernel's own counters, refreshed about four times a second and at the end.
    pub kernel: Mutex<KernelCounters>,
    /// Why the thread ended early.
    pub error: Mutex<Option<String>>,
    /// Why the thread has nothing to receive from, while it goes on.
    pub away: Mutex<Option<String>>,
}

impl ThreadCounters {
    /// All zero.
    pub fn new(queues: usize) -> Self {
        ThreadCounters {
            received: Counter::default(),
            received_bytes: Counter::default(),
            scattered: counters(queues),
            queue_full: counters(queues),
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
}

/// What a rule drops and what a full lane drops.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dropped {
    /// By a `drop` or `sample` action.
    pub rule: u64,
    /// Because the lane was full.
    pub queue_full: u64,
}

/// One thread's numbers; field meanings as in [`ThreadCounters`].
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ThreadStats {
    pub index: usize,
    /// `receive` or `guard`.
    pub kind: &'static str,
    pub cpu: Option<usize>,
    /// SCHED_FIFO priority, if any.
    pub priority: Option<u8>,
    pub rx_queue: u16,
    pub received: u64,
    pub received_bytes: u64,
    pub scattered: u64,
    /// Of these, datagrams of queues that this receive thread owns (queue number modulo receive threads): all of them
    /// when the rules steer in the kernel as well.
    pub steered_local: u64,
    pub dropped: Dropped,
    pub frames: serde_json::Map<String, serde_json::Value>,
    pub kernel_lost: serde_json::Map<String, serde_json::Value>,
    pub kernel_notes: serde_json::Map<String, serde_json::Value>,
    pub wakeups: u64,
    pub sleeps: u64,
    pub error: Option<String>,
    pub away: Option<String>,
}

impl ThreadStats {
    /// Reads the counters of thread `index`, with `members` receive threads in all.
    pub fn read(
        c: &ThreadCounters,
        (index, members): (usize, usize),
        kind: &'static str,
        cpu: Option<usize>,
        rx_queue: u16,
    ) -> Self {
        let sum = |counters: &[Counter]| counters.iter().map(Counter::get).sum::<u64>();
        let map = |pairs: &[(&'static str, u64)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect::<serde_json::Map<_, _>>()
        };
        let kernel = c.kernel.lock().unwrap_or_else(|p| p.into_inner()).clone();
        ThreadStats {
            index,
            kind,
            cpu: cpu.filter(|_| c.pinned.load(Ordering::Relaxed)),
            priority: Some(c.priority.load(Ordering::Relaxed)).filter(|p| *p > 0),
            rx_queue,
            received: c.received.get(),
            received_bytes: c.received_bytes.get(),
            scattered: sum(&c.scattered),
            steered_local: if index < members {
                c.scattered.iter().skip(index).step_by(members).map(Counter::get).sum()
            } else {
                0
            },
            dropped: Dropped { rule: c.rule_dropped.get(), queue_full: sum(&c.queue_full) },
            frames: FrameDrop::ALL
                .iter()
                .map(|r| (r.as_str().to_owned(), c.frames[*r as usize].get().into()))
                .collect(),
            kernel_lost: map(&kernel.lost),
            kernel_notes: map(&kernel.notes),
            wakeups: c.wakeups.get(),
            sleeps: c.sleeps.get(),
            error: c.error.lock().unwrap_or_else(|p| p.into_inner()).clone(),
            away: c.away.lock().unwrap_or_else(|p| p.into_inner()).clone(),
        }
    }
}

/// One queue's numbers.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct QueueStats {
    pub index: usize,
    pub scattered: u64,
    pub queue_full: u64,
    /// Datagrams in the lanes now.
    pub depth: u64,
    /// Datagrams the lanes hold.
    pub capacity: u64,
}

/// One rule's numbers. `matched = Σ queues + queue_full + dropped` where datagrams are counted by queue.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct RuleStats {
    pub name: String,
    pub text: String,
    pub matched: u64,
    /// By a `drop` or `sample` action, early drops in the XDP program included.
    pub dropped: u64,
    /// Because the lane was full.
    pub queue_full: u64,
    /// `(queue, datagrams put into its lane)`, without queues that got none. Empty for sets of very many rules and
    /// queues, see [`crate::live_rules`].
    pub queues: Vec<(usize, u64)>,
}
