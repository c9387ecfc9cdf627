//! Sets of datagrams as boxes: each box bounds the length and some subjects (fields, addresses,
//! calculations), and holds the datagrams that are within all of its bounds.
//!
//! Subjects are taken as independent of each other, also where they are not (`u8[0]` is half of `u16[0]`). Nothing wrong
//! follows from that: a box with a bound that nothing is within is empty, and a box whose bounds are all at least as tight
//! as another's lies inside it, whatever the fields have to do with each other. Only some cases are not seen.

use super::super::program::MAX_PAYLOAD;
use super::sets::Set;

/// A subject's number.
pub(super) type Id = u32;

/// Datagrams whose length and subjects are within bounds. A bound on a subject also says that it can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) len: Set,
    /// Sorted by subject.
    pub(super) bounds: Vec<(Id, Set)>,
}

impl Region {
    pub(super) fn all() -> Region {
        Region { len: at_least(0), bounds: Vec::new() }
    }

    pub(super) fn bound(&self, id: Id) -> Option<&Set> {
        self.bounds
            .binary_search_by_key(&id, |(id, _)| *id)
            .ok()
            .and_then(|i| self.bounds.get(i))
            .map(|b| &b.1)
    }

    /// Whether every datagram of the other one is in this one, as far as bounds tell.
    pub(super) fn contains(&self, other: &Region) -> bool {
        self.len.contains(&other.len)
            && self.bounds.iter().all(|(id, set)| other.bound(*id).is_some_and(|b| set.contains(b)))
    }

    /// `None`: they have nothing in common.
    pub(super) fn intersection(&self, other: &Region) -> Option<Region> {
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
        (!len.is_empty()).then_some(Region { len, bounds })
    }

    /// Ranges it is made of.
    pub(super) fn size(&self) -> usize {
        self.bounds.iter().map(|(_, set)| set.pieces().len()).sum::<usize>() + self.len.pieces().len()
    }
}

/// Lengths from `need` on.
pub(super) fn at_least(need: u64) -> Set {
    Set::range(need.into(), MAX_PAYLOAD.into())
}
