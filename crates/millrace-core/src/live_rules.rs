//! The rules in force, and how receive threads change to new ones: a thread looks between two receive passes, so every
//! datagram is decided by one rule set, and nobody waits for anybody.
//!
//! Each generation has counters of its own, because another set has other rules. A generation that no thread uses any
//! more is added up by rule name, so that a rule's count goes on over a reload as long as its name does.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    rule::RuleSet,
    rx::early::EarlyRules,
    stats::{Counter, RuleStats},
};

/// Above so many counters for each thread, datagrams are counted by rule, and not by rule and queue: each is a time series to
/// whoever watches.
pub const MAX_CELLS: usize = 4096;
/// Names of rules no longer in force whose counts are kept.
const MAX_PAST: usize = 1 << 16;
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
#[derive(Debug, Clone, PartialEq, Eq)]
struct Totals {
    /// By queue; one for all of them where some generation did not count by queue.
    delivered: Vec<u64>,
    full: u64,
    /// By a receive thread.
    dropped: u64,
    /// By the XDP program.
    early: u64,
}

impl Totals {
    fn none(queues: usize) -> Self {
        Totals { delivered: vec![0; queues], full: 0, dropped: 0, early: 0 }
    }

    fn add(&mut self, other: &Totals) {
        if self.delivered.len() == other.delivered.len() {
            self.delivered.iter_mut().zip(&other.delivered).for_each(|(sum, n)| *sum += n);
        } else {
            self.delivered = vec![self.delivered.iter().chain(&other.delivered).sum()];
        }
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
    /// What each rule did.
    fn totals(&self) -> Vec<Totals> {
        let early = self.early.as_ref().map(|early| early.dropped()).unwrap_or_default();
        (0..self.rules.len())
            .map(|rule| self.totals_of(rule, early.get(rule).copied().unwrap_or(0)))
            .collect()
    }

    fn totals_of(&self, rule: usize, early: u64) -> Totals {
        let mut totals = Totals::none(self.counters.first().map_or(1, |c| c.span));
        for c in &self.counters {
            let delivered = c.delivered.chunks(c.span).nth(rule).unwrap_or_default();
            let one = |counters: &[Counter]| counters.get(rule).map_or(0, Counter::get);
            totals.delivered.iter_mut().zip(delivered).for_each(|(sum, n)| *sum += n.get());
            totals.full += one(&c.full);
            totals.dropped += one(&c.dropped);
        }
        totals.early = early;
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
    /// Locked for a moment only, because receive threads take it from here.
    current: Mutex<Arc<Generation>>,
    /// Locked before `current` by whoever needs both.
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Older ones that a thread or an XDP program may still use, and when they were replaced.
    leaving: Vec<(Instant, Arc<Generation>)>,
    /// By rule name, of those that nobody uses any more.
    past: HashMap<String, Totals>,
    /// Early drops of those, by whatever rule.
    past_early: u64,
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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LiveRules {
    /// The first generation, for a number of threads and queues (both at least 1). `early` are the rules that the XDP
    /// program runs.
    pub fn new(
        rules: Arc<RuleSet>,
        early: Option<Arc<EarlyRules>>,
        threads: usize,
        queues: usize,
    ) -> Arc<Self> {
        let current = Self::generation(1, rules, early, threads, queues);
        Arc::new(LiveRules {
            threads,
            queues,
            newest: AtomicU64::new(1),
            current: Mutex::new(current),
            ledger: Mutex::default(),
        })
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

    /// The generation in force.
    pub fn current(&self) -> Arc<Generation> {
        Arc::clone(&locked(&self.current))
    }

    /// Puts new rules in force. Each thread takes them before its next receive pass. Returns the generation's number.
    pub fn replace(&self, rules: Arc<RuleSet>, early: Option<Arc<EarlyRules>>) -> u64 {
        let mut ledger = locked(&self.ledger);
        let number = self.current().number + 1;
        let new = Self::generation(number, rules, early, self.threads, self.queues);
        let old = std::mem::replace(&mut *locked(&self.current), Arc::clone(&new));
        ledger.leaving.push((Instant::now(), old));
        ledger.settle(&new);
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
        let mut ledger = locked(&self.ledger);
        let current = self.current();
        ledger.settle(&current);
        let described = current.rules.describe();
        let mut sums = current.totals();
        let mut early_dropped = ledger.past_early + sums.iter().map(|did| did.early).sum::<u64>();
        let by_name: HashMap<&str, usize> = if ledger.leaving.is_empty() {
            HashMap::new()
        } else {
            described.iter().map(|(name, _)| name.as_str()).zip(0..).collect()
        };
        for (_, generation) in &ledger.leaving {
            for (name, did) in generation.rules.names().iter().zip(generation.totals()) {
                early_dropped += did.early;
                if let Some(sum) = by_name.get(name.as_str()).and_then(|&now| sums.get_mut(now)) {
                    sum.add(&did);
                }
            }
        }
        let rules = described.into_iter().zip(sums).map(|((name, text), mut did)| {
            if let Some(before) = ledger.past.get(&name) {
                did.add(before);
            }
            let delivered: u64 = did.delivered.iter().sum();
            let by_queue = did.delivered.iter().copied().enumerate().filter(|(_, n)| *n > 0);
            RuleStats {
                matched: delivered + did.full + did.dropped + did.early,
                dropped: did.dropped + did.early,
                queue_full: did.full,
                queues: if did.delivered.len() == self.queues { by_queue.collect() } else { Vec::new() },
                name,
                text,
            }
        });
        RulesInForce { generation: current.number, rules: rules.collect(), early_dropped }
    }
}

impl Ledger {
    /// Adds up what no thread and no program uses any more.
    fn settle(&mut self, current: &Generation) {
        let Ledger { leaving, past, past_early } = self;
        leaving.retain_mut(|(replaced, generation)| {
            // Ours is the only handle: the threads' last writes came before they gave theirs up.
            let left = Arc::get_mut(generation).is_none()
                || generation.early.as_ref().is_some_and(|early| {
                    // Another handle is that of a program.
                    Arc::strong_count(early) > 1 || replaced.elapsed() < PROGRAM_LEAVES
                });
            if !left {
                for (name, did) in generation.rules.names().into_iter().zip(generation.totals()) {
                    *past_early += did.early;
                    past.entry(name).and_modify(|sum| sum.add(&did)).or_insert(did);
                }
            }
            left
        });
        // Names that change with each reload must not pile up.
        if past.len() > MAX_PAST {
            let names: HashSet<String> = current.rules.names().into_iter().collect();
            past.retain(|name, _| names.contains(name));
        }
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
        assert!(locked(&live.ledger).leaving.is_empty());
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
    fn counts_of_a_set_too_large_to_count_by_queue_are_no_queues() {
        let live = LiveRules::new(rules("b: queue(0)"), None, 1, 2);
        live.current().counters[0].deliver(0, 1);
        let many: String = (0..MAX_CELLS).map(|i| format!("u16[0] == {i} => queue(0)\n")).collect();
        live.replace(rules(&format!("{many}b: queue(1)")), None);
        live.current().counters[0].deliver(MAX_CELLS, 1);
        let b = live.stats().rules.pop().unwrap();
        assert_eq!((b.name.as_str(), b.matched, b.queues.len()), ("b", 2, 0));
    }

    #[test]
    fn too_many_cells_are_counted_by_rule_alone() {
        let few = RuleCounters::new(3, 4);
        few.deliver(1, 3);
        assert_eq!((few.delivered.len(), few.delivered[7].get()), (12, 1));
        let many = RuleCounters::new(60_000, 1000);
        many.deliver(59_999, 999);
        assert_eq!((many.delivered.len(), many.delivered[59_999].get(), MAX_CELLS), (60_000, 1, 4096));
    }
}
