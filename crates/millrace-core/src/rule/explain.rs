//! Why a datagram goes where it goes: the rules one by one, and what each read last.

use super::compile::{back_end, front_end};
use super::eval::{bytes, within};
use super::facts::Facts;
use super::load::Load;
use super::lower::lower;
use super::program::{Action, AddressField, Edges, Node, NodeId, Operand, Program};
use super::set::RuleSet;
use super::state::RuleState;
use super::verdict::Verdict;
use crate::datagram::Addr;
use crate::error::Result;
use serde::Serialize;

/// The outcome of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The rule decided.
    Matched,
    /// The condition is false.
    False,
    /// The condition, or the key of the action, reads beyond the datagram or divides by zero.
    Beyond,
    /// The action is a `sample`, which keeps this datagram; the next rules decide.
    Kept,
}

/// One rule that was tried on a datagram, with its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct RuleTrace {
    /// Name of the rule.
    pub name: String,
    /// The outcome.
    pub outcome: Outcome,
    /// Index of the rule.
    pub rule: u16,
    /// Canonical text of the rule.
    pub text: String,
    /// The value that the rule read last, on which its outcome depends; empty where it reads nothing.
    #[serde(rename = "why")]
    pub reason: String,
}

/// A rule set that can explain its verdicts. It decides as the [`RuleSet`] of the same text does, only slower.
#[derive(Debug)]
pub struct Explainer {
    set: RuleSet,
    /// The program before [`super::if_to_switch`]: a binary search finds the successor, and not the rules that it skips.
    unoptimized: Program,
}

impl Explainer {
    /// Compiles a text for a number of queues.
    ///
    /// # Errors
    /// Those of [`RuleSet::compile`].
    pub fn compile(text: &str, queues: u16) -> Result<Self> {
        let rules = front_end(text, queues)?;
        let unoptimized = lower(&rules);
        Ok(Explainer { set: back_end(unoptimized.clone(), rules), unoptimized })
    }

    /// The rule set.
    pub fn rules(&self) -> &RuleSet {
        &self.set
    }

    /// The verdict, and what became of the rules that were tried, the last of which decided.
    pub fn explain(&self, facts: &Facts<'_>, state: &mut RuleState) -> (Verdict, Vec<RuleTrace>) {
        let rules = self.unoptimized.rule_of_nodes();
        let mut traces = Vec::new();
        let mut at: NodeId = 0;
        while let Some(node) = self.unoptimized.nodes.get(at as usize) {
            let rule = rules.get(at as usize).copied().unwrap_or(0);
            let step = self.step(node, facts, state);
            let next_rule = rules.get(step.to as usize).copied().unwrap_or(u16::MAX);
            if step.verdict.is_some() || next_rule != rule {
                let (name, text) = self.set.rule(rule.into()).cloned().unwrap_or_default();
                traces.push(RuleTrace { name, outcome: step.outcome, rule, text, reason: step.reason });
            }
            if let Some(verdict) = step.verdict {
                return (verdict, traces);
            }
            at = step.to;
        }
        (self.set.evaluate(facts, state), traces)
    }

