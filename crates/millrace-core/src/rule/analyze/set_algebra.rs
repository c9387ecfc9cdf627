//! Operations on unions of hyperrectangles, bounded in time and size.
//!
//! They return `None` where a bound is reached; the caller then knows nothing of the result.

use super::hyperrectangle::{HyperRectangle, SubjectId};
use super::interval_set::IntervalSet;

/// Hyperrectangles of one match set. A set that needs more is not analysed, so a higher limit finds more rules that can never
/// match, and uses up the fuel sooner.
const MAX_HYPERRECTANGLES: usize = 32;

/// Intervals that the analysis of one rule set may touch, which bounds the compile time: about a second in a debug build. The
/// rules behind the point where the fuel is used up are not analysed.
const FUEL: usize = 10_000_000;

/// The facts about a subject.
#[derive(Debug, Clone, Copy)]
pub(super) struct SubjectInfo {
    /// The shortest payload that has it, in bytes.
    pub(super) min_len: u64,
    /// Its largest value.
    pub(super) max: u128,
    /// Whether every payload of at least that length has it: it divides by nothing that may be zero.
    pub(super) is_total: bool,
}

/// The subjects of one rule set, and the fuel that is left for it.
#[derive(Debug)]
pub(super) struct SetAlgebra {
    subjects: Vec<SubjectInfo>,
    fuel: usize,
}

impl SetAlgebra {
    pub(super) fn new() -> Self {
        SetAlgebra { subjects: Vec::new(), fuel: FUEL }
    }

    /// The number of a new subject.
    pub(super) fn add_subject(&mut self, info: SubjectInfo) -> SubjectId {
        self.subjects.push(info);
        (self.subjects.len() - 1) as SubjectId
    }

    pub(super) fn subject(&self, id: SubjectId) -> SubjectInfo {
        let unknown = SubjectInfo { min_len: 0, max: u128::MAX, is_total: false };
        self.subjects.get(id as usize).copied().unwrap_or(unknown)
    }

    /// Uses fuel for work on this many intervals; false when none is left.
    pub(super) fn consume_fuel(&mut self, intervals: usize) -> bool {
        self.fuel = self.fuel.saturating_sub(intervals);
        self.fuel > 0
    }

    /// The datagrams that are in both unions.
    pub(super) fn intersection(
        &mut self,
        a: &[HyperRectangle],
        b: &[HyperRectangle],
    ) -> Option<Vec<HyperRectangle>> {
        let mut out = Vec::new();
        for x in a {
            for y in b {
                if !self.consume_fuel(x.interval_count() + y.interval_count()) {
                    return None;
                }
                if let Some(common) = x.intersection(y) {
                    self.add(&mut out, common)?;
                }
            }
        }
        Some(out)
    }

    /// The datagrams that are in any of the two unions.
    pub(super) fn union(
        &mut self,
        mut a: Vec<HyperRectangle>,
        b: Vec<HyperRectangle>,
    ) -> Option<Vec<HyperRectangle>> {
        for added in b {
            self.add(&mut a, added)?;
        }
        Some(a)
    }

    /// Adds to a union. Two hyperrectangles that differ in one bound are merged.
    fn add(&mut self, to: &mut Vec<HyperRectangle>, mut added: HyperRectangle) -> Option<()> {
        let mut at = 0;
        while let Some(other) = to.get(at) {
            if !self.consume_fuel(other.interval_count() + added.interval_count()) {
                return None;
            }
            if other.contains(&added) {
                return Some(());
            }
            match self.merge(other, &added) {
                Some(merged) => {
                    added = merged;
                    to.swap_remove(at);
                    at = 0;
                }
                None => at += 1,
            }
        }
        to.push(added);
        (to.len() <= MAX_HYPERRECTANGLES).then_some(())
    }

    /// The one hyperrectangle that is the union of both, if there is one.
    fn merge(&self, a: &HyperRectangle, b: &HyperRectangle) -> Option<HyperRectangle> {
        if b.contains(a) {
            return Some(b.clone());
        }
        if a.bounds.len() != b.bounds.len() || a.bounds.iter().zip(&b.bounds).any(|(x, y)| x.0 != y.0) {
            return None;
        }
        let mut differ = a.bounds.iter().zip(&b.bounds).enumerate().filter(|(_, (x, y))| x.1 != y.1);
        match (a.len == b.len, differ.next(), differ.next()) {
            (false, None, _) => Some(HyperRectangle { len: a.len.union(&b.len), bounds: a.bounds.clone() }),
            (true, Some((at, (x, y))), None) => {
                let mut merged = a.clone();
                let (info, set) = (self.subject(x.0), x.1.union(&y.1));
                if info.is_total && set == IntervalSet::range(0, info.max) {
                    merged.bounds.remove(at);
                } else {
                    merged.bounds.get_mut(at)?.1 = set;
                }
                Some(merged)
            }
            _ => None,
        }
    }
}
