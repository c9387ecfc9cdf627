//! Program → eBPF: to steer a fanout group, and to drop early in XDP. All of the language's arithmetic is here, 64 bits
//! wide; what remains out of reach is what belongs to the receive thread ([`super::target::decide`]).
//!
//! `R6` is the context, `R7` a number, `R8` where the UDP header is, `R9` the payload's length; the stack holds what
//! has to survive a load, which may be a call.

mod drop;
mod frame;
mod key;
mod value;

use super::RuleSet;
use super::ast::CmpOp;
use super::program::{Edges, Label as At, Load, Node, Operand, Program, Which};
use super::target::{self, Decide, Unsupported, Ways, Why};
use crate::bpf::ebpf::{Assembler, Cond, Label, Reg, Size};

pub use drop::EarlyDrop;
pub(super) use frame::HELPER_LOAD_RELATIVE;

/// `bpf_get_prandom_u32` in `enum bpf_func_id`.
const HELPER_RANDOM: i32 = 7;

const CTX: Reg = Reg::R6;
const NUMBER: Reg = Reg::R7;
const UDP: Reg = Reg::R8;
const LENGTH: Reg = Reg::R9;

/// Where things lie on the stack, below the frame pointer.
mod stack {
    /// What a load reads into.
    pub(super) const BUFFER: i16 = -8;
    /// Addresses, in network order.
    pub(super) const SRC: i16 = -24;
    pub(super) const DST: i16 = -40;
    pub(super) const HASH: i16 = -48;
    /// The left side of a comparison.
    pub(super) const LEFT: i16 = -56;
    /// Values put aside, downwards.
    pub(super) const ASIDE: i16 = -64;
}

/// How the program reads packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// By `bpf_skb_load_bytes_relative`, counted from the network header.
    Relative,
    /// Through a pointer, compared with the end first.
    Direct,
}

impl RuleSet {
    /// The eBPF program (`BPF_PROG_TYPE_SOCKET_FILTER`, for `PACKET_FANOUT_EBPF`) that returns, for every datagram, the
    /// queue that [`RuleSet::evaluate`] would pick, before `spill`; for one that a rule drops, a random number. What is no
    /// whole UDP datagram gets 0, and so does one behind IPv6 extension headers.
    ///
    /// A super-packet (GSO, GRO) is steered as one datagram, by its first: the kernel cuts it up later.
    ///
    /// # Errors
    /// [`Unsupported`] with the first rule that belongs to the receive thread, or that makes the program too long for
    /// its jumps.
    pub fn to_ebpf(&self) -> Result<Vec<u64>, Unsupported> {
        let program = &self.program;
        let rules = target::rules_of(program);
        let fail = |node: usize, why| self.unsupported(rules.get(node).copied().unwrap_or(0).into(), why);
        let mut a = Assembler::new();
        // In the middle of a jump's reach, and before everything, so that the way back is short.
        let (start, none) = (a.label(), a.label());
        a.mov(CTX, Reg::R1).jump(start).place(none).mov_imm(Reg::R0, 0).exit().place(start);
        let mut compiler = Compiler::new(&mut a, program, Access::Relative, none);
        compiler.find_datagram(target::uses(program));
        for (index, node) in program.nodes.iter().enumerate() {
            compiler.node(index, node).map_err(|why| fail(index, why))?;
        }
        a.finish().map_err(|e| fail(program.nodes.len().saturating_sub(1), e.message))
    }
}

struct Compiler<'a, 'p> {
    program: &'p Program,
    a: &'a mut Assembler,
    access: Access,
    ways: Ways<Label>,
    /// Payload bytes that are known to be there at this place.
    known: u32,
    /// Where a load ends that fails although the length said it would not.
    none: Label,
    /// Where datagrams go that no early drop takes: the way to all nodes from this one on.
    keep: Option<(At, Label)>,
    /// Where each rule's early drop is counted.
    drops: Vec<(u16, Label)>,
}

