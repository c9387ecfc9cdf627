//! Why a datagram goes where it goes: the rules one by one, and what each looked at last.

use super::eval::{bytes, slice, within};
use super::program::{Edges, Label, Load, Node, Operand, Program, Which};
use super::{Facts, RuleSet, RuleState, Verdict, target};
use crate::datagram::Addr;
use serde::Serialize;

/// What became of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It decided.
    Matched,
    /// Its condition is false.
    False,
    /// It reads beyond the datagram or divides by zero, or the key of its action does.
    Beyond,
    /// It is a `sample` that keeps this datagram.
    Kept,
}

/// One rule, as it was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// Its index.
    pub rule: u16,
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What it looked at last; empty where it looks at nothing.
    pub why: String,
}

/// A rule set that can say why. It decides as the [`RuleSet`] of the same text does, only slower.
#[derive(Debug)]
pub struct Explainer {
    set: RuleSet,
    /// Without binary searches, which know the answer and not the rules they skipped.
    plain: Program,
}

impl Explainer {
    /// Compiles.
    ///
    /// # Errors
    /// As [`RuleSet::compile`].
    pub fn compile(text: &str, queues: u16) -> crate::error::Result<Self> {
        let (set, plain) = super::build(text, queues, false)?;
        Ok(Explainer { set, plain })
    }

    /// The rule set.
    pub fn rules(&self) -> &RuleSet {
        &self.set
    }

    /// Decides, and says why: the rules that were tried, the last of which decided.
    pub fn explain(&self, facts: &Facts<'_>, state: &mut RuleState) -> (Verdict, Vec<Trial>) {
        let rules = target::rules_of(&self.plain);
        let mut trials = Vec::new();
        let mut at: Label = 0;
        while let Some(node) = self.plain.nodes.get(at as usize) {
            let rule = rules.get(at as usize).copied().unwrap_or(0);
            let step = self.step(node, facts, state);
            let next_rule = rules.get(step.to as usize).copied().unwrap_or(u16::MAX);
            if step.verdict.is_some() || next_rule != rule {
                let (name, text) = self.set.rules.get(usize::from(rule)).cloned().unwrap_or_default();
                trials.push(Trial { rule, name, text, outcome: step.outcome, why: step.why });
            }
            if let Some(verdict) = step.verdict {
                return (verdict, trials);
            }
            at = step.to;
        }
        (self.set.evaluate(facts, state), trials)
    }

    fn step(&self, node: &Node, facts: &Facts<'_>, state: &mut RuleState) -> Step {
        let p = &self.plain;
        let test = |found: Option<bool>, to: &Edges, why: String| {
            let (to, outcome) = match found {
                Some(true) => (to.yes, Outcome::False),
                Some(false) => (to.no, Outcome::False),
                None => (to.fail, Outcome::Beyond),
            };
            Step { to, outcome, why, verdict: None }
        };
        match node {
            Node::Goto(to) => Step { to: *to, outcome: Outcome::False, why: String::new(), verdict: None },
            Node::Range { value, low, span, to } => {
                let v = p.number(*value, facts);
                test(v.map(|v| v.wrapping_sub(*low) <= *span), to, self.about(*value, v, facts))
            }
            Node::Set { value, ranges, to } => {
                let v = p.number(*value, facts);
                test(v.map(|v| within(slice(&p.ranges, *ranges), v)), to, self.about(*value, v, facts))
            }
            Node::Compare { op, left, right, to } => {
                let (a, b) = (p.number(*left, facts), p.number(*right, facts));
                let why = format!("{}, {}", self.about(*left, a, facts), self.about(*right, b, facts));
                test(a.zip(b).map(|(a, b)| op.apply(a, b)), to, why)
            }
            Node::Bytes { from, pool, to } => {
                let want = slice(&p.pool, *pool);
                let have = bytes(facts, *from, want.len());
                let name = format!("bytes[{from}..{}]", usize::from(*from) + want.len());
                let why = match have {
                    Some(have) => format!("{name} are x\"{}\"", hex(have)),
                    None => beyond(&name, facts),
                };
                test(have.map(|have| have == want), to, why)
            }
            Node::Address { which, ranges, to } => {
                let (name, address) = address(*which, facts);
                let found = within(slice(&p.addresses, *ranges), u128::from_be_bytes(address));
                test(Some(found), to, format!("{name} is {:?}", Addr(address)))
            }
            Node::SameAddress { to } => {
                let why = format!("src is {:?}, dst is {:?}", Addr(facts.src), Addr(facts.dst));
                test(Some(facts.src == facts.dst), to, why)
            }
            // `decide` makes these, and this program did not go through it.
            Node::Switch { fail, .. } => {
                Step { to: *fail, outcome: Outcome::Beyond, why: String::new(), verdict: None }
            }
            Node::Do { action, rule, fail } => match p.act(action, *rule, facts, state) {
                Some(verdict) => {
                    Step { to: *fail, outcome: Outcome::Matched, why: String::new(), verdict: Some(verdict) }
                }
                None if matches!(action, super::program::Action::Sample { .. }) => Step {
                    to: *fail,
                    outcome: Outcome::Kept,
                    why: "the sample keeps it, and the next rules decide".into(),
                    verdict: None,
                },
                None => {
                    let why = format!("its key cannot be had from {} bytes", facts.payload.len());
                    Step { to: *fail, outcome: Outcome::Beyond, why, verdict: None }
                }
            },
        }
    }

    /// What a value is.
    fn about(&self, value: Operand, found: Option<u64>, facts: &Facts<'_>) -> String {
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

struct Step {
    to: Label,
    outcome: Outcome,
    why: String,
    verdict: Option<Verdict>,
}

fn beyond(name: &str, facts: &Facts<'_>) -> String {
    format!("{name} is beyond the {} bytes", facts.payload.len())
}

fn address(which: Which, facts: &Facts<'_>) -> (&'static str, [u8; 16]) {
    match which {
        Which::Src => ("src", facts.src),
        Which::Dst => ("dst", facts.dst),
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
