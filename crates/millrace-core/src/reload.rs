//! The rules in force, and how receive threads change to new ones: a thread looks between two receive passes, so every
//! datagram is decided by one rule set, and nobody waits for anybody.
//!
//! Each generation has counters of its own, because another set has other rules. A generation that no thread uses any
//! more is added up by rule name, so that a rule's count goes on over a reload as long as its name does.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    rule::RuleSet,
    rx::xdp::EarlyRules,
    stats::{Counter, RuleStats},
};

/// Above so many counters for each thread, datagrams are counted by rule, and not by rule and queue (8 MiB).
const MAX_CELLS: usize = 1 << 20;
/// How long after its replacement an XDP program may still count: until the last NAPI poll that began with it is over.
const PROGRAM_LEAVES: Duration = Duration::from_secs(1);

/// What one thread's datagrams did under one generation. Written by that thread alone.
#[derive(Debug)]
#[repr(align(128))]
pub struct RuleCounters {
    /// Cells for each rule: one for each queue, or one in all.
    span: usize,
    /// Datagrams put into a lane, by rule and queue.
    delivered: Box<[Counter]>,
    /// Datagrams of a rule whose lane was full.
    pub full: Box<[Counter]>,
    /// Datagrams a rule dropped.
    pub dropped: Box<[Counter]>,
}

impl RuleCounters {
    fn new(rules: usize, queues: usize) -> Self {
        let zero = |n| (0..n).map(|_| Counter::default()).collect();
        let span = if rules.saturating_mul(queues) <= MAX_CELLS { queues } else { 1 };
        RuleCounters { span, delivered: zero(rules * span), full: zero(rules), dropped: zero(rules) }
    }

    /// Counts a datagram of this rule that lies in a lane of this queue.
    #[inline]
    pub fn deliver(&self, rule: usize, queue: usize) {
        self.delivered[rule * self.span + queue.min(self.span - 1)].add(1);
    }
}

/// What a rule did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Totals {
    /// By queue; one for all where they are too many.
    delivered: Vec<u64>,
    full: u64,
    /// By a receive thread.
    dropped: u64,
    /// By the XDP program.
    early: u64,
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        if self.delivered.len() < other.delivered.len() {
            self.delivered.resize(other.delivered.len(), 0);
        }
        // Where one side counts by queue and the other does not, its sum goes to the first.
        self.delivered.iter_mut().zip(&other.delivered).for_each(|(sum, n)| *sum += n);
        self.full += other.full;
        self.dropped += other.dropped;
        self.early += other.early;
    }
}

/// One rule set and its counters.
#[derive(Debug)]
pub struct Generation {
    /// 1 for the first.
    pub number: u64,
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// By receive thread.
    pub counters: Box<[RuleCounters]>,
    /// The rules that the XDP program runs, with its counters.
    early: Option<Arc<EarlyRules>>,
}

impl Generation {
    fn totals(&self, rule: usize) -> Totals {
        let mut totals = Totals::default();
        for c in &self.counters {
            let delivered = c.delivered.chunks(c.span).nth(rule).unwrap_or_default();
            let one = |counters: &[Counter]| counters.get(rule).map_or(0, Counter::get);
            totals.add(&Totals {
                delivered: delivered.iter().map(Counter::get).collect(),
                full: one(&c.full),
                dropped: one(&c.dropped),
                early: 0,
            });
        }
        if let (Some(early), Ok(index)) = (&self.early, u16::try_from(rule))
            && index < early.count()
        {
            totals.early = early.dropped(index);
        }
        totals
    }
}

/// The rules in force.
#[derive(Debug)]
pub struct LiveRules {
    threads: usize,
    queues: usize,
    /// The newest generation's number: what threads look at.
    newest: AtomicU64,
    ledger: Mutex<Ledger>,
}

#[derive(Debug)]
struct Ledger {
    current: Arc<Generation>,
    /// Older ones that a thread or an XDP program may still use, and when they were replaced.
    leaving: Vec<(Instant, Arc<Generation>)>,
    /// By rule name, of those that nobody uses any more.
    past: HashMap<String, Totals>,
}

/// What [`LiveRules::stats`] returns.
#[derive(Debug)]
pub struct RulesInForce {
    /// Generation of the rules in force.
    pub generation: u64,
    /// The rules in force, with what every rule of the same name has done since the start.
    pub rules: Vec<RuleStats>,
    /// Datagrams that the XDP program dropped since the start, by whatever rule.
    pub early_dropped: u64,
}

impl LiveRules {
    /// The first generation, for a number of threads and queues (both at least 1). `early` are the rules that the XDP program runs.
    pub fn new(
        rules: Arc<RuleSet>,
        early: Option<Arc<EarlyRules>>,
        threads: usize,
        queues: usize,
    ) -> Arc<Self> {
        let current = Self::generation(1, rules, early, threads, queues);
        let ledger = Ledger { current, leaving: Vec::new(), past: HashMap::new() };
        Arc::new(LiveRules { threads, queues, newest: AtomicU64::new(1), ledger: Mutex::new(ledger) })
    }

