//! Calculations, in `NUMBER`.

use super::super::kernel::{Reason, unknown_in_kernel};
use super::super::load::Load;
use super::super::operator::BinOp;
use super::super::program::{MAX_TEMPORARIES, NodeId, Operand, Step};
use super::compiler::Compiler;
use super::layout::{LENGTH, NUMBER, stack};
use crate::bpf::ebpf::{Alu, Cond, Reg, Size};

impl Compiler<'_, '_> {
    /// `NUMBER` ← the value.
    pub(super) fn value(&mut self, value: Operand, fail: NodeId) -> Result<(), Reason> {
        match value {
            Operand::Load(load) => {
                self.load(load, fail)?;
                self.a.mov(NUMBER, Reg::R0);
            }
            Operand::Code(steps) => {
                let mut depth = 0;
                for step in steps.of(&self.program.steps) {
                    self.step(*step, &mut depth, fail)?;
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, step: Step, depth: &mut usize, fail: NodeId) -> Result<(), Reason> {
        match step {
            Step::Load(load) => {
                self.load(load, fail)?;
                self.a.mov(NUMBER, Reg::R0);
            }
            Step::Const(n) => {
                self.a.mov_imm64(NUMBER, n);
            }
            Step::Imm(op, n) => self.immediate(op, n),
            Step::With(op, load) => {
                self.load(load, fail)?;
                self.binary(op, fail);
            }
            Step::Push => {
                self.a.store(Size::Double, Reg::R10, slot(*depth), NUMBER);
                *depth = (*depth + 1).min(MAX_TEMPORARIES);
            }
            Step::Pop(op) => {
                *depth = depth.saturating_sub(1);
                self.a.mov(Reg::R0, NUMBER).load(Size::Double, NUMBER, Reg::R10, slot(*depth));
                self.binary(op, fail);
            }
        }
        Ok(())
    }

    /// `NUMBER` ← `NUMBER` op constant
    fn immediate(&mut self, op: BinOp, n: u64) {
        let alu = alu(op);
        match op {
            BinOp::Shl | BinOp::Shr if n >= 64 => self.a.mov_imm(NUMBER, 0),
            _ => match i32::try_from(n) {
                Ok(n) => self.a.alu_imm(alu, NUMBER, n),
                Err(_) => self.a.mov_imm64(Reg::R1, n).alu(alu, NUMBER, Reg::R1),
            },
        };
    }

    /// `NUMBER` ← `NUMBER` op `R0`
    fn binary(&mut self, op: BinOp, fail: NodeId) {
        match op {
            BinOp::Div | BinOp::Mod => {
                let zero = self.label_for(fail);
                self.a.jump_if64(Reg::R0, Cond::Eq, 0, zero).alu(alu(op), NUMBER, Reg::R0);
            }
            BinOp::Shl | BinOp::Shr => {
                // The instruction takes the distance modulo 64.
                let (near, done) = (self.a.label(), self.a.label());
                self.a.jump_if64(Reg::R0, Cond::Lt, 64, near).mov_imm(NUMBER, 0).jump(done);
                self.a.place(near).alu(alu(op), NUMBER, Reg::R0).place(done);
            }
            _ => {
                self.a.alu(alu(op), NUMBER, Reg::R0);
            }
        }
    }

    /// `R0` ← a field.
    fn load(&mut self, load: Load, fail: NodeId) -> Result<(), Reason> {
        let (at, width, network) = match load {
            Load::U8(at) => (at, 1, true),
            Load::U16(at) => (at, 2, true),
            Load::U32(at) => (at, 4, true),
            Load::U64(at) => (at, 8, true),
            Load::U16Le(at) => (at, 2, false),
            Load::U32Le(at) => (at, 4, false),
            Load::U64Le(at) => (at, 8, false),
            Load::Len => {
                self.a.mov(Reg::R0, LENGTH);
                return Ok(());
            }
            Load::SrcPort => {
                self.header(0, 2);
                return Ok(());
            }
            Load::DstPort => {
                self.header(2, 2);
                return Ok(());
            }
            Load::RxQueue | Load::Cpu => return Err(unknown_in_kernel(load)),
        };
        self.check_bounds(at, width, fail);
        self.payload(at.into(), width, network);
        Ok(())
    }
}

/// The stack slot at this depth of the stack of a calculation.
fn slot(index: usize) -> i16 {
    stack::TEMPORARIES - 8 * index as i16
}

fn alu(op: BinOp) -> Alu {
    match op {
        BinOp::Add => Alu::Add,
        BinOp::Sub => Alu::Sub,
        BinOp::Mul => Alu::Mul,
        BinOp::Div => Alu::Div,
        BinOp::Mod => Alu::Mod,
        BinOp::And => Alu::And,
        BinOp::Or => Alu::Or,
        BinOp::Xor => Alu::Xor,
        BinOp::Shl => Alu::Shl,
        BinOp::Shr => Alu::Shr,
    }
}
