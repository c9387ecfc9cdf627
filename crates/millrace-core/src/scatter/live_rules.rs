//! The rules in force, and how receive threads change to new ones: each thread checks for a newer generation between two
//! receive passes. So one rule set decides every datagram, and neither the threads nor a reload wait for each other.
//!
//! Each generation has counters of its own, because another set has other rules. A replaced generation is *retired*: it
//! is kept for as long as a thread or an XDP program may still count in it, and then its totals are added up by rule name
//! and its memory is *reclaimed*. So a rule's counts go on over a reload as long as its name does.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

use super::rule_counters::{RuleCounters, RuleTotals};
use crate::{rule::RuleSet, rx::early::EarlyRules};

/// Most names of rules no longer in force whose totals are kept. Too low: a rule that comes back starts at 0 again, and
/// its Prometheus counter falls. Too high: reloads with ever new names take that much memory.
const MAX_RETIRED_NAMES: usize = 1 << 16;
/// How long after its replacement an XDP program may still count: until the last NAPI poll that began with it has ended,
/// which takes microseconds. Too low: drops counted in that poll are missing from the books. Too high: the counters of a
/// replaced generation stay in memory for longer.
const XDP_GRACE_PERIOD: Duration = Duration::from_secs(1);

/// One rule set and its counters.
#[derive(Debug)]
pub struct RuleGeneration {
    /// 1 for the rules of the start, one more with each reload.
    pub number: u64,
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// Counters by receive thread.
    pub counters: Box<[RuleCounters]>,
    /// The rules that the XDP program runs, with its counters.
    early: Option<Arc<EarlyRules>>,
}

impl RuleGeneration {
    /// Returns the totals of each rule, in the order of the rules.
    fn totals(&self) -> Vec<RuleTotals> {
        let early = self.early.as_ref().map(|early| early.dropped()).unwrap_or_default();
        (0..self.rules.len())
            .map(|rule| RuleTotals::of(&self.counters, rule, early.get(rule).copied().unwrap_or(0)))
            .collect()
    }
}

/// The rules in force, shared by all receive threads.
#[derive(Debug)]
pub struct LiveRules {
    threads: usize,
    queues: usize,
    /// Number of the newest generation, which threads compare with theirs.
    newest: AtomicU64,
    /// The newest generation. Receive threads take it from here, so it is locked only for a moment.
    current: Mutex<Arc<RuleGeneration>>,
    /// The generations that were replaced. A caller that needs both locks takes this one first.
    retired: Mutex<Retired>,
}

/// The rules that were in force before, as far as their counts are still needed.
#[derive(Debug, Default)]
struct Retired {
    /// Generations that a thread or an XDP program may still use, and when they were replaced.
    generations: Vec<(Instant, Arc<RuleGeneration>)>,
    /// Totals of the reclaimed generations by rule name.
    totals: HashMap<String, RuleTotals>,
    /// Early drops of the reclaimed generations, over all rules.
    early_dropped: u64,
}

/// The result of [`LiveRules::stats`].
#[derive(Debug)]
pub struct RulesInForce {
    /// Generation of the rules in force.
    pub generation: u64,
    /// The rules in force, with what every rule of the same name has done since the start.
    pub rules: Vec<RuleStats>,
    /// Datagrams that the XDP program dropped since the start, over all rules, in force or not.
    pub early_dropped: u64,
}

