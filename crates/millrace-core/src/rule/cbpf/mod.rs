//! Program → classic BPF, for steering: the kernel runs it on each datagram, and it returns the queue's index.
//!
//! Classic BPF has a 32-bit accumulator A, an index register X, sixteen words of scratch memory, forward jumps, and no
//! calls. What fits is translated exactly; what does not is refused ([`Unsupported`]) and left to the evaluator. A load
//! beyond the packet would end the program with 0, so each is preceded by a check of the length, unless every way to it
//! has checked that much already.
//!
//! `frame` finds the headers, `value` calculates, `key` hashes and reduces; here are tests and their edges.

mod frame;
mod key;
mod value;

use super::RuleSet;
use super::ast::CmpOp;
use super::program::{Edges, Label as At, Load, Node, Operand, Program, Which};
use super::target::{self, Decide, Unsupported, Ways, Why};
use crate::bpf::classic::{Assembler, Label, MAX_INSNS, NEXT, code};
use frame::Layout;
use libc::sock_filter;

/// Where the program is attached, which decides what it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CbpfTarget {
    /// `PACKET_FANOUT_DATA` of a `PACKET_FANOUT_CBPF` group. Offset 0 is the network header of an incoming packet.
    ///
    /// Outgoing frames have their link header there: keep them out of the group (`PACKET_FANOUT_FLAG_IGNORE_OUTGOING`, a
    /// binding to an EtherType, or a filter). Loads count from offset 0 and not from `SKF_NET_OFF`, although that would
    /// be right in both directions: before Linux 6.16 the latter cannot read what lies in a packet's fragments, which is
    /// where many drivers put the payload.
    ///
    /// What is no whole UDP datagram gets 0, and so does one behind IPv6 extension headers, which a program without
    /// loops cannot skip.
    Fanout,
    /// `SO_ATTACH_REUSEPORT_CBPF`. Offset 0 is the UDP payload. The kernel does not reduce the result, so the program
    /// does: it returns the queue modulo `sockets`.
    ///
    /// What a rule drops, it leaves to the kernel's own hash, by an index beyond every group. Where IPv6 extension headers hide the ports from a rule set that looks at them, the program returns an index
    /// beyond every group too.
    Reuseport {
        /// Sockets in the group, at least 1.
        sockets: u16,
    },
}

/// What [`CbpfTarget::Reuseport`] returns for "whoever".
const BEYOND: u32 = u32::MAX;
/// `SKF_AD_RANDOM`: a load of a random word.
const AD_RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;

impl RuleSet {
    /// The classic BPF program that returns, for every datagram, the queue that [`RuleSet::evaluate`] would pick, before
    /// `spill`. A datagram that a rule drops may go anywhere, and goes to a random member, so that a flood of them burdens all alike.
    ///
    /// A super-packet (GSO, GRO) is steered as one datagram, by its first: the kernel cuts it up later.
    ///
    /// # Errors
    /// [`Unsupported`] with the first rule that classic BPF cannot express.
    pub fn to_cbpf(&self, target: CbpfTarget) -> Result<Vec<sock_filter>, Unsupported> {
        let program = &self.program;
        let rules = target::rules_of(program);
        let fail = |node: usize, why| self.unsupported(rules.get(node).copied().unwrap_or(0).into(), why);
        let mut compiler = Compiler::new(program, target);
        compiler.frame();
        for (index, node) in program.nodes.iter().enumerate() {
            compiler.node(index, node).map_err(|why| fail(index, why))?;
            if compiler.a.len() > MAX_INSNS {
                return Err(fail(index, too_long()));
            }
        }
        compiler.end();
        compiler.a.finish().ok_or_else(|| fail(program.nodes.len().saturating_sub(1), too_long()))
    }
}

fn too_long() -> Why {
    format!("up to here the rules make more than {MAX_INSNS} instructions, as many as a program may have")
}

/// A number to compare.
#[derive(Clone, Copy)]
enum Subject {
    /// In A, all of it.
    Narrow,
    /// The payload length, in A: what is learnt about it saves checks.
    Length,
    /// 64 bits in the payload, known to be there; read again for each comparison.
    Wide(Load),
}

struct Compiler<'p> {
    program: &'p Program,
    a: Assembler,
    layout: Layout,
    ways: Ways<Label>,
    /// Payload bytes that are known to be there at this place.
    known: u32,
    /// Scratch words in use, as a stack.
    used: u32,
    /// Where packets go that have no answer, and what the program returns for them.
    none: Option<(Label, u32)>,
    /// X holds where the UDP header begins.
    based: bool,
}