    /// Runs one node.
    fn step(&self, node: &Node, facts: &Facts<'_>, state: &mut RuleState) -> Step {
        let p = &self.unoptimized;
        let test = |found: Option<bool>, to: &Edges, reason: String| {
            let (to, outcome) = match found {
                Some(true) => (to.yes, Outcome::False),
                Some(false) => (to.no, Outcome::False),
                None => (to.fail, Outcome::Beyond),
            };
            Step { to, outcome, reason, verdict: None }
        };
        match node {
            Node::Goto(to) => Step { to: *to, outcome: Outcome::False, reason: String::new(), verdict: None },
            Node::Range { value, low, span, to } => {
                let v = p.number(*value, facts);
                test(v.map(|v| v.wrapping_sub(*low) <= *span), to, self.describe(*value, v, facts))
            }
            Node::Set { value, ranges, to } => {
                let v = p.number(*value, facts);
                test(v.map(|v| within(ranges.of(&p.ranges), v)), to, self.describe(*value, v, facts))
            }
            Node::Compare { op, left, right, to } => {
                let (a, b) = (p.number(*left, facts), p.number(*right, facts));
                let reason =
                    format!("{}, {}", self.describe(*left, a, facts), self.describe(*right, b, facts));
                test(a.zip(b).map(|(a, b)| op.apply(a, b)), to, reason)
            }
            Node::Bytes { from, pool, to } => {
                let want = pool.of(&p.pool);
                let have = bytes(facts, *from, want.len());
                let name = format!("bytes[{from}..{}]", usize::from(*from) + want.len());
                let reason = match have {
                    Some(have) => format!("{name} are x\"{}\"", hex(have)),
                    None => beyond(&name, facts),
                };
                test(have.map(|have| have == want), to, reason)
            }
            Node::Address { which, ranges, to } => {
                let (name, address) = address(*which, facts);
                let found = within(ranges.of(&p.addresses), u128::from_be_bytes(address));
                test(Some(found), to, format!("{name} is {:?}", Addr(address)))
            }
            Node::SameAddress { to } => {
                let reason = format!("src is {:?}, dst is {:?}", Addr(facts.src), Addr(facts.dst));
                test(Some(facts.src == facts.dst), to, reason)
            }
            // `if_to_switch` makes these, and has not seen this program.
            Node::Switch { fail, .. } => {
                Step { to: *fail, outcome: Outcome::Beyond, reason: String::new(), verdict: None }
            }
            Node::Do { action, rule, fail } => match p.execute(action, *rule, facts, state) {
                Some(verdict) => Step {
                    to: *fail,
                    outcome: Outcome::Matched,
                    reason: String::new(),
                    verdict: Some(verdict),
                },
                None if matches!(action, Action::Sample { .. }) => Step {
                    to: *fail,
                    outcome: Outcome::Kept,
                    reason: "the sample keeps it, and the next rules decide".into(),
                    verdict: None,
                },
                None => {
                    let reason = format!("its key cannot be had from {} bytes", facts.payload.len());
                    Step { to: *fail, outcome: Outcome::Beyond, reason, verdict: None }
                }
            },
        }
    }

    /// Describes a value, or why there is none.
    fn describe(&self, value: Operand, found: Option<u64>, facts: &Facts<'_>) -> String {
        let name = match value {
            Operand::Load(load) => field(load),
            Operand::Code(_) => "the calculation".into(),
        };
        match (found, value) {
            (Some(v), _) => format!("{name} is {v}"),
            (None, Operand::Load(_)) => beyond(&name, facts),
            (None, _) => format!("{name} reads beyond the {} bytes, or divides by zero", facts.payload.len()),
        }
    }
}

/// The result of one node.
struct Step {
    to: NodeId,
    outcome: Outcome,
    reason: String,
    verdict: Option<Verdict>,
}

fn beyond(name: &str, facts: &Facts<'_>) -> String {
    format!("{name} is beyond the {} bytes", facts.payload.len())
}

fn address(which: AddressField, facts: &Facts<'_>) -> (&'static str, [u8; 16]) {
    match which {
        AddressField::Src => ("src", facts.src),
        AddressField::Dst => ("dst", facts.dst),
    }
}

fn field(load: Load) -> String {
    match load {
        Load::U8(at) => format!("u8[{at}]"),
        Load::U16(at) => format!("u16[{at}]"),
        Load::U32(at) => format!("u32[{at}]"),
        Load::U64(at) => format!("u64[{at}]"),
        Load::U16Le(at) => format!("u16le[{at}]"),
        Load::U32Le(at) => format!("u32le[{at}]"),
        Load::U64Le(at) => format!("u64le[{at}]"),
        Load::Len => "len".into(),
        Load::SrcPort => "sport".into(),
        Load::DstPort => "dport".into(),
        Load::RxQueue => "rxq".into(),
        Load::Cpu => "cpu".into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
