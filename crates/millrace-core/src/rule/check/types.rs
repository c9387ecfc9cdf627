//! The typed tree: what a rule is once its mistakes are out.

use super::super::ast::{BinOp, CmpOp};
use super::super::program::{Load, Queues, Which};

/// A rule without mistakes.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) name: String,
    pub(crate) text: String,
    /// [`Cond::Always`]: unconditional.
    pub(crate) cond: Cond,
    pub(crate) action: Act,
    /// False for a `default` that no datagram reaches.
    pub(crate) reached: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Cond {
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
    /// The bytes are one of these, all of one length.
    Bytes {
        from: u16,
        any: Vec<Vec<u8>>,
    },
    Address {
        which: Which,
        ranges: Vec<(u128, u128)>,
    },
    SameAddress,
    And(Vec<Cond>),
    Or(Vec<Cond>),
    Not(Box<Cond>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    Const(u64),
    Load(Load),
    Chain { first: Box<Value>, rest: Vec<(BinOp, Value)> },
}

#[derive(Debug)]
pub(crate) enum Act {
    Drop,
    Sample(u32),
    Queue { queue: u16, spill: Option<(u16, u16)> },
    Spread { by: By, over: Queues, spill: bool },
}

#[derive(Debug)]
pub(crate) enum By {
    Mod(Value),
    Hash(Vec<Part>),
    RoundRobin,
    Random,
    Cpu,
    RxQueue,
}

#[derive(Debug)]
pub(crate) enum Part {
    Number(Value),
    Bytes { from: u16, len: u16 },
    Address(Which),
    Flow,
}
