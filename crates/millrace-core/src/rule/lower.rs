//! Typed rules → program. `and`, `or` and `not` become edges: each part of a condition is given the successors it has when it
//! is true and when it is false ("short-circuit code").

use super::analyze::{Condition, TypedAction, TypedKey, TypedRule, TypedSpread, Value};
use super::load::Load;
use super::program::{Action, Edges, Key, Node, NodeId, Operand, Part, Program, Spread, Step};
use super::queues::Queues;

/// The program of `rules`, the last of which cannot fail.
pub(crate) fn lower(rules: &[TypedRule]) -> Program {
    let mut lower = Lower::default();
    for (index, rule) in rules.iter().enumerate() {
        let next = lower.label();
        lower.rule(rule, index as u16, next);
        lower.bind(next);
    }
    lower.resolve()
}

/// Number of a node that may not exist yet: index into [`Lower::labels`]. It takes the place of a node's index in edges.
type Label = NodeId;

/// A program being made. Its edges hold label numbers, because the nodes they lead to come later; [`Lower::resolve`] replaces
/// them by node indices.
#[derive(Default)]
struct Lower {
    program: Program,
    /// Label number → node index.
    labels: Vec<u32>,
}

impl Lower {
    fn label(&mut self) -> Label {
        self.labels.push(u32::MAX);
        (self.labels.len() - 1) as Label
    }

    /// Makes the label stand for the node that is emitted next.
    fn bind(&mut self, label: Label) {
        let here = self.program.nodes.len() as u32;
        if let Some(at) = self.labels.get_mut(label as usize) {
            *at = here;
        }
    }

    fn rule(&mut self, rule: &TypedRule, index: u16, next: Label) {
        if !matches!(rule.condition, Condition::Always) {
            let matched = self.label();
            self.condition(&rule.condition, Edges { yes: matched, no: next, fail: next });
            self.bind(matched);
        }
        let action = self.action(&rule.action);
        self.program.nodes.push(Node::Do { action, rule: index, fail: next });
    }

    fn condition(&mut self, condition: &Condition, to: Edges) {
        let node = match condition {
            Condition::Always => Node::Goto(to.yes),
            Condition::Never => Node::Goto(to.no),
            Condition::Not(inner) => {
                return self.condition(inner, Edges { yes: to.no, no: to.yes, fail: to.fail });
            }
            Condition::And(parts) => {
                return self.sequence(parts, to, |next, to| Edges { yes: next, ..to });
            }
            Condition::Or(parts) => {
                return self.sequence(parts, to, |next, to| Edges { no: next, ..to });
            }
            Condition::Number { value, ranges } => self.number(value, ranges, to),
            Condition::Compare { op, left, right } => {
                let (left, right) = (self.operand(left), self.operand(right));
                Node::Compare { op: *op, left, right, to }
            }
            Condition::Bytes { from, any } => return self.bytes(*from, any, to),
            Condition::Address { which, ranges } => {
                let start = self.program.addresses.len() as u32;
                self.program.addresses.extend_from_slice(ranges);
                let ranges = Part { start, end: self.program.addresses.len() as u32 };
                Node::Address { which: *which, ranges, to }
            }
            Condition::SameAddress => Node::SameAddress { to },
        };
        self.program.nodes.push(node);
    }

    fn sequence(&mut self, parts: &[Condition], to: Edges, inner: impl Fn(Label, Edges) -> Edges) {
        let Some((last, init)) = parts.split_last() else { return };
        for part in init {
            let next = self.label();
            self.condition(part, inner(next, to));
            self.bind(next);
        }
        self.condition(last, to);
    }

    fn number(&mut self, value: &Value, ranges: &[(u64, u64)], to: Edges) -> Node {
        let value = self.operand(value);
        if let [(low, high)] = ranges {
            return Node::Range { value, low: *low, span: high - low, to };
        }
        let start = self.program.ranges.len() as u32;
        self.program.ranges.extend_from_slice(ranges);
        Node::Set { value, ranges: Part { start, end: self.program.ranges.len() as u32 }, to }
    }