    fn generation(
        number: u64,
        rules: Arc<RuleSet>,
        early: Option<Arc<EarlyRules>>,
        threads: usize,
        queues: usize,
    ) -> Arc<Generation> {
        let counters = (0..threads).map(|_| RuleCounters::new(rules.len(), queues.max(1))).collect();
        Arc::new(Generation { number, rules, counters, early })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generation in force.
    pub fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.ledger().current)
    }

    /// Puts new rules in force. Each thread takes them before its next receive pass. Returns the generation's number.
    pub fn replace(&self, rules: Arc<RuleSet>, early: Option<Arc<EarlyRules>>) -> u64 {
        let mut ledger = self.ledger();
        let number = ledger.current.number + 1;
        let new = Self::generation(number, rules, early, self.threads, self.queues);
        let old = std::mem::replace(&mut ledger.current, new);
        ledger.leaving.push((Instant::now(), old));
        ledger.settle();
        self.newest.store(number, Ordering::Release);
        number
    }

    /// The newer generation, if there is one: one load when there is none.
    #[inline]
    pub fn newer(&self, than: u64) -> Option<Arc<Generation>> {
        if self.newest.load(Ordering::Acquire) == than { None } else { Some(self.current()) }
    }

    /// What the rules did so far.
    pub fn stats(&self) -> RulesInForce {
        let mut ledger = self.ledger();
        ledger.settle();
        let mut sums = ledger.past.clone();
        for (_, generation) in &ledger.leaving {
            add(&mut sums, generation);
        }
        add(&mut sums, &ledger.current);
        let rules = ledger.current.rules.describe().into_iter().map(|(name, text)| {
            let did = sums.get(&name).cloned().unwrap_or_default();
            let delivered: u64 = did.delivered.iter().sum();
            let by_queue = did
                .delivered
                .iter()
                .enumerate()
                .filter(|(_, n)| **n > 0 && self.queues == did.delivered.len());
            RuleStats {
                matched: delivered + did.full + did.dropped + did.early,
                dropped: did.dropped + did.early,
                queue_full: did.full,
                queues: by_queue.map(|(queue, n)| (queue, *n)).collect(),
                name,
                text,
            }
        });
        RulesInForce {
            generation: ledger.current.number,
            rules: rules.collect(),
            early_dropped: sums.values().map(|did| did.early).sum(),
        }
    }
}

impl Ledger {
    /// Adds up what no thread and no program uses any more.
    fn settle(&mut self) {
        let past = &mut self.past;
        self.leaving.retain_mut(|(replaced, generation)| {
            // Ours is the only handle: the threads' last writes came before they gave theirs up.
            let left = Arc::get_mut(generation).is_none()
                || generation.early.is_some() && replaced.elapsed() < PROGRAM_LEAVES;
            if !left {
                add(past, generation);
            }
            left
        });
    }
}

fn add(sums: &mut HashMap<String, Totals>, generation: &Generation) {
    for (rule, name) in generation.rules.names().into_iter().enumerate() {
        sums.entry(name).or_default().add(&generation.totals(rule));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Arc<RuleSet> {
        Arc::new(RuleSet::compile(text, 2).unwrap())
    }

    #[test]
    fn counts_go_on_by_name_and_old_generations_leave() {
        let live = LiveRules::new(rules("a: len == 1 => drop\nb: queue(0)"), None, 2, 2);
        let (first, second) = (live.current(), live.current());
        first.counters[0].full[0].add(2);
        second.counters[1].dropped[0].add(3);
        assert!(live.newer(1).is_none());
        assert_eq!(live.replace(rules("b: len == 2 => queue(1)\nc: len == 3 => drop\na: queue(0)"), None), 2);
        // A thread that has not changed yet still counts, and is counted.
        (0..7).for_each(|_| first.counters[0].deliver(1, 1));
        let by_name = |live: &LiveRules| -> Vec<(String, u64, u64)> {
            live.stats().rules.into_iter().map(|r| (r.name, r.matched, r.dropped)).collect()
        };
        let want = [("b".into(), 7, 0), ("c".into(), 0, 0), ("a".into(), 5, 3)];
        assert_eq!(by_name(&live), want);
        let third = live.newer(1).unwrap();
        drop((first, second));
        assert_eq!(by_name(&live), want);
        assert!(live.ledger().leaving.is_empty());
        third.counters[0].deliver(2, 0);
        assert_eq!(by_name(&live)[2], ("a".into(), 6, 3));
        // A name that was away comes back with what it had.
        live.replace(rules("c: queue(0)"), None);
        live.replace(rules("b: queue(0)"), None);
        drop(third);
        assert_eq!((live.stats().generation, by_name(&live)), (4, vec![("b".into(), 7, 0)]));
        assert_eq!(live.stats().rules[0].queues, [(1, 7)]);
    }

    #[test]
    fn too_many_cells_are_counted_by_rule_alone() {
        let few = RuleCounters::new(3, 4);
        few.deliver(1, 3);
        assert_eq!((few.delivered.len(), few.delivered[7].get()), (12, 1));
        let many = RuleCounters::new(60_000, 1000);
        many.deliver(59_999, 999);
        assert_eq!((many.delivered.len(), many.delivered[59_999].get()), (60_000, 1));
    }
}
