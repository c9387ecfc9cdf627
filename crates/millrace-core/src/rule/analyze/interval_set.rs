//! Sets of numbers, as sorted intervals. All intervals include both ends.

use std::collections::BTreeMap;

/// Sorts, and merges intervals that overlap or touch; `next` is the successor of a number, if there is one.
pub(super) fn merge_intervals<T: Ord + Copy>(
    mut ranges: Vec<(T, T)>,
    next: impl Fn(T) -> Option<T>,
) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut out: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (low, high) in ranges {
        match out.last_mut() {
            Some(last) if next(last.1).is_none_or(|n| low <= n) => last.1 = last.1.max(high),
            _ => out.push((low, high)),
        }
    }
    out
}

/// A set of numbers. Its intervals are sorted, and neither overlap nor touch, so equal sets are equal values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IntervalSet(Vec<(u128, u128)>);

impl IntervalSet {
    /// The numbers `low..=high`; none when `low` is greater.
    pub(super) fn range(low: u128, high: u128) -> IntervalSet {
        IntervalSet(if low <= high { vec![(low, high)] } else { Vec::new() })
    }

    /// The numbers in any of the intervals, which may come in any order.
    pub(super) fn of(ranges: impl IntoIterator<Item = (u128, u128)>) -> IntervalSet {
        IntervalSet(merge_intervals(ranges.into_iter().collect(), |n| n.checked_add(1)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn intervals(&self) -> &[(u128, u128)] {
        &self.0
    }

    pub(super) fn intersection(&self, other: &IntervalSet) -> IntervalSet {
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut out = Vec::new();
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            let (low, high) = (x.0.max(y.0), x.1.min(y.1));
            if low <= high {
                out.push((low, high));
            }
            if x.1 < y.1 {
                a.next()
            } else {
                b.next()
            };
        }
        IntervalSet(out)
    }

    pub(super) fn union(&self, other: &IntervalSet) -> IntervalSet {
        IntervalSet::of(self.0.iter().chain(&other.0).copied())
    }

    /// The numbers in `0..=max` that are not in the set.
    pub(super) fn complement(&self, max: u128) -> IntervalSet {
        let mut out = Vec::with_capacity(self.0.len() + 1);
        let mut from = Some(0);
        for (low, high) in &self.0 {
            if let Some(from) = from.filter(|from| from < low) {
                out.push((from, low - 1));
            }
            from = high.checked_add(1);
        }
        out.extend(from.filter(|from| *from <= max).map(|from| (from, max)));
        IntervalSet(out)
    }

    pub(super) fn contains(&self, other: &IntervalSet) -> bool {
        other.0.iter().all(|(low, high)| {
            let next = self.0.partition_point(|(from, _)| from <= low);
            next.checked_sub(1).and_then(|i| self.0.get(i)).is_some_and(|(_, to)| high <= to)
        })
    }
}

/// The union of many sets that are added one after the other. An addition costs the logarithm of the size.
#[derive(Debug, Default)]
pub(super) struct IntervalUnion {
    /// Low end → high end of intervals that neither overlap nor touch.
    intervals: BTreeMap<u128, u128>,
}

impl IntervalUnion {
    pub(super) fn add(&mut self, set: &IntervalSet) {
        for &(mut low, mut high) in set.intervals() {
            // The interval before may touch or overlap, and so may any that begin inside.
            let before = self.intervals.range(..=low).next_back().map(|(a, b)| (*a, *b));
            if let Some((a, b)) = before.filter(|(_, b)| b.checked_add(1).is_none_or(|n| n >= low)) {
                (low, high) = (a, high.max(b));
            }
            let end = high.saturating_add(1);
            let inside: Vec<u128> = self.intervals.range(low..=end).map(|(a, _)| *a).collect();
            for at in inside {
                high = high.max(self.intervals.remove(&at).unwrap_or(0));
            }
            self.intervals.insert(low, high);
        }
    }

    pub(super) fn contains(&self, set: &IntervalSet) -> bool {
        set.intervals()
            .iter()
            .all(|(low, high)| self.intervals.range(..=*low).next_back().is_some_and(|(_, to)| high <= to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The set as a bit mask, for numbers up to 31.
    fn bits(set: &IntervalSet) -> u32 {
        (0..32).filter(|n| set.contains(&IntervalSet::range(*n, *n))).fold(0, |bits, n| bits | 1 << n)
    }

    fn set() -> impl Strategy<Value = IntervalSet> {
        prop::collection::vec((0u128..32, 0u128..6), 0..6)
            .prop_map(|ranges| IntervalSet::of(ranges.into_iter().map(|(low, n)| (low, (low + n).min(31)))))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn as_bits(a in set(), b in set(), c in set()) {
            prop_assert_eq!(bits(&a.intersection(&b)), bits(&a) & bits(&b));
            prop_assert_eq!(bits(&a.union(&b)), bits(&a) | bits(&b));
            prop_assert_eq!(bits(&a.complement(31)), !bits(&a));
            prop_assert_eq!(a.contains(&b), bits(&b) & !bits(&a) == 0);
            prop_assert_eq!(a.is_empty(), bits(&a) == 0);
            prop_assert_eq!(a.complement(31).complement(31), a.clone());
            let mut union = IntervalUnion::default();
            union.add(&a);
            union.add(&b);
            prop_assert_eq!(union.contains(&c), a.union(&b).contains(&c));
            let joined: Vec<_> = union.intervals.into_iter().collect();
            prop_assert_eq!(joined, a.union(&b).0);
        }
    }

    #[test]
    fn the_ends() {
        let all = IntervalSet::range(0, u128::MAX);
        assert!(all.complement(u128::MAX).is_empty());
        assert_eq!(IntervalSet::range(5, 4).complement(u128::MAX), all);
        let mut union = IntervalUnion::default();
        union.add(&IntervalSet::range(7, u128::MAX));
        union.add(&IntervalSet::range(0, 6));
        assert!(union.contains(&all));
    }
}
