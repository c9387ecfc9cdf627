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
};

use crate::{
    rule::RuleSet,
    stats::{Counter, RuleStats},
};

/// What one thread's datagrams did under one generation, by rule. Written by that thread alone.
#[derive(Debug)]
#[repr(align(128))]
pub struct RuleCounters {
    /// Datagrams a rule matched.
    pub matched: Box<[Counter]>,
    /// Datagrams a rule dropped.
    pub dropped: Box<[Counter]>,
}

impl RuleCounters {
    fn new(rules: usize) -> Self {
        let zero = || (0..rules).map(|_| Counter::default()).collect();
        RuleCounters { matched: zero(), dropped: zero() }
    }
}

/// One rule set and its counters, by thread.
#[derive(Debug)]
pub struct Generation {
    /// 1 for the first.
    pub number: u64,
    /// The rules.
    pub rules: RuleSet,
    /// By receive thread.
    pub counters: Box<[RuleCounters]>,
}

impl Generation {
    fn new(number: u64, rules: RuleSet, threads: usize) -> Arc<Self> {
        let counters = (0..threads).map(|_| RuleCounters::new(rules.len())).collect();
        Arc::new(Generation { number, rules, counters })
    }

    fn totals(&self, index: usize) -> (u64, u64) {
        let sum = |of: fn(&RuleCounters) -> &[Counter]| {
            self.counters.iter().filter_map(|c| of(c).get(index)).map(Counter::get).sum()
        };
        (sum(|c| &c.matched), sum(|c| &c.dropped))
    }
}

/// The rules in force.
#[derive(Debug)]
pub struct LiveRules {
    threads: usize,
    /// The newest generation's number: what threads look at.
    newest: AtomicU64,
    ledger: Mutex<Ledger>,
}

#[derive(Debug)]
struct Ledger {
    current: Arc<Generation>,
    /// Older ones that a thread may still use.
    leaving: Vec<Arc<Generation>>,
    /// Matched and dropped, by rule name, of those that nobody uses any more.
    past: HashMap<String, (u64, u64)>,
}

impl LiveRules {
    /// The first generation, for a number of threads.
    pub fn new(rules: RuleSet, threads: usize) -> Arc<Self> {
        let current = Generation::new(1, rules, threads);
        let ledger = Ledger { current, leaving: Vec::new(), past: HashMap::new() };
        Arc::new(LiveRules { threads, newest: AtomicU64::new(1), ledger: Mutex::new(ledger) })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generation in force.
    pub fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.ledger().current)
    }

    /// Puts new rules in force. Each thread takes them before its next receive pass. Returns the generation's number.
    pub fn replace(&self, rules: RuleSet) -> u64 {
        let mut ledger = self.ledger();
        let number = ledger.current.number + 1;
        let old = std::mem::replace(&mut ledger.current, Generation::new(number, rules, self.threads));
        ledger.leaving.push(old);
        ledger.settle();
        self.newest.store(number, Ordering::Release);
        number
    }

    /// The newer generation, if there is one: one load when there is none.
    #[inline]
    pub fn newer(&self, than: u64) -> Option<Arc<Generation>> {
        if self.newest.load(Ordering::Acquire) == than { None } else { Some(self.current()) }
    }

    /// The rules in force, with what every rule of the same name has done since the start.
    pub fn stats(&self) -> (u64, Vec<RuleStats>) {
        let mut ledger = self.ledger();
        ledger.settle();
        let mut before = ledger.past.clone();
        for generation in &ledger.leaving {
            add(&mut before, generation);
        }
        let rules = ledger.current.rules.describe().into_iter().enumerate();
        let rules = rules.map(|(index, (name, text))| {
            let (matched, dropped) = ledger.current.totals(index);
            let (matched_before, dropped_before) = before.get(&name).copied().unwrap_or_default();
            RuleStats { name, text, matched: matched + matched_before, dropped: dropped + dropped_before }
        });
        (ledger.current.number, rules.collect())
    }
}

impl Ledger {
    /// Adds up what no thread uses any more.
    fn settle(&mut self) {
        let past = &mut self.past;
        self.leaving.retain_mut(|generation| {
            // Ours is the only handle: the threads' last writes came before they gave theirs up.
            let left = Arc::get_mut(generation).is_none();
            if !left {
                add(past, generation);
            }
            left
        });
    }
}

fn add(past: &mut HashMap<String, (u64, u64)>, generation: &Generation) {
    for (index, name) in generation.rules.names().into_iter().enumerate() {
        let (matched, dropped) = generation.totals(index);
        let sum = past.entry(name).or_default();
        *sum = (sum.0 + matched, sum.1 + dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> RuleSet {
        RuleSet::compile(text, 2).unwrap()
    }

    #[test]
    fn counts_go_on_by_name_and_old_generations_leave() {
        let live = LiveRules::new(rules("a: len == 1 => drop\nb: queue(0)"), 2);
        let (first, second) = (live.current(), live.current());
        first.counters[0].matched[0].add(5);
        second.counters[1].dropped[0].add(3);
        assert!(live.newer(1).is_none());
        assert_eq!(live.replace(rules("b: len == 2 => queue(1)\nc: len == 3 => drop\na: queue(0)")), 2);
        // A thread that has not changed yet still counts, and is counted.
        first.counters[0].matched[1].add(7);
        let by_name = |live: &LiveRules| -> Vec<(String, u64, u64)> {
            live.stats().1.into_iter().map(|r| (r.name, r.matched, r.dropped)).collect()
        };
        let want = [("b".into(), 7, 0), ("c".into(), 0, 0), ("a".into(), 5, 3)];
        assert_eq!(by_name(&live), want);
        let third = live.newer(1).unwrap();
        drop((first, second));
        assert_eq!(by_name(&live), want);
        assert!(live.ledger().leaving.is_empty());
        third.counters[0].matched[2].add(1);
        assert_eq!(by_name(&live)[2], ("a".into(), 6, 3));
        // A name that was away comes back with what it had.
        live.replace(rules("c: queue(0)"));
        live.replace(rules("b: queue(0)"));
        drop(third);
        assert_eq!((live.stats().0, by_name(&live)), (4, vec![("b".into(), 7, 0)]));
    }
}
