//! Hyperrectangles: sets of datagrams given by one interval set for the payload length and one for each of some subjects
//! (fields, addresses, calculations). A datagram is in the hyperrectangle if it is within all of these bounds.
//!
//! Subjects are treated as independent of each other, even where they are not (`u8[0]` is half of `u16[0]`). That never leads
//! to a false statement: a hyperrectangle with an empty bound is empty, and one whose bounds are all within the bounds of
//! another lies inside it, whatever the subjects have to do with each other. Only some cases are missed.

use super::super::load::MAX_PAYLOAD;
use super::interval_set::IntervalSet;

/// A subject's number, which the set algebra assigns.
pub(super) type SubjectId = u32;

/// The datagrams whose length and subjects are within bounds. A bound on a subject also means that the subject has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HyperRectangle {
    pub(super) len: IntervalSet,
    /// Sorted by subject.
    pub(super) bounds: Vec<(SubjectId, IntervalSet)>,
}

impl HyperRectangle {
    /// All datagrams.
    pub(super) fn all() -> HyperRectangle {
        HyperRectangle::of_lengths(lengths_from(0))
    }

    /// The datagrams of these lengths.
    pub(super) fn of_lengths(len: IntervalSet) -> HyperRectangle {
        HyperRectangle { len, bounds: Vec::new() }
    }

    fn bound(&self, id: SubjectId) -> Option<&IntervalSet> {
        let at = self.bounds.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.bounds.get(at).map(|(_, set)| set)
    }

    /// Whether the bounds show that every datagram of the other one is in this one.
    pub(super) fn contains(&self, other: &HyperRectangle) -> bool {
        self.len.contains(&other.len)
            && self.bounds.iter().all(|(id, set)| other.bound(*id).is_some_and(|b| set.contains(b)))
    }

    /// The datagrams in both; `None` when there are none.
    pub(super) fn intersection(&self, other: &HyperRectangle) -> Option<HyperRectangle> {
        let len = self.len.intersection(&other.len);
        let mut bounds = self.bounds.clone();
        for (id, set) in &other.bounds {
            match bounds.binary_search_by_key(id, |(id, _)| *id) {
                Ok(at) => {
                    let both = bounds.get(at)?.1.intersection(set);
                    if both.is_empty() {
                        return None;
                    }
                    bounds.get_mut(at)?.1 = both;
                }
                Err(at) => bounds.insert(at, (*id, set.clone())),
            }
        }
        (!len.is_empty()).then_some(HyperRectangle { len, bounds })
    }

    /// How many intervals describe it, which is what work on it costs.
    pub(super) fn interval_count(&self) -> usize {
        self.bounds.iter().map(|(_, set)| set.intervals().len()).sum::<usize>() + self.len.intervals().len()
    }
}

/// Payload lengths from `min_len` on.
pub(super) fn lengths_from(min_len: u64) -> IntervalSet {
    IntervalSet::range(min_len.into(), MAX_PAYLOAD.into())
}
