//! Runs a [`Program`] on one datagram: no allocation, no panic, no indirect call.

use super::facts::Facts;
use super::hash;
use super::load::Load;
use super::operator::BinOp;
use super::program::{
    Action, AddressField, Edges, Key, MAX_TEMPORARIES, Node, NodeId, Operand, Part, Program, Spread, Step,
};
use super::queues::Queues;
use super::state::RuleState;
use super::verdict::Verdict;

/// The fast path of a rule set whose first rule is `mod(u32[at])`: the most common one, and small enough to be inlined into
/// the receive loop.
#[derive(Debug)]
pub(crate) struct FastPath {
    /// The shortest payload it decides about, in bytes: four more than the offset.
    end: usize,
    over: Queues,
    spill: Option<(u16, u16)>,
}

impl FastPath {
    /// The fast path of a program, if it has one.
    pub(crate) fn of(program: &Program) -> Option<FastPath> {
        match program.nodes.first()? {
            Node::Do {
                action: Action::Spread { by: Spread::Mod(Operand::Load(Load::U32(at))), over, spill },
                ..
            } => Some(FastPath {
                end: usize::from(*at) + 4,
                over: *over,
                spill: spill.then(|| (over.first, over.last())),
            }),
            _ => None,
        }
    }

    /// `None` when the datagram is too short, and the program decides.
    #[inline(always)]
    pub(crate) fn evaluate(&self, facts: &Facts<'_>) -> Option<Verdict> {
        let key = u32::from_be_bytes(*facts.payload.get(..self.end)?.last_chunk()?);
        Some(Verdict::Queue { queue: self.over.select(u64::from(key)), spill: self.spill, key, rule: 0 })
    }
}

impl Program {
    /// Follows the graph from its first node to an action.
    #[inline(never)]
    pub(crate) fn run(&self, facts: &Facts<'_>, state: &mut RuleState) -> Verdict {
        let mut at: NodeId = 0;
        // Edges only point forward, and the last rule cannot fail, so this ends. Should the lowering ever have a bug, a
        // wrong queue is better than a panic, hence `get` and not an index.
        while let Some(node) = self.nodes.get(at as usize) {
            at = match node {
                Node::Range { value, low, span, to } => match self.number(*value, facts) {
                    Some(v) => to.follow(v.wrapping_sub(*low) <= *span),
                    None => to.fail,
                },
                Node::Do { action, rule, fail } => match self.execute(action, *rule, facts, state) {
                    Some(verdict) => return verdict,
                    None => *fail,
                },
                Node::Switch { load, cases, fail } => match read(*load, facts) {
                    Some(v) => {
                        let cases = cases.of(&self.cases);
                        let i = cases.partition_point(|(low, _)| *low <= v).wrapping_sub(1);
                        cases.get(i).map_or(*fail, |(_, to)| *to)
                    }
                    None => *fail,
                },
                Node::Set { value, ranges, to } => match self.number(*value, facts) {
                    Some(v) => to.follow(within(ranges.of(&self.ranges), v)),
                    None => to.fail,
                },
                Node::Bytes { from, pool, to } => {
                    let want = pool.of(&self.pool);
                    match bytes(facts, *from, want.len()) {
                        Some(have) => to.follow(have == want),
                        None => to.fail,
                    }
                }
                Node::Address { which, ranges, to } => {
                    let addr = u128::from_be_bytes(*address(*which, facts));
                    to.follow(within(ranges.of(&self.addresses), addr))
                }
                Node::Compare { op, left, right, to } => {
                    match (self.number(*left, facts), self.number(*right, facts)) {
                        (Some(a), Some(b)) => to.follow(op.apply(a, b)),
                        _ => to.fail,
                    }
                }
                Node::SameAddress { to } => to.follow(facts.src == facts.dst),
                Node::Goto(to) => *to,
            };
        }
        Verdict::Queue { queue: 0, spill: None, key: 0, rule: 0 }
    }

    /// The verdict of an action; `None` when its key cannot be read, or `sample` keeps the datagram.
    #[inline(always)]
    pub(super) fn execute(
        &self,
        action: &Action,
        rule: u16,
        facts: &Facts<'_>,
        state: &mut RuleState,
    ) -> Option<Verdict> {
        match action {
            Action::Spread { by, over, spill } => {
                let (number, key) = self.spread(by, over, facts, state)?;
                let spill = if *spill { Some((over.first, over.last())) } else { None };
                Some(Verdict::Queue { queue: over.select(number), spill, key, rule })
            }
            Action::Queue { queue, spill } => {
                Some(Verdict::Queue { queue: *queue, spill: *spill, key: 0, rule })
            }
            Action::Drop => Some(Verdict::Drop { rule }),
            Action::Sample { slot, n } => {
                if state.keeps_sample(*slot as usize, *n) {
                    None
                } else {
                    Some(Verdict::Drop { rule })
                }
            }
        }
    }