impl<'p> Compiler<'p> {
    fn new(program: &'p Program, target: CbpfTarget) -> Self {
        let (layout, used) = Layout::new(target, target::uses(program));
        let mut compiler = Compiler {
            program,
            a: Assembler::default(),
            layout,
            ways: Ways::new(program.nodes.len()),
            known: 0,
            used,
            none: None,
            based: false,
        };
        compiler.way(0);
        compiler
    }

    /// The way to a node from here, with what is known here.
    fn way(&mut self, node: At) -> Label {
        self.way_knowing(node, self.known)
    }

    fn way_knowing(&mut self, node: At, known: u32) -> Label {
        self.ways.way(node, known, || self.a.label())
    }

    fn goto(&mut self, node: At) {
        let to = self.way(node);
        self.a.goto(to);
    }

    fn place(&mut self, label: Label) {
        self.a.place(label);
        self.based = false;
    }

    fn node(&mut self, index: usize, node: &Node) -> Result<(), Why> {
        let Some((label, known)) = self.ways.arrive(index) else { return Ok(()) };
        self.place(label);
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
                for i in 0..4 {
                    self.address_word(Which::Src, i);
                    self.a.op(code::TAX, 0);
                    self.address_word(Which::Dst, i);
                    let no = self.way(to.no);
                    self.a.branch(code::JEQ | code::X, 0, NEXT, no);
                }
                self.goto(to.yes);
            }
            Node::Do { action, fail, .. } => match target::decide(action)? {
                Decide::Queue(queue) => match self.layout.target {
                    CbpfTarget::Fanout => self.a.ret(queue.into()),
                    CbpfTarget::Reuseport { sockets } => self.a.ret((queue % sockets.max(1)).into()),
                },
                Decide::Anyone => self.anyone(),
                Decide::Spread(by, over) => self.spread(by, over, *fail)?,
            },
        }
        Ok(())
    }

    fn anyone(&mut self) {
        match self.layout.target {
            CbpfTarget::Fanout => {
                self.a.load_word(AD_RANDOM);
                self.a.ret_a();
            }
            CbpfTarget::Reuseport { .. } => self.a.ret(BEYOND),
        }
    }

    /// Goes where a table says that the value leads.
    fn cases(&mut self, value: Operand, cases: &[(u64, At)], fail: At) -> Result<(), Why> {
        let subject = self.subject(value, fail)?;
        match subject {
            Subject::Wide(_) => self.search(subject, cases),
            // What 32 bits cannot reach is left out.
            _ => {
                let end = cases.partition_point(|(low, _)| *low <= u64::from(u32::MAX));
                self.search(subject, cases.get(..end).unwrap_or(cases));
            }
        }
        Ok(())
    }

    /// Binary search.
    fn search(&mut self, subject: Subject, cases: &[(u64, At)]) {
        match cases {
            [] => {}
            [(low, to)] => {
                let to = self.leaf(subject, *low, *to);
                self.a.goto(to);
            }
            // One number, and all others.
            [(_, no), (low, yes), (next, again)] if no == again && low.checked_add(1) == Some(*next) => {
                let (yes, no) = (self.leaf(subject, *low, *yes), self.leaf(subject, 0, *no));
                self.equal(subject, *low, yes, no);
            }
            _ => {
                let (left, right) = cases.split_at(cases.len() / 2);
                let pivot = right.first().map_or(0, |(low, _)| *low);
                let mut side = |part: &[(u64, At)]| match part {
                    [(low, to)] => (self.leaf(subject, *low, *to), false),
                    _ => (self.a.label(), true),
                };
                let ((no, more_left), (yes, more_right)) = (side(left), side(right));
                self.at_least(subject, pivot, yes, no);
                for (part, label, more) in [(left, no, more_left), (right, yes, more_right)] {
                    if more {
                        self.place(label);
                        self.search(subject, part);
                    }
                }
            }
        }
    }

    /// The way to a node for numbers from `low` on.
    fn leaf(&mut self, subject: Subject, low: u64, to: At) -> Label {
        let known = match subject {
            Subject::Length => self.known.max(low.min(u64::from(u32::MAX)) as u32),
            _ => self.known,
        };
        self.way_knowing(to, known)
    }

    fn equal(&mut self, subject: Subject, n: u64, yes: Label, no: Label) {
        if let Subject::Wide(load) = subject {
            self.wide_word(load, 0);
            self.a.branch(code::JEQ, (n >> 32) as u32, NEXT, no);
            self.wide_word(load, 1);
        }
        self.a.branch(code::JEQ, n as u32, yes, no);
    }

    fn at_least(&mut self, subject: Subject, n: u64, yes: Label, no: Label) {
        if let Subject::Wide(load) = subject {
            self.wide_word(load, 0);
            self.a.branch(code::JGT, (n >> 32) as u32, yes, NEXT);
            self.a.branch(code::JEQ, (n >> 32) as u32, NEXT, no);
            self.wide_word(load, 1);
        }
        self.a.branch(code::JGE, n as u32, yes, no);
    }

    fn compare(&mut self, op: CmpOp, left: Operand, right: Operand, to: Edges) -> Result<(), Why> {
        self.exact(left, to.fail)?;
        let kept = self.keep()?;
        self.exact(right, to.fail)?;
        self.tax();
        self.a.op(code::LD_MEM, kept);
        self.release();
        let (yes, no) = (self.way(to.yes), self.way(to.no));
        let (code, yes, no) = match op {
            CmpOp::Eq => (code::JEQ, yes, no),
            CmpOp::Ne => (code::JEQ, no, yes),
            CmpOp::Gt => (code::JGT, yes, no),
            CmpOp::Le => (code::JGT, no, yes),
            CmpOp::Ge => (code::JGE, yes, no),
            CmpOp::Lt => (code::JGE, no, yes),
        };
        self.a.branch(code | code::X, 0, yes, no);
        Ok(())
    }

    fn bytes(&mut self, from: u16, want: &[u8], to: Edges) {
        self.need(from, want.len(), to.fail);
        let no = self.way(to.no);
        let mut at = u32::from(from);
        let mut rest = want;
        while !rest.is_empty() {
            let width = [4, 2, 1].into_iter().find(|w| *w <= rest.len()).unwrap_or(1);
            let (now, later) = rest.split_at(width);
            self.payload(at, width);
            self.a.branch(code::JEQ, now.iter().fold(0, |n, b| n << 8 | u32::from(*b)), NEXT, no);
            (at, rest) = (at + width as u32, later);
        }
        self.goto(to.yes);
    }

    /// Sorted, disjoint ranges of addresses, one after the other.
    fn address(&mut self, which: Which, ranges: &[(u128, u128)], to: Edges) {
        for &(low, high) in ranges {
            let yes = self.way(to.yes);
            let other = self.a.label();
            self.address_range(which, target::words(low), target::words(high), yes, other);
            self.place(other);
        }
        self.goto(to.no);
    }

    /// `low <= address <= high`, word by word.
    fn address_range(&mut self, which: Which, low: [u32; 4], high: [u32; 4], yes: Label, no: Label) {
        let same = low.iter().zip(&high).take_while(|(l, h)| l == h).count();
        for (i, word) in low.iter().enumerate().take(same) {
            self.address_word(which, i);
            self.a.branch(code::JEQ, *word, NEXT, no);
        }
        let (Some(&bottom), Some(&top)) = (low.get(same), high.get(same)) else {
            return self.a.goto(yes);
        };
        self.address_word(which, same);
        self.a.branch(code::JGE, bottom, NEXT, no);
        self.a.branch(code::JGT, top, no, NEXT);
        // Strictly between the ends the words behind do not matter, and at a prefix's ends they do not either.
        let (at_low, at_high) = (self.a.label(), self.a.label());
        let behind = same + 1..4;
        let check_low = low.iter().skip(same + 1).any(|w| *w != 0);
        let check_high = high.iter().skip(same + 1).any(|w| *w != u32::MAX);
        if check_low {
            self.a.branch(code::JEQ, bottom, at_low, NEXT);
        }
        if check_high {
            self.a.branch(code::JEQ, top, at_high, NEXT);
        }
        self.a.goto(yes);
        for (check, label, end, decided, otherwise) in
            [(check_low, at_low, low, yes, no), (check_high, at_high, high, no, yes)]
        {
            if !check {
                continue;
            }
            // Greater than the end: `decided`; less: `otherwise`; equal in every word: inside.
            self.place(label);
            for (i, word) in end.iter().enumerate().take(behind.end).skip(behind.start) {
                self.address_word(which, i);
                self.a.branch(code::JGT, *word, decided, NEXT);
                self.a.branch(code::JEQ, *word, NEXT, otherwise);
            }
            self.a.goto(yes);
        }
    }
}