/// One rule's counts since the start; they go on over reloads by the rule's name. The unit is datagrams.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct RuleStats {
    /// Name given in the rule text; otherwise `rule1`, `rule2`, … or, of the implicit last rule, `default`.
    pub name: String,
    /// The rule in its canonical form.
    pub text: String,
    /// Datagrams that the rule decided: those put into lanes, `queue_full` and `dropped`.
    pub matched: u64,
    /// Dropped by a `drop` or `sample` action, early drops in the XDP program included.
    pub dropped: u64,
    /// Lost because the lane was full.
    pub queue_full: u64,
    /// `(queue, datagrams put into its lane)`, without queues that got none. Empty where rules × queues exceed 4,096
    /// (`MAX_CELLS`), or did in an earlier generation that had a rule of this name.
    pub queues: Vec<(usize, u64)>,
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
            retired: Mutex::default(),
        })
    }

    fn generation(
        number: u64,
        rules: Arc<RuleSet>,
        early: Option<Arc<EarlyRules>>,
        threads: usize,
        queues: usize,
    ) -> Arc<RuleGeneration> {
        let counters = (0..threads).map(|_| RuleCounters::new(rules.len(), queues.max(1))).collect();
        Arc::new(RuleGeneration { number, rules, counters, early })
    }

    /// The generation in force.
    pub fn current(&self) -> Arc<RuleGeneration> {
        Arc::clone(&locked(&self.current))
    }

    /// Puts new rules in force. Each thread takes them before its next receive pass. Returns the generation's number.
    pub fn replace(&self, rules: Arc<RuleSet>, early: Option<Arc<EarlyRules>>) -> u64 {
        let mut retired = locked(&self.retired);
        let number = self.current().number + 1;
        let new = Self::generation(number, rules, early, self.threads, self.queues);
        let old = std::mem::replace(&mut *locked(&self.current), Arc::clone(&new));
        retired.generations.push((Instant::now(), old));
        retired.reclaim(&new);
        self.newest.store(number, Ordering::Release);
        number
    }

    /// The generation in force if its number is not `than`, which costs one atomic load when it is.
    #[inline]
    pub fn newer(&self, than: u64) -> Option<Arc<RuleGeneration>> {
        if self.newest.load(Ordering::Acquire) == than { None } else { Some(self.current()) }
    }

    /// Reads what the rules did so far.
    pub fn stats(&self) -> RulesInForce {
        let mut retired = locked(&self.retired);
        let current = self.current();
        retired.reclaim(&current);
        let described = current.rules.describe();
        let mut sums = current.totals();
        let mut early_dropped = retired.early_dropped + sums.iter().map(|totals| totals.early).sum::<u64>();
        let by_name: HashMap<&str, usize> = if retired.generations.is_empty() {
            HashMap::new()
        } else {
            described.iter().map(|(name, _)| name.as_str()).zip(0..).collect()
        };
        for (_, generation) in &retired.generations {
            for (name, totals) in generation.rules.names().iter().zip(generation.totals()) {
                early_dropped += totals.early;
                if let Some(sum) = by_name.get(name.as_str()).and_then(|&now| sums.get_mut(now)) {
                    sum.add(&totals);
                }
            }
        }
        let rules = described.into_iter().zip(sums).map(|((name, text), mut totals)| {
            if let Some(before) = retired.totals.get(&name) {
                totals.add(before);
            }
            let delivered: u64 = totals.delivered.iter().sum();
            let by_queue = totals.delivered.iter().copied().enumerate().filter(|(_, n)| *n > 0);
            RuleStats {
                matched: delivered + totals.full + totals.dropped + totals.early,
                dropped: totals.dropped + totals.early,
                queue_full: totals.full,
                queues: if totals.delivered.len() == self.queues { by_queue.collect() } else { Vec::new() },
                name,
                text,
            }
        });
        RulesInForce { generation: current.number, rules: rules.collect(), early_dropped }
    }
}

impl Retired {
    /// Adds up the totals of generations that neither a thread nor a program uses any more, and frees them.
    fn reclaim(&mut self, current: &RuleGeneration) {
        let Retired { generations, totals, early_dropped } = self;
        generations.retain_mut(|(replaced, generation)| {
            // When this handle is the only one, all writes of the threads are visible: they came before the threads
            // dropped their handles.
            let in_use = Arc::get_mut(generation).is_none()
                || generation.early.as_ref().is_some_and(|early| {
                    // A program that is still attached holds another handle.
                    Arc::strong_count(early) > 1 || replaced.elapsed() < XDP_GRACE_PERIOD
                });
            if !in_use {
                for (name, of_rule) in generation.rules.names().into_iter().zip(generation.totals()) {
                    *early_dropped += of_rule.early;
                    totals.entry(name).and_modify(|sum| sum.add(&of_rule)).or_insert(of_rule);
                }
            }
            in_use
        });
        // Names that change with each reload must not accumulate.
        if totals.len() > MAX_RETIRED_NAMES {
            let names: HashSet<String> = current.rules.names().into_iter().collect();
            totals.retain(|name, _| names.contains(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scatter::rule_counters::MAX_CELLS;

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
        assert!(locked(&live.retired).generations.is_empty());
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
}