    /// The number to reduce to a queue, and the key to report.
    #[inline(always)]
    fn spread(
        &self,
        by: &Spread,
        over: &Queues,
        facts: &Facts<'_>,
        state: &mut RuleState,
    ) -> Option<(u64, u32)> {
        let hash = match by {
            Spread::Mod(value) => {
                let v = self.number(*value, facts)?;
                return Some((v, v as u32));
            }
            Spread::RoundRobin { slot } => {
                return Some((u64::from(state.next_turn(*slot as usize, over.count() as u32)), 0));
            }
            Spread::Random => return Some((u64::from(state.random()), 0)),
            Spread::Cpu => return Some((u64::from(facts.cpu), 0)),
            Spread::RxQueue => return Some((u64::from(facts.rx_queue), 0)),
            Spread::HashFlow => flow(hash::SEED, facts),
            Spread::HashLoad(load) => hash::number(hash::SEED, read(*load, facts)?),
            Spread::Hash(keys) => self.hash(*keys, facts)?,
        };
        let key = hash::finish(hash);
        Some((u64::from(key), key))
    }

    // Out of line, like `calculate`: inlined, the loops would take registers and stack from every decision.
    #[inline(never)]
    fn hash(&self, keys: Part, facts: &Facts<'_>) -> Option<u32> {
        let mut h = hash::SEED;
        for key in keys.of(&self.keys) {
            h = match key {
                Key::Number(value) => hash::number(h, self.number(*value, facts)?),
                Key::Bytes { from, len } => hash::bytes(h, bytes(facts, *from, usize::from(*len))?),
                Key::Address(which) => hash::address(h, address(*which, facts)),
                Key::Flow => flow(h, facts),
            };
        }
        Some(h)
    }

    #[inline(always)]
    pub(super) fn number(&self, value: Operand, facts: &Facts<'_>) -> Option<u64> {
        match value {
            Operand::Load(load) => read(load, facts),
            Operand::Code(code) => self.calculate(code, facts),
        }
    }

    #[inline(never)]
    fn calculate(&self, code: Part, facts: &Facts<'_>) -> Option<u64> {
        let mut acc = 0u64;
        let mut stack = [0u64; MAX_TEMPORARIES];
        let mut depth = 0usize;
        for step in code.of(&self.steps) {
            acc = match step {
                Step::Load(load) => read(*load, facts)?,
                Step::Const(n) => *n,
                Step::Imm(op, n) => apply(*op, acc, *n)?,
                Step::With(op, load) => apply(*op, acc, read(*load, facts)?)?,
                Step::Push => {
                    *stack.get_mut(depth)? = acc;
                    depth += 1;
                    acc
                }
                Step::Pop(op) => {
                    depth = depth.checked_sub(1)?;
                    apply(*op, *stack.get(depth)?, acc)?
                }
            };
        }
        Some(acc)
    }
}

#[inline(always)]
fn apply(op: BinOp, a: u64, b: u64) -> Option<u64> {
    op.apply(a, b)
}

impl Edges {
    #[inline(always)]
    fn follow(&self, yes: bool) -> NodeId {
        // This must be a jump and not a conditional move. The CPU predicts a jump and fetches the next node at once; a
        // move would make every test wait for the one before.
        if yes {
            unlikely();
            self.yes
        } else {
            self.no
        }
    }
}

/// Marks a branch as one that the compiler should not fold into a conditional move.
#[cold]
#[inline(always)]
fn unlikely() {}

/// Binary search in sorted, disjoint ranges.
#[inline]
pub(super) fn within<T: Ord + Copy>(ranges: &[(T, T)], value: T) -> bool {
    let i = ranges.partition_point(|(low, _)| *low <= value);
    i.checked_sub(1).and_then(|i| ranges.get(i)).is_some_and(|(_, high)| value <= *high)
}

#[inline(always)]
fn at<const N: usize>(facts: &Facts<'_>, offset: u16) -> Option<[u8; N]> {
    facts.payload.get(usize::from(offset)..)?.first_chunk().copied()
}

#[inline(always)]
pub(super) fn bytes<'a>(facts: &Facts<'a>, from: u16, len: usize) -> Option<&'a [u8]> {
    facts.payload.get(usize::from(from)..usize::from(from) + len)
}

#[inline(always)]
fn read(load: Load, facts: &Facts<'_>) -> Option<u64> {
    Some(match load {
        Load::U8(o) => u64::from(*facts.payload.get(usize::from(o))?),
        Load::U16(o) => u64::from(u16::from_be_bytes(at(facts, o)?)),
        Load::U32(o) => u64::from(u32::from_be_bytes(at(facts, o)?)),
        Load::U64(o) => u64::from_be_bytes(at(facts, o)?),
        Load::U16Le(o) => u64::from(u16::from_le_bytes(at(facts, o)?)),
        Load::U32Le(o) => u64::from(u32::from_le_bytes(at(facts, o)?)),
        Load::U64Le(o) => u64::from_le_bytes(at(facts, o)?),
        Load::Len => facts.payload.len() as u64,
        Load::SrcPort => u64::from(facts.src_port),
        Load::DstPort => u64::from(facts.dst_port),
        Load::RxQueue => u64::from(facts.rx_queue),
        Load::Cpu => u64::from(facts.cpu),
    })
}

#[inline(always)]
pub(super) fn address<'f>(which: AddressField, facts: &'f Facts<'_>) -> &'f [u8; 16] {
    match which {
        AddressField::Src => &facts.src,
        AddressField::Dst => &facts.dst,
    }
}

#[inline(always)]
fn flow(state: u32, facts: &Facts<'_>) -> u32 {
    hash::flow(state, &facts.src, &facts.dst, facts.src_port, facts.dst_port)
}
