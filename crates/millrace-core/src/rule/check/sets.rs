//! Sets of numbers, as sorted ranges.

use std::collections::BTreeMap;

/// Sorts and joins ranges that overlap or touch.
pub(super) fn merge<T: Ord + Copy>(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Vec<(T, T)> {
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

/// Numbers, as sorted ranges that neither overlap nor touch: equal sets are equal values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set(Vec<(u128, u128)>);

impl Set {
    /// `low..=high`; empty when there are none.
    pub(super) fn range(low: u128, high: u128) -> Set {
        Set(if low <= high { vec![(low, high)] } else { Vec::new() })
    }

    /// The ranges, in any order.
    pub(super) fn of(ranges: impl IntoIterator<Item = (u128, u128)>) -> Set {
        Set(merge(ranges.into_iter().collect(), |n| n.checked_add(1)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn pieces(&self) -> &[(u128, u128)] {
        &self.0
    }

    pub(super) fn intersection(&self, other: &Set) -> Set {
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
        Set(out)
    }

    pub(super) fn union(&self, other: &Set) -> Set {
        Set::of(self.0.iter().chain(&other.0).copied())
    }

    /// Those of `0..=max` that are not in the set.
    pub(super) fn complement(&self, max: u128) -> Set {
        let mut out = Vec::with_capacity(self.0.len() + 1);
        let mut from = Some(0);
        for (low, high) in &self.0 {
            if let Some(from) = from.filter(|from| from < low) {
                out.push((from, low - 1));
            }
            from = high.checked_add(1);
        }
        out.extend(from.filter(|from| *from <= max).map(|from| (from, max)));
        Set(out)
    }

    pub(super) fn contains(&self, other: &Set) -> bool {
        other.0.iter().all(|(low, high)| {
            let next = self.0.partition_point(|(from, _)| from <= low);
            next.checked_sub(1).and_then(|i| self.0.get(i)).is_some_and(|(_, to)| high <= to)
        })
    }
}

/// A set that grows, one of many small additions: each costs the logarithm of its size.
#[derive(Debug, Default)]
pub(super) struct Cover {
    /// Low → high, neither overlapping nor touching.
    pieces: BTreeMap<u128, u128>,
}

impl Cover {
    pub(super) fn add(&mut self, set: &Set) {
        for &(mut low, mut high) in set.pieces() {
            // The piece before may touch or overlap, and so may any that begin inside.
            let before = self.pieces.range(..=low).next_back().map(|(a, b)| (*a, *b));
            if let Some((a, b)) = before.filter(|(_, b)| b.checked_add(1).is_none_or(|n| n >= low)) {
                (low, high) = (a, high.max(b));
            }
            let end = high.saturating_add(1);
            let inside: Vec<u128> = self.pieces.range(low..=end).map(|(a, _)| *a).collect();
            for at in inside {
                high = high.max(self.pieces.remove(&at).unwrap_or(0));
            }
            self.pieces.insert(low, high);
        }
    }

    pub(super) fn contains(&self, set: &Set) -> bool {
        set.pieces()
            .iter()
            .all(|(low, high)| self.pieces.range(..=*low).next_back().is_some_and(|(_, to)| high <= to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same as bits, for numbers up to 31.
    fn bits(set: &Set) -> u32 {
        (0..32).filter(|n| set.contains(&Set::range(*n, *n))).fold(0, |bits, n| bits | 1 << n)
    }

    fn set() -> impl Strategy<Value = Set> {
        prop::collection::vec((0u128..32, 0u128..6), 0..6)
            .prop_map(|ranges| Set::of(ranges.into_iter().map(|(low, n)| (low, (low + n).min(31)))))
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
            let mut cover = Cover::default();
            cover.add(&a);
            cover.add(&b);
            prop_assert_eq!(cover.contains(&c), a.union(&b).contains(&c));
            let joined: Vec<_> = cover.pieces.into_iter().collect();
            prop_assert_eq!(joined, a.union(&b).0);
        }
    }

    #[test]
    fn the_ends() {
        let all = Set::range(0, u128::MAX);
        assert!(all.complement(u128::MAX).is_empty());
        assert_eq!(Set::range(5, 4).complement(u128::MAX), all);
        let mut cover = Cover::default();
        cover.add(&Set::range(7, u128::MAX));
        cover.add(&Set::range(0, 6));
        assert!(cover.contains(&all));
    }
}
