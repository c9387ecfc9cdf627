//! Program → program: a chain of tests on one load becomes one binary search, so that many rules on one field cost about as
//! much as few. GCC has a pass of the same name and purpose (`gimple-if-to-switch.cc`).
//!
//! A chain is a node that compares a load with constants, the node it leads to when it does not match, if that compares
//! the same load, and so on. Where a chain leads is a function of the value alone, constant between the ends of the
//! ranges it compares with, so its first node can be replaced by a table of that function. The other nodes stay: a rule
//! whose first test matched and whose second did not goes on to the next rule's own test, as before.

use super::load::Load;
use super::program::{Edges, Node, NodeId, Operand, Part, Program};
use std::collections::BTreeSet;

/// Tests in a chain from which on a binary search is faster than one test after the other.
const MIN_CHAIN: usize = 4;

/// Replaces the first node of every chain that is long enough by a [`Node::Switch`].
pub(crate) fn if_to_switch(program: &mut Program) {
    let mut covered = vec![false; program.nodes.len()];
    for head in 0..program.nodes.len() {
        if covered.get(head).copied().unwrap_or(true) {
            continue;
        }
        let Some(load) = constant_test(program, head as NodeId).map(|t| t.load) else { continue };
        let chain = chain(program, head as NodeId, load, &covered);
        for link in &chain {
            if let Some(c) = covered.get_mut(link.at as usize) {
                *c = true;
            }
        }
        let (Some(first), Some(last)) = (chain.first(), chain.last()) else { continue };
        if chain.len() < MIN_CHAIN {
            continue;
        }
        // When the load cannot be read, no test of the chain can read it: follow their `fail` edges to the end.
        let fail = chain.iter().fold(first.fail, |fail, link| if link.at == fail { link.fail } else { fail });
        let start = program.cases.len() as u32;
        let cases = table(&chain, last.miss);
        program.cases.extend(cases);
        let cases = Part { start, end: program.cases.len() as u32 };
        if let Some(node) = program.nodes.get_mut(head) {
            *node = Node::Switch { load, cases, fail };
        }
    }
}

/// A comparison of a load with constants.
struct Test {
    load: Load,
    ranges: Vec<(u64, u64)>,
    to: Edges,
}

/// A test in a chain. It leads to `hit` for the values in `hits`, and to `miss`, the next link, for all others.
struct Link {
    at: NodeId,
    hits: Vec<(u64, u64)>,
    hit: NodeId,
    miss: NodeId,
    fail: NodeId,
}

/// The node as a comparison of a load with constants, if it is one.
fn constant_test(program: &Program, at: NodeId) -> Option<Test> {
    match program.nodes.get(at as usize)? {
        Node::Range { value: Operand::Load(load), low, span, to } => {
            Some(Test { load: *load, ranges: vec![(*low, low.saturating_add(*span))], to: *to })
        }
        Node::Set { value: Operand::Load(load), ranges, to } => {
            let ranges = program.ranges.get(ranges.start as usize..ranges.end as usize)?;
            Some(Test { load: *load, ranges: ranges.to_vec(), to: *to })
        }
        _ => None,
    }
}

/// The chain from `head` on. It ends where it reaches an earlier chain, so no node is in two chains, and all tables together
/// are no larger than the text.
fn chain(program: &Program, head: NodeId, load: Load, covered: &[bool]) -> Vec<Link> {
    let mut links = Vec::new();
    let mut at = head;
    while let Some(Test { ranges, to, .. }) = constant_test(program, at).filter(|t| t.load == load) {
        // The rule of `u8[0] != 1` does not match where the number is equal: `yes` leads to the next rule, as `fail` does.
        let link = if to.yes == to.fail && to.no != to.fail {
            Link { at, hits: complement(&ranges), hit: to.no, miss: to.yes, fail: to.fail }
        } else {
            Link { at, hits: ranges, hit: to.yes, miss: to.no, fail: to.fail }
        };
        at = link.miss;
        links.push(link);
        if covered.get(at as usize).copied().unwrap_or(true) {
            break;
        }
    }
    links
}

fn complement(ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut out = Vec::with_capacity(ranges.len() + 1);
    let mut low = Some(0u64);
    for &(a, b) in ranges {
        if let Some(from) = low.filter(|from| *from < a) {
            out.push((from, a - 1));
        }
        low = b.checked_add(1);
    }
    out.extend(low.map(|from| (from, u64::MAX)));
    out
}

/// `(lowest value, successor)`: for each run of values the successor of the first link that hits, or `otherwise`.
fn table(chain: &[Link], otherwise: NodeId) -> Vec<(u64, NodeId)> {
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (i, link) in chain.iter().enumerate() {
        for &(low, high) in &link.hits {
            events.push((low, true, i));
            if let Some(end) = high.checked_add(1) {
                events.push((end, false, i));
            }
        }
    }
    // Ends before beginnings, so that ranges of one link that touch do not cancel each other.
    events.sort_unstable();
    let mut cases: Vec<(u64, NodeId)> = vec![(0, otherwise)];
    let mut active = BTreeSet::new();
    for (value, begins, i) in events {
        if begins {
            active.insert(i);
        } else {
            active.remove(&i);
        }
        let to = active.first().and_then(|i| chain.get(*i)).map_or(otherwise, |link| link.hit);
        match cases.last_mut() {
            Some(last) if last.0 == value => last.1 = to,
            _ => cases.push((value, to)),
        }
    }
    cases.dedup_by_key(|(_, to)| *to);
    cases
}
