//! Goes through the nodes of a program, from prologue to epilogue.

use super::super::kernel::{KernelAction, Reason, Unsupported, range_cases, set_cases, unsupported};
use super::super::program::{Node, Operand};
use super::super::set::RuleSet;
use super::compiler::Compiler;
use super::target::{CbpfTarget, NO_MEMBER};
use crate::bpf::classic::MAX_INSNS;
use libc::sock_filter;

/// `SKF_AD_RANDOM`: a load from there gives a random word.
const AD_RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;

impl RuleSet {
    /// The classic BPF program that returns, for every datagram, the queue that [`RuleSet::evaluate`] would choose before
    /// `spill`. A datagram that a rule drops may go to any member; it goes to a random one, so that a flood of them loads all
    /// alike.
    ///
    /// A super-packet (GSO, GRO) is steered whole, by its first datagram: the kernel segments it later.
    ///
    /// # Errors
    /// [`Unsupported`] with the first rule that classic BPF cannot express.
    pub fn to_cbpf(&self, target: CbpfTarget) -> Result<Vec<sock_filter>, Unsupported> {
        let program = self.program();
        let rules = program.rule_of_nodes();
        let fail = |node: usize, reason| unsupported(self, rules.get(node).copied().unwrap_or(0), reason);
        let mut compiler = Compiler::new(program, target);
        compiler.prologue();
        for (index, node) in program.nodes.iter().enumerate() {
            compiler.node(index, node).map_err(|reason| fail(index, reason))?;
            if compiler.a.len() > MAX_INSNS {
                return Err(fail(index, too_long()));
            }
        }
        compiler.epilogue();
        compiler.a.finish().ok_or_else(|| fail(program.nodes.len().saturating_sub(1), too_long()))
    }
}

fn too_long() -> Reason {
    format!("up to here the rules make more than {MAX_INSNS} instructions, as many as a program may have")
}

impl Compiler<'_> {
    /// Translates a node, unless no path leads to it.
    fn node(&mut self, index: usize, node: &Node) -> Result<(), Reason> {
        let Some((label, min_len)) = self.labels.entry(index) else { return Ok(()) };
        self.place(label);
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
            Node::Do { action, fail, .. } => match KernelAction::of(action)? {
                KernelAction::Queue(queue) => match self.layout.target {
                    CbpfTarget::Fanout => self.a.ret(queue.into()),
                    CbpfTarget::Reuseport { sockets } => self.a.ret((queue % sockets.max(1)).into()),
                },
                KernelAction::AnyMember => self.any_member(),
                KernelAction::Spread(by, over) => self.spread(by, over, *fail)?,
            },
        }
        Ok(())
    }

    /// Returns any member of the group.
    fn any_member(&mut self) {
        match self.layout.target {
            CbpfTarget::Fanout => {
                self.a.load_word(AD_RANDOM);
                self.a.ret_a();
            }
            CbpfTarget::Reuseport { .. } => self.a.ret(NO_MEMBER),
        }
    }
}
