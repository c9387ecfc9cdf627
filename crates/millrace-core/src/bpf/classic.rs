//! An assembler with labels for classic BPF (Documentation/networking/filter.rst), and the offsets that programs share.
//!
//! Loads are big-endian by definition. A load outside the packet ends the program with 0, which a socket filter takes as
//! "drop". The filters of the socket and packet backends use the methods named for an instruction; the rule compiler passes
//! instruction codes to [`Assembler::op`] and [`Assembler::branch`].

use libc::sock_filter;

/// Base of loads relative to the network header (`SKF_NET_OFF`), whatever the socket's own data offset is. It holds for
/// incoming and outgoing frames, with and without a link-layer header.
pub(crate) const NET: u32 = libc::SKF_NET_OFF as u32;
/// Base of loads relative to the link-layer header (`SKF_LL_OFF`).
pub(crate) const LINK: u32 = libc::SKF_LL_OFF as u32;
/// `skb->protocol` in host order: the EtherType behind the VLAN tag that the kernel moved into metadata.
pub(crate) const AD_PROTOCOL: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL) as u32;
/// `skb->pkt_type`: 0 host, 1 broadcast, 2 multicast, 3 other host, 4 outgoing, 5 loopback (if_packet.h).
pub(crate) const AD_PKTTYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
/// Index of the interface that the packet is at (`skb->dev->ifindex`).
pub(crate) const AD_IFINDEX: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32;
/// A filter result that keeps the whole packet, because it is more than any IP packet and its link header have.
pub(crate) const KEEP_ALL: u32 = 0x0004_0000;
/// The number of instructions of the longest program that the kernel accepts (`BPF_MAXINSNS`).
pub(crate) const MAX_INSNS: usize = 4096;

/// Instruction codes (linux/bpf_common.h, linux/filter.h), composed: `LD_W_ABS` is `BPF_LD | BPF_W | BPF_ABS`.
pub(crate) mod code {
    pub(crate) const LD_IMM: u16 = 0x00;
    pub(crate) const LD_W_ABS: u16 = 0x20;
    pub(crate) const LD_H_ABS: u16 = 0x28;
    pub(crate) const LD_B_ABS: u16 = 0x30;
    pub(crate) const LD_H_IND: u16 = 0x48;
    pub(crate) const LD_B_IND: u16 = 0x50;
    pub(crate) const LD_MEM: u16 = 0x60;
    pub(crate) const LD_LEN: u16 = 0x80;
    pub(crate) const LDX_IMM: u16 = 0x01;
    pub(crate) const LDX_MEM: u16 = 0x61;
    pub(crate) const LDX_MSH: u16 = 0xb1;
    pub(crate) const ST: u16 = 0x02;
    pub(crate) const TAX: u16 = 0x07;
    pub(crate) const TXA: u16 = 0x87;
    /// `BPF_X`: the operand is register X instead of the constant.
    pub(crate) const X: u16 = 0x08;
    pub(crate) const ADD: u16 = 0x04;
    pub(crate) const SUB: u16 = 0x14;
    pub(crate) const MUL: u16 = 0x24;
    pub(crate) const DIV: u16 = 0x34;
    pub(crate) const OR: u16 = 0x44;
    pub(crate) const AND: u16 = 0x54;
    pub(crate) const LSH: u16 = 0x64;
    pub(crate) const RSH: u16 = 0x74;
    pub(crate) const MOD: u16 = 0x94;
    pub(crate) const XOR: u16 = 0xa4;
    pub(crate) const JA: u16 = 0x05;
    pub(crate) const JEQ: u16 = 0x15;
    pub(crate) const JGT: u16 = 0x25;
    pub(crate) const JGE: u16 = 0x35;
    pub(crate) const JSET: u16 = 0x45;
    pub(crate) const RET_K: u16 = 0x06;
    pub(crate) const RET_A: u16 = 0x16;
}

/// A position in the program to jump to, which may be placed later.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// The label of the instruction after a branch, which is never placed.
pub(crate) const NEXT: Label = Label(usize::MAX);

enum Insn {
    Plain(u16, u32),
    Branch { code: u16, k: u32, yes: Label, no: Label },
    Goto(Label),
}

/// A program being written.
#[derive(Default)]
pub(crate) struct Assembler {
    insns: Vec<Insn>,
    labels: Vec<Option<usize>>,
}