    /// Strings as long as a number are compared as numbers, which is cheaper and can become a part of a switch.
    fn bytes(&mut self, from: u16, any: &[Vec<u8>], to: Edges) {
        let len = any.first().map_or(0, Vec::len);
        let load = match len {
            1 => Some(Load::U8(from)),
            2 => Some(Load::U16(from)),
            4 => Some(Load::U32(from)),
            8 => Some(Load::U64(from)),
            _ => None,
        };
        if let Some(load) = load {
            let ranges: Vec<(u64, u64)> = any
                .iter()
                .map(|text| {
                    let n = text.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
                    (n, n)
                })
                .collect();
            let node = self.number(&Value::Load(load), &ranges, to);
            self.program.nodes.push(node);
            return;
        }
        for (i, text) in any.iter().enumerate() {
            let start = self.program.pool.len() as u32;
            self.program.pool.extend_from_slice(text);
            let pool = Part { start, end: self.program.pool.len() as u32 };
            let next = self.label();
            let no = if i + 1 == any.len() { to.no } else { next };
            self.program.nodes.push(Node::Bytes { from, pool, to: Edges { no, ..to } });
            self.bind(next);
        }
    }

    fn operand(&mut self, value: &Value) -> Operand {
        if let Value::Load(load) = value {
            return Operand::Load(*load);
        }
        let start = self.program.steps.len() as u32;
        self.steps(value);
        Operand::Code(Part { start, end: self.program.steps.len() as u32 })
    }

    /// Steps that leave the value in the accumulator, and the stack as it was.
    fn steps(&mut self, value: &Value) {
        match value {
            Value::Const(n) => self.program.steps.push(Step::Const(*n)),
            Value::Load(load) => self.program.steps.push(Step::Load(*load)),
            Value::Chain { first, rest } => {
                self.steps(first);
                for (op, right) in rest {
                    match right {
                        Value::Const(n) => self.program.steps.push(Step::Imm(*op, *n)),
                        Value::Load(load) => self.program.steps.push(Step::With(*op, *load)),
                        Value::Chain { .. } => {
                            self.program.steps.push(Step::Push);
                            self.steps(right);
                            self.program.steps.push(Step::Pop(*op));
                        }
                    }
                }
            }
        }
    }

    fn action(&mut self, action: &TypedAction) -> Action {
        match action {
            TypedAction::Drop => Action::Drop,
            TypedAction::Sample(n) => {
                let slot = self.program.samples;
                self.program.samples += 1;
                Action::Sample { slot, n: *n }
            }
            TypedAction::Queue { queue, spill } => Action::Queue { queue: *queue, spill: *spill },
            TypedAction::Spread { by, over, spill } => {
                Action::Spread { by: self.spread(by, over), over: *over, spill: *spill }
            }
        }
    }

    fn spread(&mut self, by: &TypedSpread, over: &Queues) -> Spread {
        match by {
            TypedSpread::Mod(value) => Spread::Mod(self.operand(value)),
            TypedSpread::Hash(parts) => match parts.as_slice() {
                [TypedKey::Flow] => Spread::HashFlow,
                [TypedKey::Number(Value::Load(load))] => Spread::HashLoad(*load),
                parts => {
                    let keys: Vec<Key> = parts.iter().map(|part| self.key(part)).collect();
                    let start = self.program.keys.len() as u32;
                    self.program.keys.extend(keys);
                    Spread::Hash(Part { start, end: self.program.keys.len() as u32 })
                }
            },
            TypedSpread::RoundRobin => {
                let slot = self.program.round_robins.len() as u32;
                self.program.round_robins.push(over.count() as u32);
                Spread::RoundRobin { slot }
            }
            TypedSpread::Random => Spread::Random,
            TypedSpread::Cpu => Spread::Cpu,
            TypedSpread::RxQueue => Spread::RxQueue,
        }
    }

    fn key(&mut self, part: &TypedKey) -> Key {
        match part {
            TypedKey::Number(value) => Key::Number(self.operand(value)),
            TypedKey::Bytes { from, len } => Key::Bytes { from: *from, len: *len },
            TypedKey::Address(which) => Key::Address(*which),
            TypedKey::Flow => Key::Flow,
        }
    }

    fn resolve(mut self) -> Program {
        let labels = std::mem::take(&mut self.labels);
        let resolve = |label: &mut Label| *label = labels.get(*label as usize).copied().unwrap_or(u32::MAX);
        for node in &mut self.program.nodes {
            match node {
                Node::Goto(to) => resolve(to),
                Node::Range { to, .. }
                | Node::Set { to, .. }
                | Node::Compare { to, .. }
                | Node::Bytes { to, .. }
                | Node::Address { to, .. }
                | Node::SameAddress { to } => {
                    resolve(&mut to.yes);
                    resolve(&mut to.no);
                    resolve(&mut to.fail);
                }
                Node::Do { fail, .. } => resolve(fail),
                // `if_to_switch` makes them later, from resolved nodes.
                Node::Switch { .. } => {}
            }
        }
        self.program
    }
}
