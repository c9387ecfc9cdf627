//! Loads and arithmetic. The language calculates with 64 bits and A has 32, so each step keeps track of how large the
//! value can be: A always holds its lower 32 bits, and where that is not the whole value, only what depends on nothing
//! else may be done with it.

use super::super::ast::BinOp;
use super::super::check::bound_of;
use super::super::program::{Load, Operand, Step, Which};
use super::super::target::{self, Why};
use super::{At, Compiler, Subject, code};
use crate::bpf::classic::NEXT;

/// `BPF_MEMWORDS`.
const SCRATCH: u32 = 16;
const NARROW: u64 = u32::MAX as u64;

fn too_wide(what: &str) -> Why {
    format!("{what} a number that may need more than 32 bits, all that classic BPF calculates with")
}

impl Compiler<'_> {
    pub(super) fn tax(&mut self) {
        self.a.op(code::TAX, 0);
        self.based = false;
    }

    /// Another scratch word, until [`Compiler::release`].
    pub(super) fn claim(&mut self) -> Result<u32, Why> {
        if self.used == SCRATCH {
            return Err(format!(
                "it needs more intermediate results than fit beside the header fields in {SCRATCH} words of scratch memory"
            ));
        }
        self.used += 1;
        Ok(self.used - 1)
    }

    /// A → another scratch word.
    pub(super) fn keep(&mut self) -> Result<u32, Why> {
        let slot = self.claim()?;
        self.a.op(code::ST, slot);
        Ok(slot)
    }

    pub(super) fn release(&mut self) {
        self.used -= 1;
    }

    /// The value, ready to be compared.
    pub(super) fn subject(&mut self, value: Operand, fail: At) -> Result<Subject, Why> {
        match value {
            Operand::Load(load @ (Load::U64(at) | Load::U64Le(at))) => {
                self.need(at, 8, fail);
                Ok(Subject::Wide(load))
            }
            Operand::Load(Load::Len) => {
                self.length();
                Ok(Subject::Length)
            }
            value => {
                self.exact(value, fail)?;
                Ok(Subject::Narrow)
            }
        }
    }

    /// A ← the value, all of it.
    pub(super) fn exact(&mut self, value: Operand, fail: At) -> Result<(), Why> {
        if self.value(value, fail)? > NARROW { Err(too_wide("it compares")) } else { Ok(()) }
    }

    /// A ← the lower 32 bits of the value. Returns the largest value it can have.
    pub(super) fn value(&mut self, value: Operand, fail: At) -> Result<u64, Why> {
        match value {
            Operand::Load(load) => self.load(load, fail),
            Operand::Code(steps) => self.calculate(target::slice(&self.program.steps, steps), fail),
        }
    }

    fn calculate(&mut self, steps: &[Step], fail: At) -> Result<u64, Why> {
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
                    let left = self.keep()?;
                    let right = self.load(load, fail)?;
                    self.binary(op, (left, max), right, fail)?
                }
                Step::Push => {
                    stack.push((self.keep()?, max));
                    max
                }
                Step::Pop(op) => {
                    let left = stack.pop().ok_or_else(|| Why::from("its calculation is not well formed"))?;
                    self.binary(op, left, max, fail)?
                }
            };
        }
        Ok(max)
    }

    /// A ← A op constant; `max` is the largest left side.
    fn immediate(&mut self, op: BinOp, max: u64, n: u64) -> Result<u64, Why> {
        let low = n as u32;
        let narrow = max <= NARROW;
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
            BinOp::Div if n <= NARROW => self.a.op(code::DIV, low),
            BinOp::Div => self.a.op(code::LD_IMM, 0),
            BinOp::Mod if n <= NARROW => self.a.op(code::MOD, low),
            BinOp::Mod => {}
        }
        Ok(bound_of(max, op, n, Some(n)))
    }

    /// A ← kept word op A, and gives the word back. `left` is where the word is and the largest value it can have.
    fn binary(&mut self, op: BinOp, left: (u32, u64), right: u64, fail: At) -> Result<u64, Why> {
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
                if max > NARROW || right > NARROW {
                    return Err(too_wide("it divides"));
                }
                let zero = self.way(fail);
                self.a.branch(code::JEQ, 0, zero, NEXT);
            }
            BinOp::Shl | BinOp::Shr => {
                if right > NARROW || (op == BinOp::Shr && max > NARROW) {
                    return Err(too_wide("it shifts"));
                }
                // Of 32 bits none is left; the instruction takes fewer.
                let (gone, done) = (self.a.label(), self.a.label());
                self.a.branch(code::JGE, 32, gone, NEXT);
                self.tax();
                self.a.op(code::LD_MEM, slot);
                self.a.op(code | code::X, 0);
                self.a.goto(done);
                self.place(gone);
                self.a.op(code::LD_IMM, 0);
                self.place(done);
                self.release();
                return Ok(bound_of(max, op, right, None));
            }
            _ => {}
        }
        self.tax();
        self.a.op(code::LD_MEM, slot);
        self.a.op(code | code::X, 0);
        self.release();
        Ok(bound_of(max, op, right, None))
    }

    /// A ← the lower 32 bits of a field. Returns the largest value it can have.
    fn load(&mut self, load: Load, fail: At) -> Result<u64, Why> {
        match load {
            Load::U8(at) => self.read(at, 1, fail),
            Load::U16(at) => self.read(at, 2, fail),
            Load::U32(at) => self.read(at, 4, fail),
            Load::U16Le(at) => {
                self.read(at, 2, fail);
                let kept = self.claim()?;
                self.swap16(kept);
                self.release();
            }
            Load::U32Le(at) => {
                self.read(at, 4, fail);
                let kept = self.claim()?;
                self.swap32(kept);
                self.release();
            }
            Load::U64(at) | Load::U64Le(at) => {
                self.need(at, 8, fail);
                // `wide_word` borrows a scratch word that may not be there.
                self.claim()?;
                self.release();
                self.wide_word(load, 1);
            }
            Load::Len => self.length(),
            Load::SrcPort => self.port(0),
            Load::DstPort => self.port(1),
            Load::RxQueue | Load::Cpu => return Err(target::refuse(load)),
        }
        Ok(load.max())
    }

    fn read(&mut self, at: u16, width: usize, fail: At) {
        self.need(at, width, fail);
        self.payload(at.into(), width);
    }

    /// A ← the upper (0) or lower (1) word of a 64-bit field that is known to be there.
    pub(super) fn wide_word(&mut self, load: Load, word: u32) {
        match load {
            Load::U64Le(at) => {
                self.payload(u32::from(at) + 4 * (1 - word), 4);
                self.swap32(self.used.min(SCRATCH - 1));
            }
            Load::U64(at) => self.payload(u32::from(at) + 4 * word, 4),
            _ => {}
        }
    }

    /// A ← word of an address.
    pub(super) fn address_word(&mut self, which: Which, word: usize) {
        let slot = match which {
            Which::Src => self.layout.src,
            Which::Dst => self.layout.dst,
        };
        self.a.op(code::LD_MEM, slot.unwrap_or(0) + word as u32);
    }

    fn swap16(&mut self, kept: u32) {
        self.tax();
        self.a.op(code::RSH, 8);
        self.a.op(code::ST, kept);
        self.a.op(code::TXA, 0);
        self.a.op(code::AND, 0xff);
        self.a.op(code::LSH, 8);
        self.a.op(code::LDX_MEM, kept);
        self.a.op(code::OR | code::X, 0);
    }

    fn swap32(&mut self, kept: u32) {
        // Bytes within halves, then the halves.
        self.tax();
        self.a.op(code::RSH, 8);
        self.a.op(code::AND, 0x00ff_00ff);
        self.a.op(code::ST, kept);
        self.a.op(code::TXA, 0);
        self.a.op(code::AND, 0x00ff_00ff);
        self.a.op(code::LSH, 8);
        self.a.op(code::LDX_MEM, kept);
        self.a.op(code::OR | code::X, 0);
        self.a.op(code::TAX, 0);
        self.a.op(code::LSH, 16);
        self.a.op(code::ST, kept);
        self.a.op(code::TXA, 0);
        self.a.op(code::RSH, 16);
        self.a.op(code::LDX_MEM, kept);
        self.a.op(code::OR | code::X, 0);
    }
}
