//! The data plane's half of the books: what was received, where it went, and what was lost, as `/metrics` and the closing
//! report show it. The workers' half is in `src/service/books.ts`, which also says what equations hold.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use serde::Serialize;

use crate::{
    net::{Interface, Statistics},
    packet::FrameDrop,
    rx::{BackendInfo, ladder::RefusedBackend},
    scatter::{Counter, Dropped, LiveRules, Queue, RuleStats, ThreadCounters},
};

/// The data plane's half of the books. All counts are since the engine opened.
///
/// Counters are read one after the other while threads count, so sums agree exactly only while no datagram arrives.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct EngineStats {
    /// The open backend, with what is granted now.
    pub backend: BackendInfo,
    /// Backends that `auto` could not open.
    pub refused: Vec<RefusedBackend>,
    /// Receive threads in index order; the guard's, where there is one, is the last.
    pub threads: Vec<ThreadStats>,
    /// Queues in index order.
    pub queues: Vec<QueueStats>,
    /// The rules in force, in their order.
    pub rules: Vec<RuleStats>,
    /// 1 for the rules of the start, one more with each reload.
    pub rules_generation: u64,
    /// Reloads refused: the rules did not compile, or the kernel would not replace the XDP program.
    pub rules_refused: u64,
    /// Datagrams that rules dropped in the XDP program, before any thread received them. The books count them as received
    /// and dropped; no thread counts them.
    pub early_dropped: u64,
    /// Drops that the interface counted; none when no interface is known.
    pub interface: Option<InterfaceStats>,
}

/// One receive thread's counts, in datagrams where nothing else is said. `received = scattered + dropped.rule +
/// dropped.queueFull`.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct ThreadStats {
    /// Index of the thread.
    pub index: usize,
    /// Whether it reads the backend's receivers or the guard.
    #[cfg_attr(test, ts(type = "'receive' | 'guard'"))]
    pub kind: &'static str,
    /// CPU it is pinned to, if it is.
    pub cpu: Option<usize>,
    /// Its SCHED_FIFO priority, if it has one.
    pub priority: Option<u8>,
    /// The rx queue, ring member or socket index it reads, the first one of several; 0 for the guard.
    pub rx_queue: u16,
    /// Datagrams for this process.
    pub received: u64,
    /// Their payload bytes.
    pub received_bytes: u64,
    /// Datagrams put into a lane.
    pub scattered: u64,
    /// The part of `scattered` that went to queues this receive thread owns (queue number modulo receive threads): all of
    /// it when the kernel steers by the rules as well. 0 for the guard.
    pub steered_local: u64,
    /// Datagrams received and given to no queue, by reason.
    pub dropped: Dropped,
    /// Frames that are not a datagram for this process, by reason (`FrameDrop`). They are not in `received`.
    #[cfg_attr(test, ts(type = "Record<string, number>"))]
    pub frames: BTreeMap<&'static str, u64>,
    /// Datagrams or frames that the kernel lost before the thread could read them, by reason; the sum is the loss. They are
    /// not in `received`.
    #[cfg_attr(test, ts(type = "Record<string, number>"))]
    pub kernel_lost: BTreeMap<&'static str, u64>,
    /// Kernel counters that may overlap; for diagnosis only.
    #[cfg_attr(test, ts(type = "Record<string, number>"))]
    pub kernel_notes: BTreeMap<&'static str, u64>,
    /// Wake-ups this thread sent to workers.
    pub wakeups: u64,
    /// Times this thread slept or waited for frames. A wait may end at once.
    pub sleeps: u64,
    /// Why the thread ended early.
    pub error: Option<String>,
    /// Why there is nothing to receive from while the thread goes on: its interface was removed.
    pub away: Option<String>,
}

/// One queue's counts, in datagrams.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct QueueStats {
    /// Index of the queue.
    pub index: usize,
    /// Datagrams put into its lanes.
    pub scattered: u64,
    /// Datagrams for which the rules chose this queue and that were lost because its lane was full.
    pub queue_full: u64,
    /// Datagrams in its lanes now.
    pub depth: u64,
    /// Datagrams its lanes can hold.
    pub capacity: u64,
}

/// Drops that the interface counted since the engine opened (`rtnl_link_stats64`). They may include frames that were not
/// for this process, and with XDP on some drivers (veth) frames that the XSK counters have too, so they are for diagnosis
/// and not part of the books.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct InterfaceStats {
    /// `rx_dropped`.
    pub rx_dropped: u64,
    /// `rx_missed_errors`.
    pub rx_missed: u64,
    /// `rx_fifo_errors`.
    pub rx_fifo: u64,
    /// `rx_over_errors`.
    pub rx_over: u64,
}

/// The constant facts about a receive thread, and its counters.
pub(super) struct ThreadRecord {
    pub(super) kind: &'static str,
    /// CPU it is to run on.
    pub(super) cpu: Option<usize>,
    /// SCHED_FIFO priority it is to have.
    pub(super) priority: Option<u8>,
    pub(super) rx_queue: u16,
    pub(super) counters: Arc<ThreadCounters>,
}

