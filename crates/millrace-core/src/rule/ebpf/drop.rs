//! Early drop: the rules that only drop and that stand before all others, run by the XDP program before a frame is
//! redirected. What it does not drop, or cannot judge, goes the usual way and meets the same rules again.

use super::super::RuleSet;
use super::super::program::{Action, Node};
use super::super::target;
use super::{Access, CTX, Compiler, LENGTH, UDP, stack};
use crate::bpf::ebpf::{Alu, Assembler, Cond, Label, Reg, Size};

/// `bpf_map_lookup_elem` in `enum bpf_func_id`.
const HELPER_MAP_LOOKUP: i32 = 1;
/// `XDP_DROP`.
const DROP: i32 = 1;
/// `xdp_md.data_end`.
const MD_DATA_END: i16 = 4;
const UDP_HEADER: i32 = 8;

/// The rules of a set that an XDP program can carry out by itself.
#[derive(Debug, Clone, Copy)]
pub struct EarlyDrop<'r> {
    set: &'r RuleSet,
    /// How many rules, from the first on.
    rules: u16,
    /// The first node behind them.
    end: u32,
}

impl RuleSet {
    /// The rules that may be run before anything else: those from the first on whose action is `drop`, as far as they
    /// look only at the datagram. `None` when there are none, or when they are too many for one program.
    pub fn early_drop(&self) -> Option<EarlyDrop<'_>> {
        let program = &self.program;
        let (mut rules, mut end) = (0, 0);
        for (at, node) in program.nodes.iter().enumerate() {
            if let Node::Do { action, rule, .. } = node {
                if !matches!(action, Action::Drop) {
                    break;
                }
                (rules, end) = (rule.saturating_add(1), at as u32 + 1);
            }
        }
        let ends = target::rules_of(program);
        while rules > 0 {
            let early = EarlyDrop { set: self, rules, end };
            match early.refused() {
                None => return Some(early),
                // A rule that looks at what XDP does not know ends the run before it.
                Some(node) => {
                    rules = ends.get(node).copied().unwrap_or(0).min(rules - 1);
                    end = ends.partition_point(|rule| *rule < rules) as u32;
                }
            }
        }
        None
    }
}

impl EarlyDrop<'_> {
    /// Number of rules, from the first of the set on; the counters' map needs as many entries.
    pub fn rules(&self) -> u16 {
        self.rules
    }

    /// The first node that does not translate.
    fn refused(&self) -> Option<usize> {
        let mut a = Assembler::new();
        let keep = a.label();
        let mut compiler = self.compiler(&mut a, keep);
        let nodes = self.set.program.nodes.iter().enumerate().take(self.end as usize);
        let failed = nodes.into_iter().find_map(|(at, node)| compiler.node(at, node).is_err().then_some(at));
        // Jumps reach 32,767 instructions; leave room for both families and for the program around.
        failed.or_else(|| (a.len() > 12_000).then_some(0))
    }

    fn compiler<'a>(&'a self, a: &'a mut Assembler, keep: Label) -> Compiler<'a, 'a> {
        let mut compiler = Compiler::new(a, &self.set.program, Access::Direct, keep);
        compiler.keep = Some((self.end, keep));
        compiler
    }

    /// Appends the rules to an XDP program. `R6` is its context and `network` points to an IPv4 header without options
    /// or an IPv6 header (`v6`) with UDP right behind it, of which 28 or 48 bytes are known to be in the frame. Ends in
    /// `XDP_DROP`, counted by rule in the array map `counters`, or at `keep`, with all registers but `R6` and `R10`
    /// changed.
    pub(crate) fn append(&self, a: &mut Assembler, network: Reg, v6: bool, counters: i32, keep: Label) {
        let uses = target::uses(&self.set.program);
        let mut compiler = self.compiler(a, keep);
        compiler.whole_datagram(network, v6, keep);
        for (used, slot, v4_at, v6_at) in [(uses.src, stack::SRC, -8, -32), (uses.dst, stack::DST, -4, -16)] {
            if used && v6 {
                for half in [0, 8] {
                    compiler.header(v6_at + half, 8);
                    compiler.a.be(Reg::R0, 64).store(Size::Double, Reg::R10, slot + half as i16, Reg::R0);
                }
            } else if used {
                compiler.header(v4_at, 4);
                compiler.mapped(slot);
            }
        }
        for (at, node) in self.set.program.nodes.iter().enumerate().take(self.end as usize) {
            // `early_drop` tried.
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
        a.call(HELPER_MAP_LOOKUP).jump_if64(Reg::R0, Cond::Eq, 0, gone);
        a.mov_imm(Reg::R1, 1).atomic_add(Reg::R0, Reg::R1);
        a.place(gone).mov_imm(Reg::R0, DROP).exit();
    }
}

impl Compiler<'_, '_> {
    /// `UDP` ← pointer to the UDP header, `LENGTH` ← payload length. A datagram whose length fields lie is kept: the
    /// receive loop counts it as malformed, and no rule ever sees it.
    fn whole_datagram(&mut self, network: Reg, v6: bool, keep: Label) {
        let (header, total_at) = if v6 { (40, 4) } else { (20, 2) };
        self.a.mov(UDP, network).add_imm(UDP, header);
        // R7 ← bytes behind the IP header.
        self.a.load(Size::Half, Reg::R7, network, total_at).be16(Reg::R7);
        if !v6 {
            self.a.jump_if64(Reg::R7, Cond::Lt, header, keep).add_imm(Reg::R7, -header);
        }
        self.a.load(Size::Half, LENGTH, network, header as i16 + 4).be16(LENGTH);
        if v6 {
            // RFC 2675 §4: a length of zero means "to the end of the packet".
            let given = self.a.label();
            self.a.jump_if_not_zero(LENGTH, given).mov(LENGTH, Reg::R7).place(given);
        }
        self.a.jump_if64(LENGTH, Cond::Lt, UDP_HEADER, keep).jump_if_reg(LENGTH, Cond::Gt, Reg::R7, keep);
        self.a.load(Size::Word, Reg::R3, CTX, MD_DATA_END);
        // The packet ends within the frame.
        self.a.alu_imm(Alu::And, Reg::R7, 0xffff).mov(Reg::R1, UDP).alu(Alu::Add, Reg::R1, Reg::R7);
        self.a.jump_if_reg(Reg::R1, Cond::Gt, Reg::R3, keep).add_imm(LENGTH, -UDP_HEADER);
    }
}