impl<'a, 'p> Compiler<'a, 'p> {
    fn new(a: &'a mut Assembler, program: &'p Program, access: Access, none: Label) -> Self {
        let ways = Ways::new(program.nodes.len());
        let mut compiler =
            Compiler { program, a, access, ways, known: 0, none, keep: None, drops: Vec::new() };
        compiler.way(0);
        compiler
    }

    /// The way to a node from here, with what is known here.
    fn way(&mut self, node: At) -> Label {
        self.way_knowing(node, self.known)
    }

    fn way_knowing(&mut self, node: At, known: u32) -> Label {
        match self.keep {
            Some((from, keep)) if node >= from => keep,
            _ => self.ways.way(node, known, || self.a.label()),
        }
    }

    fn goto(&mut self, node: At) {
        let to = self.way(node);
        self.a.jump(to);
    }

    fn node(&mut self, index: usize, node: &Node) -> Result<(), Why> {
        let Some((label, known)) = self.ways.arrive(index) else { return Ok(()) };
        self.a.place(label);
        self.known = known;
        match node {
            Node::Goto(to) => self.goto(*to),
            Node::Range { value, low, span, to } => {
                let cases = target::range_cases(*low, low.saturating_add(*span), to.yes, to.no);
                self.cases(*value, &cases, to.fail)?;
            }
            Node::Set { value, ranges, to } => {
                let cases = target::set_cases(target::slice(&self.program.ranges, *ranges), to.yes, to.no);
                self.cases(*value, &cases, to.fail)?;
            }
            Node::Switch { load, cases, fail } => {
                self.cases(Operand::Load(*load), target::slice(&self.program.cases, *cases), *fail)?;
            }
            Node::Compare { op, left, right, to } => self.compare(*op, *left, *right, *to)?,
            Node::Bytes { from, pool, to } => {
                self.bytes(*from, target::slice(&self.program.pool, *pool), *to);
            }
            Node::Address { which, ranges, to } => {
                self.address(*which, target::slice(&self.program.addresses, *ranges), *to);
            }
            Node::SameAddress { to } => {
                let no = self.way(to.no);
                for half in [0, 8] {
                    self.a.load(Size::Double, Reg::R0, Reg::R10, stack::SRC + half);
                    self.a.load(Size::Double, Reg::R1, Reg::R10, stack::DST + half);
                    self.a.jump_if_reg(Reg::R0, Cond::Ne, Reg::R1, no);
                }
                self.goto(to.yes);
            }
            Node::Do { action: super::program::Action::Drop, rule, .. } if self.keep.is_some() => {
                let count = self.a.label();
                self.a.jump(count);
                self.drops.push((*rule, count));
            }
            Node::Do { action, fail, .. } => match target::decide(action)? {
                Decide::Queue(queue) => {
                    self.a.mov_imm(Reg::R0, queue.into()).exit();
                }
                Decide::Spread(by, over) => self.spread(by, over, *fail)?,
                Decide::Anyone => {
                    self.a.call(HELPER_RANDOM).exit();
                }
            },
        }
        Ok(())
    }

    /// Goes where a table says that the value leads.
    fn cases(&mut self, value: Operand, cases: &[(u64, At)], fail: At) -> Result<(), Why> {
        self.value(value, fail)?;
        self.search(matches!(value, Operand::Load(Load::Len)), cases);
        Ok(())
    }

    /// Binary search for the number; what is learnt about a length saves checks.
    fn search(&mut self, length: bool, cases: &[(u64, At)]) {
        match cases {
            [] => {}
            [(low, to)] => {
                let to = self.leaf(length, *low, *to);
                self.a.jump(to);
            }
            // One number, and all others.
            [(_, no), (low, yes), (next, again)] if no == again && low.checked_add(1) == Some(*next) => {
                let (yes, no) = (self.leaf(length, *low, *yes), self.leaf(length, 0, *no));
                self.jump_if(NUMBER, Cond::Eq, *low, yes);
                self.a.jump(no);
            }
            _ => {
                let (left, right) = cases.split_at(cases.len() / 2);
                let pivot = right.first().map_or(0, |(low, _)| *low);
                let upper = match right {
                    [(low, to)] => self.leaf(length, *low, *to),
                    _ => self.a.label(),
                };
                self.jump_if(NUMBER, Cond::Ge, pivot, upper);
                self.search(length, left);
                if right.len() > 1 {
                    self.a.place(upper);
                    self.search(length, right);
                }
            }
        }
    }