/// The counters of an engine, and what their reading begins with.
pub(super) struct Books {
    pub(super) threads: Vec<ThreadRecord>,
    pub(super) rules: Arc<LiveRules>,
    pub(super) interface: Option<InterfaceRecord>,
}

impl Books {
    /// Reads the counters of the threads, queues, rules and the interface.
    pub(super) fn read(
        &self,
        backend: BackendInfo,
        refused: Vec<RefusedBackend>,
        queues: &[Option<Arc<Queue>>],
        rules_refused: u64,
    ) -> EngineStats {
        let rules = self.rules.stats();
        let receivers = self.threads.iter().filter(|t| t.kind == "receive").count();
        EngineStats {
            backend,
            refused,
            threads: self.threads.iter().enumerate().map(|(i, t)| t.read(i, receivers)).collect(),
            queues: queues.iter().enumerate().map(|(i, q)| self.read_queue(i, q.as_deref())).collect(),
            rules: rules.rules,
            rules_generation: rules.generation,
            rules_refused,
            early_dropped: rules.early_dropped,
            interface: self.interface.as_ref().and_then(InterfaceRecord::read),
        }
    }

    fn read_queue(&self, index: usize, queue: Option<&Queue>) -> QueueStats {
        let over_threads = |count: fn(&ThreadCounters, usize) -> u64| {
            self.threads.iter().map(|t| count(&t.counters, index)).sum::<u64>()
        };
        QueueStats {
            index,
            scattered: over_threads(|c, index| c.scattered[index].get()),
            queue_full: over_threads(|c, index| c.queue_full[index].get()),
            depth: queue.map_or(0, |q| q.memory.depth()),
            capacity: queue.map_or(0, |q| q.memory.capacity()),
        }
    }
}

impl ThreadRecord {
    /// Reads the counters of the thread with this index; `receivers` threads read the backend's receivers.
    fn read(&self, index: usize, receivers: usize) -> ThreadStats {
        let c = &*self.counters;
        let kernel = copied(&c.kernel);
        ThreadStats {
            index,
            kind: self.kind,
            cpu: self.cpu.filter(|_| c.pinned.load(Ordering::Relaxed)),
            priority: Some(c.priority.load(Ordering::Relaxed)).filter(|p| *p > 0),
            rx_queue: self.rx_queue,
            received: c.received.get(),
            received_bytes: c.received_bytes.get(),
            scattered: c.scattered(),
            steered_local: if index < receivers {
                c.scattered.iter().skip(index).step_by(receivers).map(Counter::get).sum()
            } else {
                0
            },
            dropped: c.dropped(),
            frames: FrameDrop::ALL
                .iter()
                .map(|reason| (reason.as_str(), c.frames[*reason as usize].get()))
                .collect(),
            kernel_lost: kernel.lost.into_iter().collect(),
            kernel_notes: kernel.notes.into_iter().collect(),
            wakeups: c.wakeups.get(),
            sleeps: c.sleeps.get(),
            error: copied(&c.error),
            away: copied(&c.away),
        }
    }
}

fn copied<T: Clone>(mutex: &Mutex<T>) -> T {
    mutex.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// An interface, and its drop counters when the engine opened.
pub(super) struct InterfaceRecord {
    interface: Interface,
    /// Index of the interface that was read, and what it had counted.
    before: (u32, Statistics),
}

impl InterfaceRecord {
    /// Starts to count drops of the interface with this name; `None` when it cannot be read.
    pub(super) fn new(name: &str) -> Option<Self> {
        let interface = Interface::by_name(name).ok()?;
        let before = statistics(&interface)?;
        Some(InterfaceRecord { interface, before })
    }

    fn read(&self) -> Option<InterfaceStats> {
        let (index, now) = statistics(&self.interface)?;
        let (index_before, before) = self.before;
        // An interface that was made anew under the same name began at 0.
        let before = if index == index_before { before } else { Statistics::default() };
        // Saturating, because counters start again at 0 when a driver resets.
        Some(InterfaceStats {
            rx_dropped: now.rx_dropped.saturating_sub(before.rx_dropped),
            rx_missed: now.rx_missed_errors.saturating_sub(before.rx_missed_errors),
            rx_fifo: now.rx_fifo_errors.saturating_sub(before.rx_fifo_errors),
            rx_over: now.rx_over_errors.saturating_sub(before.rx_over_errors),
        })
    }
}

/// Statistics of the interface, or of another one that has taken its place and name, with the index of the one that was
/// read.
fn statistics(interface: &Interface) -> Option<(u32, Statistics)> {
    if let Ok(link) = interface.link() {
        return Some((interface.index, link.statistics));
    }
    let other = Interface::by_name(&interface.name).ok()?;
    other.link().ok().map(|link| (other.index, link.statistics))
}
