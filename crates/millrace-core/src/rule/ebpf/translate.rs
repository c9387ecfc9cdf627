//! Goes through the nodes of a program.

use super::super::kernel::{
    HeaderFields, KernelAction, Reason, Unsupported, range_cases, set_cases, unsupported,
};
use super::super::program::{Action, Node, Operand};
use super::super::set::RuleSet;
use super::compiler::{Access, Compiler};
use super::helpers;
use super::layout::CTX;
use crate::bpf::ebpf::{Assembler, Reg};

impl RuleSet {
    /// The eBPF program (`BPF_PROG_TYPE_SOCKET_FILTER`, for `PACKET_FANOUT_EBPF`) that returns, for every datagram, the
    /// queue that [`RuleSet::evaluate`] would choose before `spill`, and a random number for one that a rule drops. It returns
    /// 0 for what is not a whole UDP datagram, and for one behind IPv6 extension headers.
    ///
    /// A super-packet (GSO, GRO) is steered whole, by its first datagram: the kernel segments it later.
    ///
    /// # Errors
    /// [`Unsupported`] with the first rule that belongs to the receive thread, or that makes the program too long for
    /// its jumps.
    pub fn to_ebpf(&self) -> Result<Vec<u64>, Unsupported> {
        let program = self.program();
        let rules = program.rule_of_nodes();
        let fail = |node: usize, reason| unsupported(self, rules.get(node).copied().unwrap_or(0), reason);
        let mut a = Assembler::new();
        // The return for packets without a queue stands first. A jump reaches 32,767 instructions in both directions, so it is
        // in reach of a program of that length.
        let (start, none) = (a.label(), a.label());
        a.mov(CTX, Reg::R1).jump(start).place(none).mov_imm(Reg::R0, 0).exit().place(start);
        let mut compiler = Compiler::new(&mut a, program, Access::Relative, none);
        compiler.find_datagram(HeaderFields::of(program));
        for (index, node) in program.nodes.iter().enumerate() {
            compiler.node(index, node).map_err(|reason| fail(index, reason))?;
        }
        a.finish().map_err(|e| fail(program.nodes.len().saturating_sub(1), e.message))
    }
}

impl Compiler<'_, '_> {
    /// Translates a node, unless no path leads to it.
    pub(super) fn node(&mut self, index: usize, node: &Node) -> Result<(), Reason> {
        let Some((label, min_len)) = self.labels.entry(index) else { return Ok(()) };
        self.a.place(label);
        self.min_len = min_len;
        match node {
            Node::Goto(to) => self.goto(*to),
            Node::Range { value, low, span, to } => {
                let cases = range_cases(*low, low.saturating_add(*span), to.yes, to.no);
                self.cases(*value, &cases, to.fail)?;
            }
            Node::Set { value, ranges, to } => {
                let cases = set_cases(ranges.of(&self.program.ranges), to.yes, to.no);
                self.cases(*value, &cases, to.fail)?;
            }
            Node::Switch { load, cases, fail } => {
                self.cases(Operand::Load(*load), cases.of(&self.program.cases), *fail)?;
            }
            Node::Compare { op, left, right, to } => self.compare(*op, *left, *right, *to)?,
            Node::Bytes { from, pool, to } => {
                self.bytes(*from, pool.of(&self.program.pool), *to);
            }
            Node::Address { which, ranges, to } => {
                self.address(*which, ranges.of(&self.program.addresses), *to);
            }
            Node::SameAddress { to } => self.same_address(*to),
            Node::Do { action: Action::Drop, rule, .. } if self.exit.is_some() => {
                let count = self.a.label();
                self.a.jump(count);
                self.drops.push((*rule, count));
            }
            Node::Do { action, fail, .. } => match KernelAction::of(action)? {
                KernelAction::Queue(queue) => {
                    self.a.mov_imm(Reg::R0, queue.into()).exit();
                }
                KernelAction::Spread(by, over) => self.spread(by, over, *fail)?,
                KernelAction::AnyMember => {
                    self.a.call(helpers::GET_PRANDOM_U32).exit();
                }
            },
        }
        Ok(())
    }
}
