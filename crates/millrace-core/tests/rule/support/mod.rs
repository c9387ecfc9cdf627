//! Random rules and datagrams, and a classic BPF machine, for the tests that run the same rules in several machines. The fuzz
//! target rules_bpf includes this folder too.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod classic_machine;
mod rules;
mod sample;
pub mod sockets;

use millrace_core::rule::{RuleSet, RuleState, Verdict};

pub use classic_machine::{Packet, run_cbpf};
pub use rules::{Random, Rules};
pub use sample::Sample;

/// Numbers of queues to compile for.
pub const QUEUES: [u16; 6] = [1, 2, 3, 5, 8, 64];

/// What the evaluator says: a queue, or `None` for a drop.
pub fn evaluate(set: &RuleSet, state: &mut RuleState, sample: &Sample) -> Option<u16> {
    match set.evaluate(&sample.facts(), state) {
        Verdict::Queue { queue, .. } => Some(queue),
        Verdict::Drop { .. } => None,
    }
}
