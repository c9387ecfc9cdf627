//! Typed tree → program. `and`, `or` and `not` turn into edges, as in any compiler of conditions.

use super::check::{Act, By, Checked, Cond, Part as KeyPart, Value};
use super::program::{Action, Edges, Key, Label, Load, Node, Operand, Part, Program, Queues, Spread, Step};

/// The program of `rules`, the last of which cannot fail.
pub(crate) fn lower(rules: &[Checked]) -> Program {
    let mut lower = Lower::default();
    for (index, rule) in rules.iter().enumerate() {
        let next = lower.label();
        lower.rule(rule, index as u16, next);
        lower.bind(next);
    }
    lower.resolve()
}

/// While lowering, edges hold label numbers; `resolve` replaces them by node indices.
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

    /// The label stands for the node that is emitted next.
    fn bind(&mut self, label: Label) {
        let here = self.program.nodes.len() as u32;
        if let Some(at) = self.labels.get_mut(label as usize) {
            *at = here;
        }
    }

    fn rule(&mut self, rule: &Checked, index: u16, next: Label) {
        if !matches!(rule.cond, Cond::Always) {
            let matched = self.label();
            self.cond(&rule.cond, Edges { yes: matched, no: next, fail: next });
            self.bind(matched);
        }
        let action = self.action(&rule.action);
        self.program.nodes.push(Node::Do { action, rule: index, fail: next });
    }

    fn cond(&mut self, cond: &Cond, to: Edges) {
        let node = match cond {
            Cond::Always => Node::Goto(to.yes),
            Cond::Never => Node::Goto(to.no),
            Cond::Not(inner) => return self.cond(inner, Edges { yes: to.no, no: to.yes, fail: to.fail }),
            Cond::And(parts) => {
                return self.sequence(parts, to, |next, to| Edges { yes: next, ..to });
            }
            Cond::Or(parts) => {
                return self.sequence(parts, to, |next, to| Edges { no: next, ..to });
            }
            Cond::Number { value, ranges } => self.number(value, ranges, to),
            Cond::Compare { op, left, right } => {
                let (left, right) = (self.operand(left), self.operand(right));
                Node::Compare { op: *op, left, right, to }
            }
            Cond::Bytes { from, any } => return self.bytes(*from, any, to),
            Cond::Address { which, ranges } => {
                let start = self.program.addresses.len() as u32;
                self.program.addresses.extend_from_slice(ranges);
                let ranges = Part { start, end: self.program.addresses.len() as u32 };
                Node::Address { which: *which, ranges, to }
            }
            Cond::SameAddress => Node::SameAddress { to },
        };
        self.program.nodes.push(node);
    }

    fn sequence(&mut self, parts: &[Cond], to: Edges, inner: impl Fn(Label, Edges) -> Edges) {
        let Some((last, init)) = parts.split_last() else { return };
        for part in init {
            let next = self.label();
            self.cond(part, inner(next, to));
            self.bind(next);
        }
        self.cond(last, to);
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

    /// Strings as long as a number are compared as one.
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

    /// Leaves the value in the accumulator and the stack as it was.
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

    fn action(&mut self, action: &Act) -> Action {
        match action {
            Act::Drop => Action::Drop,
            Act::Sample(n) => {
                let slot = self.program.samples;
                self.program.samples += 1;
                Action::Sample { slot, n: *n }
            }
            Act::Queue { queue, spill } => Action::Queue { queue: *queue, spill: *spill },
            Act::Spread { by, over, spill } => {
                Action::Spread { by: self.spread(by, over), over: *over, spill: *spill }
            }
        }
    }

    fn spread(&mut self, by: &By, over: &Queues) -> Spread {
        match by {
            By::Mod(value) => Spread::Mod(self.operand(value)),
            By::Hash(parts) => match parts.as_slice() {
                [KeyPart::Flow] => Spread::HashFlow,
                [KeyPart::Number(Value::Load(load))] => Spread::HashLoad(*load),
                parts => {
                    let keys: Vec<Key> = parts.iter().map(|part| self.key(part)).collect();
                    let start = self.program.keys.len() as u32;
                    self.program.keys.extend(keys);
                    Spread::Hash(Part { start, end: self.program.keys.len() as u32 })
                }
            },
            By::RoundRobin => {
                let slot = self.program.round_robins.len() as u32;
                self.program.round_robins.push(over.count() as u32);
                Spread::RoundRobin { slot }
            }
            By::Random => Spread::Random,
            By::Cpu => Spread::Cpu,
            By::RxQueue => Spread::RxQueue,
        }
    }

    fn key(&mut self, part: &KeyPart) -> Key {
        match part {
            KeyPart::Number(value) => Key::Number(self.operand(value)),
            KeyPart::Bytes { from, len } => Key::Bytes { from: *from, len: *len },
            KeyPart::Address(which) => Key::Address(*which),
            KeyPart::Flow => Key::Flow,
        }
    }

    fn resolve(mut self) -> Program {
        let labels = std::mem::take(&mut self.labels);
        let at = |label: &mut Label| *label = labels.get(*label as usize).copied().unwrap_or(u32::MAX);
        for node in &mut self.program.nodes {
            match node {
                Node::Goto(to) => at(to),
                Node::Range { to, .. }
                | Node::Set { to, .. }
                | Node::Compare { to, .. }
                | Node::Bytes { to, .. }
                | Node::Address { to, .. }
                | Node::SameAddress { to } => {
                    at(&mut to.yes);
                    at(&mut to.no);
                    at(&mut to.fail);
                }
                Node::Do { fail, .. } => at(fail),
                // Made later, from resolved nodes.
                Node::Switch { .. } => {}
            }
        }
        self.program
    }
}
