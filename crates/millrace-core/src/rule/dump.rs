//! The stages of a rule set as text, for the curious.

use super::{CbpfTarget, RuleSet, Unsupported};
use std::fmt::Write;

impl RuleSet {
    /// The nodes that the evaluator follows, one for each line.
    pub fn dump_program(&self) -> String {
        let mut out = String::new();
        for (at, node) in self.program.nodes.iter().enumerate() {
            let _ = writeln!(out, "{at:5}  {node:?}");
        }
        out
    }

    /// The classic BPF program in the notation of `tcpdump -d`, where offsets from 0xfff00000 on count from the network
    /// header.
    ///
    /// # Errors
    /// As [`RuleSet::to_cbpf`].
    pub fn dump_cbpf(&self, target: CbpfTarget) -> Result<String, Unsupported> {
        let mut out = String::new();
        for (at, i) in self.to_cbpf(target)?.iter().enumerate() {
            let _ = writeln!(out, "({at:03}) {}", classic(at, i));
        }
        Ok(out)
    }

    /// The eBPF program, one instruction of eight bytes (opcode, registers, offset, immediate) for each line.
    ///
    /// # Errors
    /// As [`RuleSet::to_ebpf`].
    pub fn dump_ebpf(&self) -> Result<String, Unsupported> {
        let mut out = String::new();
        for (at, i) in self.to_ebpf()?.iter().enumerate() {
            let [op, regs, o0, o1, i0, i1, i2, i3] = i.to_ne_bytes();
            let (offset, imm) = (i16::from_ne_bytes([o0, o1]), i32::from_ne_bytes([i0, i1, i2, i3]));
            let _ = writeln!(out, "{at:5}  {op:02x} r{} r{} {offset:+} {imm:#x}", regs & 15, regs >> 4);
        }
        Ok(out)
    }
}

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
        0x80 => "ld       len".into(),
        0xb1 => format!("ldx      4*([{k:#x}]&0xf)"),
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
