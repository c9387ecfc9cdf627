//! What the evaluator runs, and what the BPF compilers will read: one flat graph of tests and actions whose edges all
//! point forward. Boolean operators are gone: they became edges. A test has three ways out: yes, no, and `fail`, which
//! it takes when it reads beyond the datagram or divides by zero, and which always leads to the next rule.

use super::ast::{BinOp, CmpOp};
use std::num::NonZeroU64;

/// Index into [`Program::nodes`].
pub(crate) type Label = u32;

/// A number that can be had with one access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Load {
    U8(u16),
    U16(u16),
    U32(u16),
    U64(u16),
    U16Le(u16),
    U32Le(u16),
    U64Le(u16),
    Len,
    SrcPort,
    DstPort,
    RxQueue,
    Cpu,
}

/// The largest UDP payload: 65,535 bytes of UDP length less its header.
pub(crate) const MAX_PAYLOAD: u64 = 65_527;

impl Load {
    /// The largest value it can have.
    pub(crate) fn max(self) -> u64 {
        match self {
            Load::U8(_) => 0xff,
            Load::U16(_) | Load::U16Le(_) | Load::SrcPort | Load::DstPort | Load::RxQueue | Load::Cpu => {
                0xffff
            }
            Load::U32(_) | Load::U32Le(_) => 0xffff_ffff,
            Load::U64(_) | Load::U64Le(_) => u64::MAX,
            Load::Len => MAX_PAYLOAD,
        }
    }

    /// Bytes a datagram must have for it.
    pub(crate) fn need(self) -> u64 {
        match self {
            Load::U8(at) => u64::from(at) + 1,
            Load::U16(at) | Load::U16Le(at) => u64::from(at) + 2,
            Load::U32(at) | Load::U32Le(at) => u64::from(at) + 4,
            Load::U64(at) | Load::U64Le(at) => u64::from(at) + 8,
            Load::Len | Load::SrcPort | Load::DstPort | Load::RxQueue | Load::Cpu => 0,
        }
    }
}

/// A slice of one of the program's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// A number: one access, or a calculation of [`Step`]s.
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

/// Values that a calculation may have to put aside at the same time.
pub(crate) const MAX_TEMPORARIES: usize = 8;

/// Where a test leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edges {
    pub(crate) yes: Label,
    pub(crate) no: Label,
    pub(crate) fail: Label,
}

/// Which address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Which {
    Src,
    Dst,
}

/// A test, or an action.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Node {
    Goto(Label),
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
    /// Two values.
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
        which: Which,
        ranges: Part,
        to: Edges,
    },
    /// Source and destination address are the same.
    SameAddress {
        to: Edges,
    },
    /// The first of many tests on one load, all at once: [`Program::cases`] in `cases` partition the number line.
    Switch {
        load: Load,
        cases: Part,
        fail: Label,
    },
    /// The end of a rule. `fail`: the key could not be read, or `sample` keeps the datagram.
    Do {
        action: Action,
        rule: u16,
        fail: Label,
    },
}

/// What to do; everything that can be known beforehand is.
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

/// Where the number comes from that picks a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spread {
    Mod(Operand),
    HashFlow,
    HashLoad(Load),
    /// [`Program::keys`].
    Hash(Part),
    RoundRobin {
        slot: u32,
    },
    Random,
    Cpu,
    RxQueue,
}

/// One part of a hash key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key {
    Number(Operand),
    Bytes { from: u16, len: u16 },
    Address(Which),
    Flow,
}

/// `first..first + count`, with what it takes to reduce a number to it without a division.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queues {
    pub(crate) first: u16,
    count: NonZeroU64,
    /// `⌈2^64 / count⌉` modulo 2^64: Lemire's remainder by multiplication, exact for 32-bit numbers.
    magic: u64,
}

impl Queues {
    /// `first..=last`; an empty range counts as one queue.
    pub(crate) fn new(first: u16, last: u16) -> Self {
        let count = NonZeroU64::MIN.saturating_add(u64::from(last.saturating_sub(first)));
        Queues { first, count, magic: (u64::MAX / count).wrapping_add(1) }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.get()
    }

    pub(crate) fn last(&self) -> u16 {
        self.first.saturating_add((self.count.get() - 1) as u16)
    }

    /// `first + value % count`
    #[inline(always)]
    pub(crate) fn pick(&self, value: u64) -> u16 {
        let rest = if value <= u64::from(u32::MAX) {
            let low = u128::from(self.magic.wrapping_mul(value));
            ((low * u128::from(self.count.get())) >> 64) as u16
        } else {
            (value % self.count) as u16
        };
        self.first.wrapping_add(rest)
    }
}

/// A compiled rule set.
#[derive(Debug, Default, Clone)]
pub(crate) struct Program {
    pub(crate) nodes: Vec<Node>,
    pub(crate) steps: Vec<Step>,
    pub(crate) ranges: Vec<(u64, u64)>,
    pub(crate) addresses: Vec<(u128, u128)>,
    pub(crate) pool: Vec<u8>,
    pub(crate) keys: Vec<Key>,
    /// `(lowest value, where to)`, the first at 0.
    pub(crate) cases: Vec<(u64, Label)>,
    /// Number of queues of each `round_robin`, by slot.
    pub(crate) round_robins: Vec<u32>,
    /// Number of `sample` rules.
    pub(crate) samples: u32,
}