    fn leaf(&mut self, length: bool, low: u64, to: At) -> Label {
        let known = if length { self.known.max(low.min(u64::from(u32::MAX)) as u32) } else { self.known };
        self.way_knowing(to, known)
    }

    /// Jumps when the register compares with any constant. Changes `R1`.
    fn jump_if(&mut self, reg: Reg, cond: Cond, n: u64, to: Label) {
        match i32::try_from(n) {
            Ok(n) => self.a.jump_if64(reg, cond, n, to),
            Err(_) => self.a.mov_imm64(Reg::R1, n).jump_if_reg(reg, cond, Reg::R1, to),
        };
    }

    fn compare(&mut self, op: CmpOp, left: Operand, right: Operand, to: Edges) -> Result<(), Why> {
        self.value(left, to.fail)?;
        self.a.store(Size::Double, Reg::R10, stack::LEFT, NUMBER);
        self.value(right, to.fail)?;
        self.a.load(Size::Double, Reg::R0, Reg::R10, stack::LEFT);
        let (yes, no) = (self.way(to.yes), self.way(to.no));
        let cond = match op {
            CmpOp::Eq => Cond::Eq,
            CmpOp::Ne => Cond::Ne,
            CmpOp::Lt => Cond::Lt,
            CmpOp::Le => Cond::Le,
            CmpOp::Gt => Cond::Gt,
            CmpOp::Ge => Cond::Ge,
        };
        self.a.jump_if_reg(Reg::R0, cond, NUMBER, yes).jump(no);
        Ok(())
    }

    fn bytes(&mut self, from: u16, want: &[u8], to: Edges) {
        self.need(from, want.len(), to.fail);
        let no = self.way(to.no);
        let mut at = u32::from(from);
        let mut rest = want;
        while !rest.is_empty() {
            let width = [8, 4, 2, 1].into_iter().find(|w| *w <= rest.len()).unwrap_or(1);
            let (now, later) = rest.split_at(width);
            self.payload(at, width, true);
            let word = now.iter().fold(0, |n, b| n << 8 | u64::from(*b));
            self.jump_if(Reg::R0, Cond::Ne, word, no);
            (at, rest) = (at + width as u32, later);
        }
        self.goto(to.yes);
    }

    /// Sorted, disjoint ranges of addresses, one after the other.
    fn address(&mut self, which: Which, ranges: &[(u128, u128)], to: Edges) {
        let at = match which {
            Which::Src => stack::SRC,
            Which::Dst => stack::DST,
        };
        let half = |n: u128| ((n >> 64) as u64, n as u64);
        self.a.load(Size::Double, Reg::R2, Reg::R10, at).be(Reg::R2, 64);
        self.a.load(Size::Double, Reg::R3, Reg::R10, at + 8).be(Reg::R3, 64);
        let yes = self.way(to.yes);
        for &(low, high) in ranges {
            let other = self.a.label();
            let ((low_upper, low_lower), (high_upper, high_lower)) = (half(low), half(high));
            let (not_low, inside) = (self.a.label(), self.a.label());
            self.jump_if(Reg::R2, Cond::Lt, low_upper, other);
            self.jump_if(Reg::R2, Cond::Ne, low_upper, not_low);
            self.jump_if(Reg::R3, Cond::Lt, low_lower, other);
            self.a.place(not_low);
            self.jump_if(Reg::R2, Cond::Gt, high_upper, other);
            self.jump_if(Reg::R2, Cond::Ne, high_upper, inside);
            self.jump_if(Reg::R3, Cond::Gt, high_lower, other);
            self.a.place(inside).jump(yes).place(other);
        }
        self.goto(to.no);
    }
}
