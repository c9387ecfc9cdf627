//! The programs of a rule set as human-readable text.

use super::cbpf::CbpfTarget;
use super::ebpf::SKB_LOAD_BYTES_RELATIVE;
use super::kernel::Unsupported;
use super::set::RuleSet;
use rbpf::disassembler::{HLInsn, to_insn_vec};
use rbpf::ebpf;
use std::fmt::Write;

impl RuleSet {
    /// The nodes that the evaluator runs, one on each line.
    pub(super) fn dump_program(&self) -> String {
        let mut out = String::new();
        for (at, node) in self.program().nodes.iter().enumerate() {
            let _ = writeln!(out, "{at:5}  {node:?}");
        }
        out
    }

    /// The classic BPF program in the notation of `tcpdump -d`, where offsets from 0xfff00000 on count from the network
    /// header.
    ///
    /// # Errors
    /// Those of [`RuleSet::to_cbpf`].
    pub(super) fn dump_cbpf(&self, target: CbpfTarget) -> Result<String, Unsupported> {
        let mut out = String::new();
        for (at, i) in self.to_cbpf(target)?.iter().enumerate() {
            let _ = writeln!(out, "({at:03}) {}", classic(at, i));
        }
        Ok(out)
    }

    /// The eBPF program, one instruction on each line, with its number and the number it may jump to. An instruction of sixteen
    /// bytes counts as two.
    ///
    /// # Errors
    /// Those of [`RuleSet::to_ebpf`].
    pub(super) fn dump_ebpf(&self) -> Result<String, Unsupported> {
        let program: Vec<u8> = self.to_ebpf()?.iter().flat_map(|i| i.to_ne_bytes()).collect();
        let mut out = String::new();
        let mut at = 0;
        for i in to_insn_vec(&program) {
            let _ = writeln!(out, "{at:4}: {}", extended(at, &i));
            at += if i.opc == ebpf::LD_DW_IMM { 2 } else { 1 };
        }
        Ok(out)
    }
}

/// One instruction. rbpf prints the distance of a jump and the number of a helper; this prints the jump's target and the
/// helper's name instead.
fn extended(at: i64, i: &HLInsn) -> String {
    let jump = matches!(i.opc & ebpf::BPF_CLS_MASK, ebpf::BPF_JMP | ebpf::BPF_JMP32);
    match i.opc {
        ebpf::CALL => match i.imm {
            n if n == i64::from(SKB_LOAD_BYTES_RELATIVE) => "call bpf_skb_load_bytes_relative".into(),
            number => format!("call {number}"),
        },
        ebpf::EXIT => i.desc.clone(),
        _ if jump => {
            let (head, _) = i.desc.rsplit_once(' ').unwrap_or((&i.desc, ""));
            format!("{} goto {}", head.trim_end_matches(','), at + 1 + i64::from(i.off))
        }
        _ => i.desc.clone(),
    }
}

/// One instruction in the notation of `tcpdump -d`.
fn classic(at: usize, i: &libc::sock_filter) -> String {
    let k = i.k;
    let operand = if i.code & 8 != 0 { "x".to_owned() } else { format!("#{k:#x}") };
    let size = match i.code & 0x18 {
        0x00 => "ld",
        0x08 => "ldh",
        _ => "ldb",
    };
    let name = |names: [&'static str; 11]| names.get(usize::from(i.code >> 4 & 15)).copied().unwrap_or("?");
    match i.code {
        0x00 => format!("ld       #{k:#x}"),
        0x60 => format!("ld       M[{k}]"),
        0x61 => format!("ldx      M[{k}]"),
        0x80 => "ld       #pktlen".into(),
        0xb1 => format!("ldxb     4*([{k:#x}]&0xf)"),
        0x02 => format!("st       M[{k}]"),
        0x07 => "tax".into(),
        0x87 => "txa".into(),
        0x06 => format!("ret      #{k:#x}"),
        0x16 => "ret      a".into(),
        0x05 => format!("ja       {}", at + 1 + k as usize),
        code if code & 7 == 0 && code & 0xe0 == 0x20 => format!("{size:8} [{k:#x}]"),
        code if code & 7 == 0 => format!("{size:8} [x + {k:#x}]"),
        code if code & 7 == 4 => {
            let op = name(["add", "sub", "mul", "div", "or", "and", "lsh", "rsh", "neg", "mod", "xor"]);
            format!("{op:8} {operand}")
        }
        _ => {
            let op = name(["ja", "jeq", "jgt", "jge", "jset", "?", "?", "?", "?", "?", "?"]);
            let (yes, no) = (at + 1 + usize::from(i.jt), at + 1 + usize::from(i.jf));
            format!("{op:8} {operand:16} jt {yes}\tjf {no}")
        }
    }
}