impl Assembler {
    /// Makes a label that [`Assembler::place`] places.
    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places `label` at the next instruction.
    pub(crate) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.insns.len());
    }

    /// A ← 32-bit word at `k`.
    pub(crate) fn load_word(&mut self, k: u32) {
        self.insns.push(Insn::Plain(code::LD_W_ABS, k));
    }

    /// A ← 16-bit word at `k`.
    pub(crate) fn load_half(&mut self, k: u32) {
        self.insns.push(Insn::Plain(code::LD_H_ABS, k));
    }

    /// A ← byte at `k`.
    pub(crate) fn load_byte(&mut self, k: u32) {
        self.insns.push(Insn::Plain(code::LD_B_ABS, k));
    }

    /// A ← 16-bit word at X + `k`.
    pub(crate) fn load_half_x(&mut self, k: u32) {
        self.insns.push(Insn::Plain(code::LD_H_IND, k));
    }

    /// A ← length of the packet, counted from the program's offset 0.
    pub(crate) fn load_len(&mut self) {
        self.insns.push(Insn::Plain(code::LD_LEN, 0));
    }

    /// X ← 4 × (low nibble of the byte at `k`): the length of an IPv4 header.
    pub(crate) fn load_x_ihl(&mut self, k: u32) {
        self.insns.push(Insn::Plain(code::LDX_MSH, k));
    }

    /// Ends the program with the result A.
    pub(crate) fn ret_a(&mut self) {
        self.insns.push(Insn::Plain(code::RET_A, 0));
    }

    /// Branches on A == `k`.
    pub(crate) fn if_eq(&mut self, k: u32, yes: Label, no: Label) {
        self.insns.push(Insn::Branch { code: code::JEQ, k, yes, no });
    }

    /// Branches on A > `k`, unsigned.
    pub(crate) fn if_gt(&mut self, k: u32, yes: Label, no: Label) {
        self.insns.push(Insn::Branch { code: code::JGT, k, yes, no });
    }

    /// Branches on A & `k` != 0.
    pub(crate) fn if_set(&mut self, k: u32, yes: Label, no: Label) {
        self.insns.push(Insn::Branch { code: code::JSET, k, yes, no });
    }

    /// Appends any instruction that is not a jump.
    pub(crate) fn op(&mut self, code: u16, k: u32) {
        self.insns.push(Insn::Plain(code, k));
    }

    /// Appends any conditional jump.
    pub(crate) fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) {
        self.insns.push(Insn::Branch { code, k, yes, no });
    }

    /// Returns the number of instructions so far. In the finished program each far branch takes up to two more.
    pub(crate) fn len(&self) -> usize {
        self.insns.len()
    }

    /// Jumps always, over any distance.
    pub(crate) fn goto(&mut self, to: Label) {
        self.insns.push(Insn::Goto(to));
    }

    /// Ends the program with the result `k`.
    pub(crate) fn ret(&mut self, k: u32) {
        self.insns.push(Insn::Plain(code::RET_K, k));
    }

    /// Returns the finished program, and `None` when it is longer than the kernel accepts, when a label was never placed, or
    /// when one lies behind its branch: classic BPF only jumps forward.
    ///
    /// A conditional branch reaches 255 instructions far. One that has to go further is followed by an unconditional jump,
    /// which reaches any distance, for each of its far sides.
    pub(crate) fn finish(self) -> Option<Vec<sock_filter>> {
        if self.insns.len() > MAX_INSNS {
            return None;
        }
        // A branch that grows may push the target of another out of reach, so this repeats until none grows. It ends,
        // because none shrinks.
        let mut far = vec![(false, false); self.insns.len()];
        loop {
            let starts = self.starts(&far);
            let mut grown = false;
            for (at, insn) in self.insns.iter().enumerate() {
                let Insn::Branch { yes, no, .. } = *insn else { continue };
                let reach = |label| Some(self.distance(&starts, at, label)? > usize::from(u8::MAX));
                let now = (far[at].0 || reach(yes)?, far[at].1 || reach(no)?);
                grown |= now != far[at];
                far[at] = now;
            }
            if !grown {
                return self.emit(&starts, &far);
            }
        }
    }

    /// Returns the slot in which each instruction begins, and at the end the length of the program.
    fn starts(&self, far: &[(bool, bool)]) -> Vec<usize> {
        let sizes = far.iter().map(|(yes, no)| 1 + usize::from(*yes) + usize::from(*no));
        let mut starts = vec![0];
        starts.extend(sizes.scan(0, |end, size| {
            *end += size;
            Some(*end)
        }));
        starts
    }

    /// Returns the distance from the first slot behind instruction `at` to the label, in slots.
    fn distance(&self, starts: &[usize], at: usize, label: Label) -> Option<usize> {
        let target = if label == NEXT { at + 1 } else { self.labels.get(label.0).copied().flatten()? };
        starts.get(target)?.checked_sub(starts[at] + 1)
    }

    /// Encodes the program, with jumps behind the branches that are far on either side.
    fn emit(&self, starts: &[usize], far: &[(bool, bool)]) -> Option<Vec<sock_filter>> {
        let jump = |k: usize| Some(sock_filter { code: code::JA, jt: 0, jf: 0, k: u32::try_from(k).ok()? });
        let mut out = Vec::with_capacity(self.insns.len());
        for (at, insn) in self.insns.iter().enumerate() {
            match *insn {
                Insn::Plain(code, k) => out.push(sock_filter { code, jt: 0, jf: 0, k }),
                Insn::Goto(to) => out.push(jump(self.distance(starts, at, to)?)?),
                Insn::Branch { code, k, yes, no } => {
                    let (to_yes, to_no) = (self.distance(starts, at, yes)?, self.distance(starts, at, no)?);
                    let (far_yes, far_no) = far[at];
                    let jt = if far_yes { 0 } else { u8::try_from(to_yes).ok()? };
                    let jf = if far_no { u8::from(far_yes) } else { u8::try_from(to_no).ok()? };
                    out.push(sock_filter { code, jt, jf, k });
                    if far_yes {
                        out.push(jump(to_yes - 1)?);
                    }
                    if far_no {
                        out.push(jump(to_no - 1 - usize::from(far_yes))?);
                    }
                }
            }
        }
        (out.len() <= MAX_INSNS).then_some(out)
    }
}

