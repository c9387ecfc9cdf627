//! Datagram → rules → lane, and when to wake the workers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    counters::ThreadCounters,
    live_rules::{LiveRules, RuleGeneration},
    queue::Queue,
};
use crate::{
    datagram::Datagram,
    lane::{Classification, LaneProducer},
    packet::FrameDrop,
    rule::{Facts, RuleState, Verdict},
    rx::Sink,
};

/// When a sleeping worker is woken: as soon as one of the two limits is reached.
#[derive(Debug, Clone, Copy)]
pub struct Moderation {
    /// Datagrams pending in a lane.
    pub min: u32,
    /// Age of the oldest pending datagram.
    pub max_age: Duration,
}

/// How soon a receive thread inspects again a lane that holds datagrams while its worker is busy. The worker does not
/// inspect its lanes once more when it goes to sleep (that would shrink its batches), so the receive thread must notice it.
/// Too low: the thread wakes up for nothing while workers are busy. Too high: a datagram waits for so long when its worker
/// fell asleep just as it arrived.
const BUSY_WORKER_RECHECK: Duration = Duration::from_millis(1);

struct Lane {
    producer: LaneProducer,
    queue: Arc<Queue>,
    /// When the oldest datagram was published that no wake-up covers yet; none where nothing waits for a wake-up.
    waiting_since: Option<Instant>,
}

/// One receive thread's rules, lanes and counters.
pub struct Scatter {
    thread: usize,
    live: Arc<LiveRules>,
    generation: Arc<RuleGeneration>,
    state: RuleState,
    lanes: Vec<Lane>,
    counters: Arc<ThreadCounters>,
    moderation: Moderation,
    cpu: u16,
}

impl Scatter {
    /// The scatter of receive thread `thread`, with one lane per queue.
    ///
    /// # Safety
    /// At most one `Scatter` per thread index may exist at a time for the same queues.
    pub unsafe fn new(
        thread: usize,
        live: Arc<LiveRules>,
        queues: &[Arc<Queue>],
        counters: Arc<ThreadCounters>,
        moderation: Moderation,
    ) -> Self {
        let lanes = queues
            .iter()
            .map(|queue| Lane {
                // SAFETY: the caller promises one Scatter per thread index, hence one producer per lane.
                producer: unsafe { LaneProducer::new(&queue.memory, thread) },
                queue: Arc::clone(queue),
                waiting_since: None,
            })
            .collect();
        let generation = live.current();
        let state = generation.rules.state(thread);
        Scatter { thread, live, generation, state, lanes, counters, moderation, cpu: 0 }
    }

    /// Tells the rules which CPU this thread runs on.
    pub fn set_cpu(&mut self, cpu: u16) {
        self.cpu = cpu;
    }

    /// Changes to newer rules, if there are any. Call it between two receive passes. Actions with a state, such as
    /// `round_robin`, start afresh.
    pub fn refresh(&mut self) {
        if let Some(newer) = self.live.newer(self.generation.number) {
            self.state = newer.rules.state(self.thread);
            self.generation = newer;
        }
    }

    /// Makes what the last receive pass put into lanes visible to the workers.
    pub fn publish(&mut self, now: Instant) {
        for lane in &mut self.lanes {
            if lane.producer.publish() > 0 {
                lane.waiting_since.get_or_insert(now);
            }
        }
    }

    /// Wakes the workers that are due. Returns how soon to call again, or `None` when nothing waits for a wake-up.
    pub fn wake_due(&mut self, now: Instant) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        for lane in &mut self.lanes {
            let Some(since) = lane.waiting_since else { continue };
            let pending = lane.producer.pending();
            if pending == 0 {
                // The worker has released everything; the next publish starts the clock again.
                lane.waiting_since = None;
                continue;
            }
            let again = if !lane.queue.memory.is_armed() {
                BUSY_WORKER_RECHECK
            } else {
                let age = now.saturating_duration_since(since);
                if pending >= self.moderation.min || age >= self.moderation.max_age {
                    if lane.queue.wake() {
                        self.counters.wakeups.add(1);
                        lane.waiting_since = None;
                        continue;
                    }
                    BUSY_WORKER_RECHECK
                } else {
                    self.moderation.max_age - age
                }
            };
            next = Some(next.map_or(again, |n| n.min(again)));
        }
        next
    }

    /// Wakes every worker that sleeps, whatever is pending. A receive thread calls it when it ends.
    pub fn wake_all(&mut self) {
        for lane in &self.lanes {
            if lane.queue.wake() {
                self.counters.wakeups.add(1);
            }
        }
    }
}

impl Sink for Scatter {
    #[inline]
    fn datagram(&mut self, d: &Datagram<'_>) {
        let c = &*self.counters;
        c.received.add(1);
        c.received_bytes.add(d.payload.len() as u64);
        let facts = Facts::of(d, self.cpu);
        let by_rule = &self.generation.counters[self.thread];
        match self.generation.rules.evaluate(&facts, &mut self.state) {
            Verdict::Drop { rule } => {
                by_rule.dropped[usize::from(rule)].add(1);
                c.rule_dropped.add(1);
            }
            Verdict::Queue { queue, spill, key, rule } => {
                let generation = self.generation.number as u16;
                let classification = Classification { rule, key, cpu: self.cpu, generation };
                let chosen = usize::from(queue);
                if self.lanes[chosen].producer.push(d, classification) {
                    by_rule.deliver(rule.into(), chosen);
                    c.scattered[chosen].add(1);
                    return;
                }
                if let Some((first, last)) = spill {
                    // Tries every other queue of the range once, in cyclic order from the chosen one on.
                    let span = last - first + 1;
                    for step in 1..span {
                        let other = usize::from(first + (queue - first + step) % span);
                        if self.lanes[other].producer.push(d, classification) {
                            by_rule.deliver(rule.into(), other);
                            c.scattered[other].add(1);
                            return;
                        }
                    }
                }
                by_rule.full[usize::from(rule)].add(1);
                c.queue_full[chosen].add(1);
            }
        }
    }

    #[inline]
    fn frame_dropped(&mut self, reason: FrameDrop) {
        self.counters.frames[reason as usize].add(1);
    }
}
