//! The typed rules: what a rule is when its mistakes are out, its types are known and its constants are folded.

use super::super::load::Load;
use super::super::operator::{BinOp, CmpOp};
use super::super::program::AddressField;
use super::super::queues::Queues;

/// A rule without mistakes.
#[derive(Debug)]
pub(crate) struct TypedRule {
    pub(crate) name: String,
    /// Canonical text.
    pub(crate) text: String,
    /// [`Condition::Always`] for a rule without a condition.
    pub(crate) condition: Condition,
    pub(crate) action: TypedAction,
    /// False for a `default` that no datagram reaches.
    pub(crate) reachable: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Condition {
    Always,
    Never,
    /// The value lies in one of the ranges, which are sorted and disjoint.
    Number {
        value: Value,
        ranges: Vec<(u64, u64)>,
    },
    Compare {
        op: CmpOp,
        left: Value,
        right: Value,
    },
    /// The payload bytes from an offset on are one of these strings, which are all of one length.
    Bytes {
        from: u16,
        any: Vec<Vec<u8>>,
    },
    /// The address lies in one of the ranges, which are sorted and disjoint. Both ends are included.
    Address {
        which: AddressField,
        ranges: Vec<(u128, u128)>,
    },
    /// Source and destination address are the same.
    SameAddress,
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
}

/// A number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    Const(u64),
    Load(Load),
    /// Operators of one precedence, from left to right.
    Chain {
        first: Box<Value>,
        rest: Vec<(BinOp, Value)>,
    },
}

#[derive(Debug)]
pub(crate) enum TypedAction {
    Drop,
    /// Keep one in this many.
    Sample(u32),
    Queue {
        queue: u16,
        spill: Option<(u16, u16)>,
    },
    Spread {
        by: TypedSpread,
        over: Queues,
        spill: bool,
    },
}

/// The source of the number that selects a queue.
#[derive(Debug)]
pub(crate) enum TypedSpread {
    Mod(Value),
    Hash(Vec<TypedKey>),
    RoundRobin,
    Random,
    Cpu,
    RxQueue,
}

/// One argument of `hash`.
#[derive(Debug)]
pub(crate) enum TypedKey {
    Number(Value),
    Bytes { from: u16, len: u16 },
    Address(AddressField),
    Flow,
}
