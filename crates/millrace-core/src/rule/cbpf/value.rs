//! Calculations. The language calculates with 64 bits and A has 32, so each step keeps track of how large the value can be.
//! A always holds its lower 32 bits. Where that is not the whole value, only operations whose lower 32 bits depend on nothing
//! else are translated.

use super::super::kernel::{Reason, unknown_in_kernel};
use super::super::load::Load;
use super::super::operator::BinOp;
use super::super::program::{NodeId, Operand, Step};
use super::compiler::Compiler;
use crate::bpf::classic::{NEXT, code};

/// The largest number that A holds.
pub(super) const MAX_WORD: u64 = u32::MAX as u64;

fn too_wide(what: &str) -> Reason {
    format!("{what} a number that may need more than 32 bits, all that classic BPF calculates with")
}

/// A number that is ready to be compared.
#[derive(Clone, Copy)]
pub(super) enum Comparand {
    /// A holds all of it.
    Narrow,
    /// A holds the payload length. A comparison tells how many bytes are there, which saves checks later.
    Length,
    /// A 64-bit field, checked to be there. Each comparison reads it again.
    Wide(Load),
}

impl Compiler<'_> {
    /// Prepares a value for comparisons.
    pub(super) fn comparand(&mut self, value: Operand, fail: NodeId) -> Result<Comparand, Reason> {
        match value {
            Operand::Load(load @ (Load::U64(at) | Load::U64Le(at))) => {
                self.check_bounds(at, 8, fail);
                Ok(Comparand::Wide(load))
            }
            Operand::Load(Load::Len) => {
                self.length();
                Ok(Comparand::Length)
            }
            value => {
                self.exact(value, fail)?;
                Ok(Comparand::Narrow)
            }
        }
    }

    /// A ← the value, which must fit.
    pub(super) fn exact(&mut self, value: Operand, fail: NodeId) -> Result<(), Reason> {
        if self.value(value, fail)? > MAX_WORD { Err(too_wide("it compares")) } else { Ok(()) }
    }

    /// A ← the lower 32 bits of the value. Returns the largest value it can have.
    pub(super) fn value(&mut self, value: Operand, fail: NodeId) -> Result<u64, Reason> {
        match value {
            Operand::Load(load) => self.load(load, fail),
            Operand::Code(steps) => self.calculate(steps.of(&self.program.steps), fail),
        }
    }

    fn calculate(&mut self, steps: &[Step], fail: NodeId) -> Result<u64, Reason> {
        let mut max = 0;
        let mut stack: Vec<(u32, u64)> = Vec::new();
        for step in steps {
            max = match *step {
                Step::Load(load) => self.load(load, fail)?,
                Step::Const(n) => {
                    self.a.op(code::LD_IMM, n as u32);
                    n
                }
                Step::Imm(op, n) => self.immediate(op, max, n)?,
                Step::With(op, load) => {
                    let left = self.save()?;
                    let right = self.load(load, fail)?;
                    self.binary(op, (left, max), right, fail)?
                }
                Step::Push => {
                    stack.push((self.save()?, max));
                    max
                }
                Step::Pop(op) => {
                    let left =
                        stack.pop().ok_or_else(|| Reason::from("its calculation is not well formed"))?;
                    self.binary(op, left, max, fail)?
                }
            };
        }
        Ok(max)
    }

    /// A ← A op constant. `max` is the largest value of A; returns the largest result.
    fn immediate(&mut self, op: BinOp, max: u64, n: u64) -> Result<u64, Reason> {
        let low = n as u32;
        let narrow = max <= MAX_WORD;
        match op {
            BinOp::Add => self.a.op(code::ADD, low),
            BinOp::Sub => self.a.op(code::SUB, low),
            BinOp::Mul => self.a.op(code::MUL, low),
            BinOp::And => self.a.op(code::AND, low),
            BinOp::Or => self.a.op(code::OR, low),
            BinOp::Xor => self.a.op(code::XOR, low),
            // The lower bits do not depend on the upper ones.
            BinOp::Mod if n.is_power_of_two() => self.a.op(code::AND, (n - 1) as u32),
            BinOp::Shl if n < 32 => self.a.op(code::LSH, low),
            BinOp::Shl => self.a.op(code::LD_IMM, 0),
            BinOp::Div | BinOp::Mod | BinOp::Shr if !narrow => return Err(too_wide("it divides or shifts")),
            BinOp::Shr if n < 32 => self.a.op(code::RSH, low),
            BinOp::Shr => self.a.op(code::LD_IMM, 0),
            BinOp::Div if n <= MAX_WORD => self.a.op(code::DIV, low),
            BinOp::Div => self.a.op(code::LD_IMM, 0),
            BinOp::Mod if n <= MAX_WORD => self.a.op(code::MOD, low),
            BinOp::Mod => {}
        }
        Ok(op.max_result(max, n, Some(n)))
    }

    /// A ← left op A, and frees the scratch word of `left`. `left` is its number, and the largest value the operand can have;
    /// `right` is the largest value of A.
    fn binary(&mut self, op: BinOp, left: (u32, u64), right: u64, fail: NodeId) -> Result<u64, Reason> {
        let (slot, max) = left;
        let code = match op {
            BinOp::Add => code::ADD,
            BinOp::Sub => code::SUB,
            BinOp::Mul => code::MUL,
            BinOp::And => code::AND,
            BinOp::Or => code::OR,
            BinOp::Xor => code::XOR,
            BinOp::Div => code::DIV,
            BinOp::Mod => code::MOD,
            BinOp::Shl => code::LSH,
            BinOp::Shr => code::RSH,
        };
        match op {
            BinOp::Div | BinOp::Mod => {
                if max > MAX_WORD || right > MAX_WORD {
                    return Err(too_wide("it divides"));
                }
                let zero = self.label_for(fail);
                self.a.branch(code::JEQ, 0, zero, NEXT);
            }
            BinOp::Shl | BinOp::Shr => {
                if right > MAX_WORD || (op == BinOp::Shr && max > MAX_WORD) {
                    return Err(too_wide("it shifts"));
                }
                // The language shifts all bits out at a distance of 32 or more; the instruction takes it modulo 32.
                let (gone, done) = (self.a.label(), self.a.label());
                self.a.branch(code::JGE, 32, gone, NEXT);
                self.tax();
                self.a.op(code::LD_MEM, slot);
                self.a.op(code | code::X, 0);
                self.a.goto(done);
                self.place(gone);
                self.a.op(code::LD_IMM, 0);
                self.place(done);
                self.free();
                return Ok(op.max_result(max, right, None));
            }
            _ => {}
        }
        self.tax();
        self.a.op(code::LD_MEM, slot);
        self.a.op(code | code::X, 0);
        self.free();
        Ok(op.max_result(max, right, None))
    }

    /// A ← the lower 32 bits of a field. Returns the largest value it can have.
    fn load(&mut self, load: Load, fail: NodeId) -> Result<u64, Reason> {
        match load {
            Load::U8(at) => self.read(at, 1, fail),
            Load::U16(at) => self.read(at, 2, fail),
            Load::U32(at) => self.read(at, 4, fail),
            Load::U16Le(at) => {
                self.read(at, 2, fail);
                let scratch = self.alloc()?;
                self.swap16(scratch);
                self.free();
            }
            Load::U32Le(at) => {
                self.read(at, 4, fail);
                let scratch = self.alloc()?;
                self.swap32(scratch);
                self.free();
            }
            Load::U64(at) | Load::U64Le(at) => {
                self.check_bounds(at, 8, fail);
                // `wide_word` needs a scratch word; this makes sure that there is one.
                self.alloc()?;
                self.free();
                self.wide_word(load, 1);
            }
            Load::Len => self.length(),
            Load::SrcPort => self.port(0),
            Load::DstPort => self.port(1),
            Load::RxQueue | Load::Cpu => return Err(unknown_in_kernel(load)),
        }
        Ok(load.max())
    }

    /// A ← bytes of the payload, which are checked to be there.
    fn read(&mut self, at: u16, width: usize, fail: NodeId) {
        self.check_bounds(at, width, fail);
        self.payload(at.into(), width);
    }
}
