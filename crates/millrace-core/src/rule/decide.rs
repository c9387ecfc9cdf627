//! Program → program: runs of tests on one load become one binary search, so that many rules on one field cost about as
//! much as few.
//!
//! A chain is a node that compares a load with constants, the node it leads to when it does not match, if that compares
//! the same load, and so on. Where a chain leads is a function of the value alone, constant between the ends of the
//! ranges it compares with, so its first node can be replaced by a table of that function. The other nodes stay: a rule
//! whose first test matched and whose second did not goes on to the next rule's own test, as before.

use super::program::{Edges, Label, Load, Node, Operand, Part, Program};
use std::collections::BTreeSet;

/// Shorter chains are as fast one by one.
const WORTH: usize = 4;

/// Puts a [`Node::Switch`] at the head of every chain that is worth it.
pub(crate) fn decide(program: &mut Program) {
    let mut covered = vec![false; program.nodes.len()];
    for head in 0..program.nodes.len() {
        if covered.get(head).copied().unwrap_or(true) {
            continue;
        }
        let Some(load) = test(program, head as Label).map(|t| t.load) else { continue };
        let chain = chain(program, head as Label, load, &covered);
        for link in &chain {
            if let Some(c) = covered.get_mut(link.at as usize) {
                *c = true;
            }
        }
        let (Some(first), Some(last)) = (chain.first(), chain.last()) else { continue };
        if chain.len() < WORTH {
            continue;
        }
        // If the load cannot be read here it cannot be read by the next test of it either.
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

/// A test in a chain: where it leads for the values in `hits`, and for all others, which is the next link.
struct Link {
    at: Label,
    hits: Vec<(u64, u64)>,
    hit: Label,
    miss: Label,
    fail: Label,
}

fn test(program: &Program, at: Label) -> Option<Test> {
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

/// The chain from `head` on, up to where it joins one that is done already; so no node is looked at twice, and all tables
/// together are no larger than the text.
fn chain(program: &Program, head: Label, load: Load, covered: &[bool]) -> Vec<Link> {
    let mut links = Vec::new();
    let mut at = head;
    while let Some(Test { ranges, to, .. }) = test(program, at).filter(|t| t.load == load) {
        // `u8[0] != 1` goes on where it is equal.
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

/// `(lowest value, where to)`: for each stretch of values the first link that hits, or `otherwise`.
fn table(chain: &[Link], otherwise: Label) -> Vec<(u64, Label)> {
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
    let mut cases: Vec<(u64, Label)> = vec![(0, otherwise)];
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
