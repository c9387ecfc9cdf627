//! The intermediate representation, which the evaluator runs and the BPF compilers translate: a control-flow graph of tests
//! and actions, in one flat list. Every edge points forward, so a run ends, and one pass in order visits each node after
//! all of its predecessors. Boolean operators have become edges. A test has three successors: `yes`, `no`, and `fail`,
//! which it takes when it reads beyond the datagram or divides by zero, and which always leads to the next rule.
//!
//! `millrace rules check --dump program` prints the nodes by their `Debug` form.

use super::load::Load;
use super::operator::{BinOp, CmpOp};
use super::queues::Queues;

/// Index into [`Program::nodes`].
pub(crate) type NodeId = u32;

/// Entries `start..end` of one of the program's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Part {
    /// The entries. A part beyond the table is empty; the lowering makes none.
    #[inline(always)]
    pub(crate) fn of<T>(self, table: &[T]) -> &[T] {
        table.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// A number: one access, or a calculation, whose [`Step`]s are a part of [`Program::steps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operand {
    Load(Load),
    Code(Part),
}

/// One step of a calculation on an accumulator and a stack of at most [`MAX_TEMPORARIES`] values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// acc = load
    Load(Load),
    /// acc = constant
    Const(u64),
    /// acc = acc op constant
    Imm(BinOp, u64),
    /// acc = acc op load
    With(BinOp, Load),
    /// push acc
    Push,
    /// acc = pop op acc
    Pop(BinOp),
}

/// The deepest stack of a calculation. The evaluator and the BPF programs reserve that much; the analysis refuses rules
/// that need more.
pub(crate) const MAX_TEMPORARIES: usize = 8;

/// The successors of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edges {
    pub(crate) yes: NodeId,
    pub(crate) no: NodeId,
    pub(crate) fail: NodeId,
}

/// One of the two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum AddressField {
    Src,
    Dst,
}

/// A test, or an action.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Node {
    Goto(NodeId),
    /// `low <= value <= low + span`: every comparison of a value with a constant is one of these, perhaps with `yes`
    /// and `no` exchanged.
    Range {
        value: Operand,
        low: u64,
        span: u64,
        to: Edges,
    },
    /// The value lies in one of several ranges ([`Program::ranges`], sorted, disjoint).
    Set {
        value: Operand,
        ranges: Part,
        to: Edges,
    },
    /// Two values compare.
    Compare {
        op: CmpOp,
        left: Operand,
        right: Operand,
        to: Edges,
    },
    /// Payload bytes from an offset on are those in the pool.
    Bytes {
        from: u16,
        pool: Part,
        to: Edges,
    },
    /// The address lies in one of several ranges ([`Program::addresses`], sorted, disjoint).
    Address {
        which: AddressField,
        ranges: Part,
        to: Edges,
    },
    /// Source and destination address are the same.
    SameAddress {
        to: Edges,
    },
    /// Many tests on one load at once: `cases`, a part of [`Program::cases`], partition the number line.
    Switch {
        load: Load,
        cases: Part,
        fail: NodeId,
    },
    /// The end of a rule. `fail` is taken when the key cannot be read, and when `sample` keeps the datagram.
    Do {
        action: Action,
        rule: u16,
        fail: NodeId,
    },
}

/// An action, with all constants calculated.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Drop,
    /// Keep one in `n`.
    Sample {
        slot: u32,
        n: u32,
    },
    Queue {
        queue: u16,
        spill: Option<(u16, u16)>,
    },
    Spread {
        by: Spread,
        over: Queues,
        spill: bool,
    },
}

/// The source of the number that selects a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spread {
    Mod(Operand),
    HashFlow,
    HashLoad(Load),
    /// The hash of several keys, which are a part of [`Program::keys`].
    Hash(Part),
    RoundRobin {
        slot: u32,
    },
    Random,
    Cpu,
    RxQueue,
}

/// One argument of `hash`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key {
    Number(Operand),
    Bytes { from: u16, len: u16 },
    Address(AddressField),
    Flow,
}

/// A program: the nodes, the first of which is the entry, and the tables they refer to.
#[derive(Debug, Default, Clone)]
pub(crate) struct Program {
    pub(crate) nodes: Vec<Node>,
    pub(crate) steps: Vec<Step>,
    pub(crate) ranges: Vec<(u64, u64)>,
    pub(crate) addresses: Vec<(u128, u128)>,
    pub(crate) pool: Vec<u8>,
    pub(crate) keys: Vec<Key>,
    /// `(lowest value, successor)`, the first at 0.
    pub(crate) cases: Vec<(u64, NodeId)>,
    /// Number of queues of each `round_robin`, by slot.
    pub(crate) round_robins: Vec<u32>,
    /// Number of `sample` rules.
    pub(crate) samples: u32,
}

impl Program {
    /// The rule of each node. Nodes stand in the order of their rules, and each rule ends with its action.
    pub(crate) fn rule_of_nodes(&self) -> Vec<u16> {
        let mut rule = 0;
        let mut out: Vec<u16> = self
            .nodes
            .iter()
            .rev()
            .map(|node| {
                if let Node::Do { rule: this, .. } = node {
                    rule = *this;
                }
                rule
            })
            .collect();
        out.reverse();
        out
    }
}
