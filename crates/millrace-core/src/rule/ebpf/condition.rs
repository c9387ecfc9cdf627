//! Tests and their edges.

use super::super::kernel::Reason;
use super::super::load::Load;
use super::super::operator::CmpOp;
use super::super::program::{AddressField, Edges, NodeId, Operand};
use super::compiler::Compiler;
use super::layout::{NUMBER, stack};
use crate::bpf::ebpf::{Cond, Label, Reg, Size};

impl Compiler<'_, '_> {
    /// Jumps where a case table says that the value leads.
    pub(super) fn cases(
        &mut self,
        value: Operand,
        cases: &[(u64, NodeId)],
        fail: NodeId,
    ) -> Result<(), Reason> {
        self.value(value, fail)?;
        self.search(matches!(value, Operand::Load(Load::Len)), cases);
        Ok(())
    }

    /// Binary search for `NUMBER` in a case table. Where it is a length, a comparison tells how many bytes are there, which
    /// saves checks later.
    fn search(&mut self, is_length: bool, cases: &[(u64, NodeId)]) {
        match cases {
            [] => {}
            [(low, to)] => {
                let to = self.leaf(is_length, *low, *to);
                self.a.jump(to);
            }
            // A test for one number.
            [(_, no), (low, yes), (next, again)] if no == again && low.checked_add(1) == Some(*next) => {
                let (yes, no) = (self.leaf(is_length, *low, *yes), self.leaf(is_length, 0, *no));
                self.jump_if(NUMBER, Cond::Eq, *low, yes);
                self.a.jump(no);
            }
            _ => {
                let (left, right) = cases.split_at(cases.len() / 2);
                let pivot = right.first().map_or(0, |(low, _)| *low);
                let upper = match right {
                    [(low, to)] => self.leaf(is_length, *low, *to),
                    _ => self.a.label(),
                };
                self.jump_if(NUMBER, Cond::Ge, pivot, upper);
                self.search(is_length, left);
                if right.len() > 1 {
                    self.a.place(upper);
                    self.search(is_length, right);
                }
            }
        }
    }

    /// The label of a successor for numbers from `low` on.
    fn leaf(&mut self, is_length: bool, low: u64, to: NodeId) -> Label {
        let min_len =
            if is_length { self.min_len.max(low.min(u64::from(u32::MAX)) as u32) } else { self.min_len };
        self.label_for_len(to, min_len)
    }

    /// Jumps when the register compares with a constant of any size. Changes `R1`.
    fn jump_if(&mut self, reg: Reg, cond: Cond, n: u64, to: Label) {
        match i32::try_from(n) {
            Ok(n) => self.a.jump_if64(reg, cond, n, to),
            Err(_) => self.a.mov_imm64(Reg::R1, n).jump_if_reg(reg, cond, Reg::R1, to),
        };
    }

    /// Compares two numbers.
    pub(super) fn compare(
        &mut self,
        op: CmpOp,
        left: Operand,
        right: Operand,
        to: Edges,
    ) -> Result<(), Reason> {
        self.value(left, to.fail)?;
        self.a.store(Size::Double, Reg::R10, stack::LEFT, NUMBER);
        self.value(right, to.fail)?;
        self.a.load(Size::Double, Reg::R0, Reg::R10, stack::LEFT);
        let (yes, no) = (self.label_for(to.yes), self.label_for(to.no));
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

    /// Compares payload bytes, in pieces of eight, four, two and one.
    pub(super) fn bytes(&mut self, from: u16, want: &[u8], to: Edges) {
        self.check_bounds(from, want.len(), to.fail);
        let no = self.label_for(to.no);
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

    /// Compares source and destination address.
    pub(super) fn same_address(&mut self, to: Edges) {
        let no = self.label_for(to.no);
        for half in [0, 8] {
            self.a.load(Size::Double, Reg::R0, Reg::R10, stack::SRC + half);
            self.a.load(Size::Double, Reg::R1, Reg::R10, stack::DST + half);
            self.a.jump_if_reg(Reg::R0, Cond::Ne, Reg::R1, no);
        }
        self.goto(to.yes);
    }

    /// Tests for sorted, disjoint ranges of addresses, one after the other.
    pub(super) fn address(&mut self, which: AddressField, ranges: &[(u128, u128)], to: Edges) {
        let at = match which {
            AddressField::Src => stack::SRC,
            AddressField::Dst => stack::DST,
        };
        let half = |n: u128| ((n >> 64) as u64, n as u64);
        self.a.load(Size::Double, Reg::R2, Reg::R10, at).be(Reg::R2, 64);
        self.a.load(Size::Double, Reg::R3, Reg::R10, at + 8).be(Reg::R3, 64);
        let yes = self.label_for(to.yes);
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