/// Returns the program that drops everything, which stops a socket from receiving.
pub(crate) fn drop_all() -> [sock_filter; 1] {
    [sock_filter { code: code::RET_K, jt: 0, jf: 0, k: 0 }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_count_from_the_next_instruction() {
        let mut a = Assembler::default();
        let keep = a.label();
        a.load_byte(NET);
        a.if_eq(0x45, keep, NEXT);
        a.ret(0);
        a.place(keep);
        a.ret(KEEP_ALL);
        let p = a.finish().unwrap();
        assert_eq!((p[1].jt, p[1].jf, p[0].k), (1, 0, 0xfff0_0000));
    }

    #[test]
    fn far_branches_go_by_way_of_a_jump() {
        for (gap, slots) in [(254, 1), (255, 1), (256, 2), (4000, 2)] {
            let mut a = Assembler::default();
            let end = a.label();
            a.if_eq(1, end, NEXT);
            (0..gap).for_each(|_| a.ret(0));
            a.place(end);
            a.ret(7);
            let p = a.finish().unwrap();
            assert_eq!(p.len(), slots + gap + 1);
            // `yes` leads to the last instruction, `no` to the first behind the branch.
            let far = slots - 1;
            let yes = if far == 1 {
                1 + usize::from(p[0].jt) + 1 + p[1].k as usize
            } else {
                1 + usize::from(p[0].jt)
            };
            assert_eq!((yes, usize::from(p[0].jf)), (p.len() - 1, far), "gap {gap}");
        }
    }

    #[test]
    fn branches_far_on_both_sides_and_ones_pushed_out_of_reach() {
        let mut a = Assembler::default();
        let (one, two) = (a.label(), a.label());
        a.if_eq(1, two, NEXT);
        a.if_eq(2, one, two);
        (0..254).for_each(|_| a.ret(0));
        a.place(two);
        a.ret(2);
        (0..300).for_each(|_| a.ret(0));
        a.place(one);
        a.ret(1);
        let p = a.finish().unwrap();
        // The second branch's far side pushes `two` out of the first one's reach.
        assert_eq!((p[0].jt, p[0].jf, p[1].code), (0, 1, code::JA));
        assert_eq!(p[2 + p[1].k as usize].k, 2);
        assert_eq!((p[2].jt, p[3].code), (0, code::JA));
        assert_eq!(p[4 + p[3].k as usize].k, 1);
        assert_eq!(p[3 + usize::from(p[2].jf)].k, 2);
    }

    #[test]
    fn backward_lost_and_too_many_are_refused() {
        let mut back = Assembler::default();
        let start = back.label();
        back.place(start);
        back.ret(0);
        back.goto(start);
        assert!(back.finish().is_none());

        let mut lost = Assembler::default();
        let nowhere = lost.label();
        lost.goto(nowhere);
        assert!(lost.finish().is_none());

        let mut long = Assembler::default();
        (0..=MAX_INSNS).for_each(|_| long.ret(0));
        assert!(long.finish().is_none());
    }
}
