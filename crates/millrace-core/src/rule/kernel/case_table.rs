//! Tests as case tables, which is what the BPF compilers make binary searches from. A case table partitions the numbers:
//! `(lowest number, successor)`, sorted, the first at 0, as [`super::super::program::Program::cases`].

use super::super::program::NodeId;

/// A test for the range `low..=high` as a case table.
pub(crate) fn range_cases(low: u64, high: u64, yes: NodeId, no: NodeId) -> Vec<(u64, NodeId)> {
    set_cases(&[(low, high)], yes, no)
}

/// A test for sorted, disjoint ranges as a case table.
pub(crate) fn set_cases(ranges: &[(u64, u64)], yes: NodeId, no: NodeId) -> Vec<(u64, NodeId)> {
    let mut cases: Vec<(u64, NodeId)> = vec![(0, no)];
    for &(low, high) in ranges {
        match cases.last_mut() {
            Some(last) if last.0 == low => last.1 = yes,
            _ => cases.push((low, yes)),
        }
        if let Some(next) = high.checked_add(1) {
            cases.push((next, no));
        }
    }
    // Two ranges may touch, and then have the same successor.
    cases.dedup_by_key(|(_, to)| *to);
    cases
}
