//! Counters by rule: a thread's own for one generation of rules, and their sums.

use super::counters::{Counter, zeroed};

/// Most `rules × queues` for which a thread counts deliveries by rule and queue; above, it counts them by rule alone. Each
/// cell becomes a time series in Prometheus. Too low: `/metrics` does not say to which queues a rule delivers. Too high: a
/// set of very many rules floods Prometheus.
pub(super) const MAX_CELLS: usize = 4096;

/// One thread's counters by rule under one generation of rules. Only that thread writes it.
#[derive(Debug)]
#[repr(align(128))]
pub struct RuleCounters {
    /// Cells of `delivered` for each rule: one for each queue, or one in all.
    pub(super) span: usize,
    /// Datagrams put into a lane, by rule and queue.
    delivered: Box<[Counter]>,
    /// Datagrams lost because the lane was full, by rule.
    pub full: Box<[Counter]>,
    /// Datagrams that a rule dropped, by rule.
    pub dropped: Box<[Counter]>,
}

impl RuleCounters {
    /// Counters for a set of rules and a number of queues (at least 1), all zero.
    pub(super) fn new(rules: usize, queues: usize) -> Self {
        let span = if rules.saturating_mul(queues) <= MAX_CELLS { queues } else { 1 };
        RuleCounters { span, delivered: zeroed(rules * span), full: zeroed(rules), dropped: zeroed(rules) }
    }

    /// Counts a datagram of this rule that was put into a lane of this queue.
    #[inline]
    pub fn deliver(&self, rule: usize, queue: usize) {
        self.delivered[rule * self.span + queue.min(self.span - 1)].add(1);
    }
}

/// The counters of one rule, summed over threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleTotals {
    /// Datagrams put into a lane, by queue; one sum for all queues where a generation did not count by queue.
    pub(super) delivered: Vec<u64>,
    /// Datagrams lost because the lane was full.
    pub(super) full: u64,
    /// Datagrams dropped by a receive thread.
    pub(super) dropped: u64,
    /// Datagrams dropped by the XDP program.
    pub(super) early: u64,
}

impl RuleTotals {
    /// The totals of one rule over all threads of a generation; `early` are the XDP program's drops.
    pub(super) fn of(threads: &[RuleCounters], rule: usize, early: u64) -> Self {
        let cells = threads.first().map_or(1, |c| c.span);
        let mut totals = RuleTotals { delivered: vec![0; cells], full: 0, dropped: 0, early };
        for c in threads {
            let delivered = c.delivered.chunks(c.span).nth(rule).unwrap_or_default();
            let one = |counters: &[Counter]| counters.get(rule).map_or(0, Counter::get);
            totals.delivered.iter_mut().zip(delivered).for_each(|(sum, n)| *sum += n.get());
            totals.full += one(&c.full);
            totals.dropped += one(&c.dropped);
        }
        totals
    }

    /// Adds the totals of another generation's rule.
    pub(super) fn add(&mut self, other: &RuleTotals) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
