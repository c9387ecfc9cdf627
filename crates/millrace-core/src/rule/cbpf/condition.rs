//! Tests and their edges.

use super::super::kernel::Reason;
use super::super::operator::CmpOp;
use super::super::program::{AddressField, Edges, NodeId, Operand};
use super::compiler::Compiler;
use super::value::Comparand;
use crate::bpf::classic::{Label, NEXT, code};

impl Compiler<'_> {
    /// Jumps where a case table says that the value leads.
    pub(super) fn cases(
        &mut self,
        value: Operand,
        cases: &[(u64, NodeId)],
        fail: NodeId,
    ) -> Result<(), Reason> {
        let comparand = self.comparand(value, fail)?;
        match comparand {
            Comparand::Wide(_) => self.search(comparand, cases),
            // The number has 32 bits: cases above are never reached.
            _ => {
                let end = cases.partition_point(|(low, _)| *low <= u64::from(u32::MAX));
                self.search(comparand, cases.get(..end).unwrap_or(cases));
            }
        }
        Ok(())
    }

    /// Binary search in a case table.
    fn search(&mut self, comparand: Comparand, cases: &[(u64, NodeId)]) {
        match cases {
            [] => {}
            [(low, to)] => {
                let to = self.leaf(comparand, *low, *to);
                self.a.goto(to);
            }
            // A test for one number.
            [(_, no), (low, yes), (next, again)] if no == again && low.checked_add(1) == Some(*next) => {
                let (yes, no) = (self.leaf(comparand, *low, *yes), self.leaf(comparand, 0, *no));
                self.equal(comparand, *low, yes, no);
            }
            _ => {
                let (left, right) = cases.split_at(cases.len() / 2);
                let pivot = right.first().map_or(0, |(low, _)| *low);
                let mut side = |part: &[(u64, NodeId)]| match part {
                    [(low, to)] => (self.leaf(comparand, *low, *to), false),
                    _ => (self.a.label(), true),
                };
                let ((no, more_left), (yes, more_right)) = (side(left), side(right));
                self.at_least(comparand, pivot, yes, no);
                for (part, label, more) in [(left, no, more_left), (right, yes, more_right)] {
                    if more {
                        self.place(label);
                        self.search(comparand, part);
                    }
                }
            }
        }
    }

    /// The label of a successor for numbers from `low` on. Where the number is the length, `low` bytes are there.
    fn leaf(&mut self, comparand: Comparand, low: u64, to: NodeId) -> Label {
        let min_len = match comparand {
            Comparand::Length => self.min_len.max(low.min(u64::from(u32::MAX)) as u32),
            _ => self.min_len,
        };
        self.label_for_len(to, min_len)
    }

    /// Branches on comparand == n.
    fn equal(&mut self, comparand: Comparand, n: u64, yes: Label, no: Label) {
        if let Comparand::Wide(load) = comparand {
            self.wide_word(load, 0);
            self.a.branch(code::JEQ, (n >> 32) as u32, NEXT, no);
            self.wide_word(load, 1);
        }
        self.a.branch(code::JEQ, n as u32, yes, no);
    }

    /// Branches on comparand >= n.
    fn at_least(&mut self, comparand: Comparand, n: u64, yes: Label, no: Label) {
        if let Comparand::Wide(load) = comparand {
            self.wide_word(load, 0);
            self.a.branch(code::JGT, (n >> 32) as u32, yes, NEXT);
            self.a.branch(code::JEQ, (n >> 32) as u32, NEXT, no);
            self.wide_word(load, 1);
        }
        self.a.branch(code::JGE, n as u32, yes, no);
    }

    /// Compares two numbers.
    pub(super) fn compare(
        &mut self,
        op: CmpOp,
        left: Operand,
        right: Operand,
        to: Edges,
    ) -> Result<(), Reason> {
        self.exact(left, to.fail)?;
        let saved = self.save()?;
        self.exact(right, to.fail)?;
        self.tax();
        self.a.op(code::LD_MEM, saved);
        self.free();
        let (yes, no) = (self.label_for(to.yes), self.label_for(to.no));
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

    /// Compares payload bytes, in pieces of four, two and one.
    pub(super) fn bytes(&mut self, from: u16, want: &[u8], to: Edges) {
        self.check_bounds(from, want.len(), to.fail);
        let no = self.label_for(to.no);
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

    /// Tests for sorted, disjoint ranges of addresses, one after the other.
    pub(super) fn address(&mut self, which: AddressField, ranges: &[(u128, u128)], to: Edges) {
        for &(low, high) in ranges {
            let yes = self.label_for(to.yes);
            let other = self.a.label();
            self.address_range(which, words(low), words(high), yes, other);
            self.place(other);
        }
        self.goto(to.no);
    }

    /// Compares source and destination address.
    pub(super) fn same_address(&mut self, to: Edges) {
        for word in 0..4 {
            self.address_word(AddressField::Src, word);
            self.tax();
            self.address_word(AddressField::Dst, word);
            let no = self.label_for(to.no);
            self.a.branch(code::JEQ | code::X, 0, NEXT, no);
        }
        self.goto(to.yes);
    }

    /// Tests `low <= address <= high`, word by word.
    fn address_range(&mut self, which: AddressField, low: [u32; 4], high: [u32; 4], yes: Label, no: Label) {
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
        // The words behind matter only at the ends of the range; for a prefix not even there, since it ends in zeros and ones.
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
            // A greater word leads to `decided`, a smaller one to `otherwise`; an address equal in every word is inside.
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

/// The four words of an address, most significant first.
fn words(address: u128) -> [u32; 4] {
    [96, 64, 32, 0].map(|shift| (address >> shift) as u32)
}
