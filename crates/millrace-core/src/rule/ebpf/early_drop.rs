//! Early drop: the rules that only drop and that stand before all others, run by the XDP program before a frame is
//! redirected. What this code does not drop, or cannot judge, is received as usual and meets the same rules again.

use super::super::kernel::HeaderFields;
use super::super::program::{Action, Node, NodeId};
use super::super::set::RuleSet;
use super::access::{MD_DATA_END, UDP_HEADER};
use super::compiler::{Access, Compiler};
use super::helpers;
use super::layout::{CTX, LENGTH, UDP, stack};
use crate::bpf::ebpf::{Alu, Assembler, Cond, Label, Reg, Size};

/// `XDP_DROP` in linux/bpf.h.
const XDP_DROP: i32 = 1;
/// Longest code for one address family, in instructions. Jumps reach 32,767 instructions, and the XDP program has this code
/// twice, for IPv4 and IPv6, with code of its own around it.
const MAX_LEN: usize = 12_000;

/// The rules of a set that an XDP program can carry out by itself.
#[derive(Debug, Clone, Copy)]
pub struct EarlyDrop<'r> {
    set: &'r RuleSet,
    /// Number of rules, from the first on.
    rules: u16,
    /// The first node behind them.
    end: NodeId,
}

impl RuleSet {
    /// The rules from the first on whose action is `drop`, as far as they read nothing but the datagram. `None` when there are
    /// none, or when their code is too long.
    pub fn early_drop(&self) -> Option<EarlyDrop<'_>> {
        let program = self.program();
        let (mut rules, mut end) = (0, 0);
        for (at, node) in program.nodes.iter().enumerate() {
            if let Node::Do { action, rule, .. } = node {
                if !matches!(action, Action::Drop) {
                    break;
                }
                (rules, end) = (rule.saturating_add(1), at as u32 + 1);
            }
        }
        let rule_of_nodes = program.rule_of_nodes();
        while rules > 0 {
            let early = EarlyDrop { set: self, rules, end };
            match early.first_unsupported() {
                None => return Some(early),
                // A rule that cannot be translated, because it reads what XDP does not know, ends the early drops before it.
                Some(node) => {
                    rules = rule_of_nodes.get(node).copied().unwrap_or(0).min(rules - 1);
                    end = rule_of_nodes.partition_point(|rule| *rule < rules) as u32;
                }
            }
        }
        None
    }
}

impl EarlyDrop<'_> {
    /// Number of rules, from the first of the set on. The counters' map needs as many entries.
    pub fn rules(&self) -> u16 {
        self.rules
    }

    /// The first node that cannot be translated; node 0 when the code is too long.
    fn first_unsupported(&self) -> Option<usize> {
        let mut a = Assembler::new();
        let exit = a.label();
        let mut compiler = self.compiler(&mut a, exit);
        let nodes = self.set.program().nodes.iter().enumerate().take(self.end as usize);
        let failed = nodes.into_iter().find_map(|(at, node)| compiler.node(at, node).is_err().then_some(at));
        failed.or_else(|| (a.len() > MAX_LEN).then_some(0))
    }

    fn compiler<'a>(&'a self, a: &'a mut Assembler, exit: Label) -> Compiler<'a, 'a> {
        let mut compiler = Compiler::new(a, self.set.program(), Access::Direct, exit);
        compiler.exit = Some((self.end, exit));
        compiler
    }

    /// Appends the rules to an XDP program. `R6` must hold its context, and `network` must point to an IPv4 header without
    /// options, or to an IPv6 header (`v6`), with UDP right behind it; the program must have checked that these 28 or 48 bytes
    /// are in the frame. The code returns `XDP_DROP`, counted by rule in the array map with the descriptor `counters`, or
    /// continues at `redirect`. It changes all registers but `R6` and `R10`.
    pub(crate) fn append(&self, a: &mut Assembler, network: Reg, v6: bool, counters: i32, redirect: Label) {
        let fields = HeaderFields::of(self.set.program());
        let mut compiler = self.compiler(a, redirect);
        compiler.whole_datagram(network, v6, redirect);
        for (used, slot, v4_at, v6_at) in
            [(fields.src, stack::SRC, -8, -32), (fields.dst, stack::DST, -4, -16)]
        {
            if used && v6 {
                for half in [0, 8] {
                    compiler.header(v6_at + half, 8);
                    compiler.a.be(Reg::R0, 64).store(Size::Double, Reg::R10, slot + half as i16, Reg::R0);
                }
            } else if used {
                compiler.header(v4_at, 4);
                compiler.store_mapped(slot);
            }
        }
        for (at, node) in self.set.program().nodes.iter().enumerate().take(self.end as usize) {
            // It cannot fail: `early_drop` has translated the same nodes.
            let _ = compiler.node(at, node);
        }
        let drops = std::mem::take(&mut compiler.drops);
        let count = a.label();
        for (rule, label) in drops {
            a.place(label).mov_imm(Reg::R1, rule.into()).jump(count);
        }
        a.place(count).store(Size::Word, Reg::R10, stack::BUFFER, Reg::R1);
        a.load_map(Reg::R1, counters).mov(Reg::R2, Reg::R10).add_imm(Reg::R2, stack::BUFFER.into());
        let gone = a.label();
        a.call(helpers::MAP_LOOKUP_ELEM).jump_if64(Reg::R0, Cond::Eq, 0, gone);
        a.mov_imm(Reg::R1, 1).atomic_add(Reg::R0, Reg::R1);
        a.place(gone).mov_imm(Reg::R0, XDP_DROP).exit();
    }
}

impl Compiler<'_, '_> {
    /// `UDP` ← pointer to the UDP header, `LENGTH` ← payload length. A datagram whose length fields are wrong continues at
    /// `redirect`: the receive loop counts it as malformed, and no rule ever sees it.
    fn whole_datagram(&mut self, network: Reg, v6: bool, redirect: Label) {
        let (header, total_at) = if v6 { (40, 4) } else { (20, 2) };
        self.a.mov(UDP, network).add_imm(UDP, header);
        // R7 ← bytes behind the IP header.
        self.a.load(Size::Half, Reg::R7, network, total_at).be16(Reg::R7);
        if !v6 {
            self.a.jump_if64(Reg::R7, Cond::Lt, header, redirect).add_imm(Reg::R7, -header);
        }
        self.a.load(Size::Half, LENGTH, network, header as i16 + 4).be16(LENGTH);
        if v6 {
            // RFC 2675 §4: a UDP length of zero means "to the end of the packet".
            let given = self.a.label();
            self.a.jump_if_not_zero(LENGTH, given).mov(LENGTH, Reg::R7).place(given);
        }
        self.a.jump_if64(LENGTH, Cond::Lt, UDP_HEADER, redirect).jump_if_reg(
            LENGTH,
            Cond::Gt,
            Reg::R7,
            redirect,
        );
        self.a.load(Size::Word, Reg::R3, CTX, MD_DATA_END);
        // The packet ends within the frame.
        self.a.alu_imm(Alu::And, Reg::R7, 0xffff).mov(Reg::R1, UDP).alu(Alu::Add, Reg::R1, Reg::R7);
        self.a.jump_if_reg(Reg::R1, Cond::Gt, Reg::R3, redirect).add_imm(LENGTH, -UDP_HEADER);
    }
}
