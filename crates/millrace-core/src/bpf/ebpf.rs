//! An eBPF assembler with typed registers and labels, for as many instructions as our programs need.
//!
//! The encoding is that of Documentation/bpf/standardization/instruction-set.rst. An instruction is one `u64` in host order
//! (`struct bpf_insn`), so a program is passed to the kernel as it is. The methods say what an instruction does in the
//! notation of that document.

use std::ops::Range;

use crate::error::{Code, Error, Result};

/// A register. A call takes its arguments in `R1`–`R5` and changes them, returns its result in `R0`, and keeps `R6`–`R9`.
/// `R10` is the read-only frame pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Reg {
    R0 = 0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// Width of a load; the loaded value is zero-extended to 64 bits and in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Size {
    /// 4 bytes.
    Word = 0x00,
    /// 2 bytes.
    Half = 0x08,
    /// 1 byte.
    Byte = 0x10,
    /// 8 bytes.
    Double = 0x18,
}

/// Unsigned comparison of a conditional jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cond {
    /// `==`
    Eq = 0x10,
    /// `>`
    Gt = 0x20,
    /// `>=`
    Ge = 0x30,
    /// Any of the bits set.
    Set = 0x40,
    /// `!=`
    Ne = 0x50,
    /// `<`
    Lt = 0xa0,
    /// `<=`
    Le = 0xb0,
}

/// Arithmetic. Division by zero gives 0 and a remainder by zero gives the dividend; neither traps, so check before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Alu {
    Add = 0x00,
    Sub = 0x10,
    Mul = 0x20,
    Div = 0x30,
    Or = 0x40,
    And = 0x50,
    Shl = 0x60,
    Shr = 0x70,
    Mod = 0x90,
    Xor = 0xa0,
    Mov = 0xb0,
}

/// `BPF_LDX | BPF_MEM`: loads from memory.
const LDX_MEM: u8 = 0x61;
/// `BPF_STX | BPF_MEM`: stores a register to memory.
const STX_MEM: u8 = 0x63;
/// `BPF_ALU`: arithmetic on 32 bits.
const ALU32: u8 = 0x04;
/// `BPF_ALU64`: arithmetic on 64 bits.
const ALU64: u8 = 0x07;
/// `BPF_JMP`: jumps that compare 64 bits.
const JMP: u8 = 0x05;
/// `BPF_JMP32`: jumps that compare 32 bits.
const JMP32: u8 = 0x06;
/// The second operand is a register instead of the immediate (`BPF_X`).
const SOURCE_REGISTER: u8 = 0x08;
/// `BPF_STX | BPF_ATOMIC | BPF_DW`; with 0 as the immediate it adds (`BPF_ADD`).
const ATOMIC_ADD_64: u8 = 0xdb;
/// `BPF_JMP | BPF_JA`.
const JUMP_ALWAYS: u8 = 0x05;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// `BPF_JMP | BPF_EXIT`.
const EXIT: u8 = 0x95;
/// `BPF_ALU | BPF_END | BPF_TO_BE`: from host order to network order, or back.
const TO_BE: u8 = 0xdc;
/// `BPF_LD | BPF_IMM | BPF_DW`: a 64-bit immediate in two slots.
const LD_IMM64: u8 = 0x18;
/// The source register of [`LD_IMM64`] where the immediate is a map's descriptor (`BPF_PSEUDO_MAP_FD`).
const PSEUDO_MAP_FD: u8 = 1;

/// A position in the program to jump to, which may be placed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// A program being written.
#[derive(Debug, Default)]
pub struct Assembler {
    code: Vec<u64>,
    /// Slot of each label, once it is placed.
    labels: Vec<Option<usize>>,
    /// Slot of each jump, and the label it leads to.
    jumps: Vec<(usize, Label)>,
}

/// Encodes one instruction (`struct bpf_insn`).
fn encode(op: u8, dst: u8, src: u8, offset: i16, imm: i32) -> u64 {
    u64::from_ne_bytes({
        let (o, i) = (offset.to_ne_bytes(), imm.to_ne_bytes());
        [op, dst | src << 4, o[0], o[1], i[0], i[1], i[2], i[3]]
    })
}

impl Assembler {
    /// Starts an empty program.
    pub fn new() -> Self {
        Self::default()
    }

    fn push(&mut self, op: u8, dst: Reg, src: u8, offset: i16, imm: i32) -> &mut Self {
        self.code.push(encode(op, dst as u8, src, offset, imm));
        self
    }

    /// Makes a label that [`Assembler::place`] places.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places `label` at the next instruction. [`Assembler::finish`] cannot see that a label was placed twice, so that panics
    /// in debug builds.
    pub fn place(&mut self, label: Label) -> &mut Self {
        debug_assert!(self.labels[label.0].is_none(), "label placed twice");
        self.labels[label.0] = Some(self.code.len());
        self
    }

    /// `dst = *(size *)(src + offset)`
    pub fn load(&mut self, size: Size, dst: Reg, src: Reg, offset: i16) -> &mut Self {
        self.push(LDX_MEM | size as u8, dst, src as u8, offset, 0)
    }

    /// `dst = imm` (sign-extended)
    pub fn mov_imm(&mut self, dst: Reg, imm: i32) -> &mut Self {
        self.alu_imm(Alu::Mov, dst, imm)
    }

    /// `dst = src`
    pub fn mov(&mut self, dst: Reg, src: Reg) -> &mut Self {
        self.alu(Alu::Mov, dst, src)
    }

    /// `dst += imm`
    pub fn add_imm(&mut self, dst: Reg, imm: i32) -> &mut Self {
        self.alu_imm(Alu::Add, dst, imm)
    }

    /// Turns the low 16 bits from network order to host order, or back, and clears the rest.
    pub fn be16(&mut self, dst: Reg) -> &mut Self {
        self.be(dst, 16)
    }

    /// Turns the low `bits` (16, 32 or 64) from network order to host order, or back, and clears the rest.
    pub fn be(&mut self, dst: Reg, bits: u8) -> &mut Self {
        self.push(TO_BE, dst, 0, 0, bits.into())
    }

    /// `*(size *)(dst + offset) = src`
    pub fn store(&mut self, size: Size, dst: Reg, offset: i16, src: Reg) -> &mut Self {
        self.push(STX_MEM | size as u8, dst, src as u8, offset, 0)
    }

    /// `*(u64 *)dst += src`, atomically.
    pub fn atomic_add(&mut self, dst: Reg, src: Reg) -> &mut Self {
        self.push(ATOMIC_ADD_64, dst, src as u8, 0, 0)
    }

    /// `dst = imm`, all 64 bits of it.
    pub fn mov_imm64(&mut self, dst: Reg, imm: u64) -> &mut Self {
        self.push(LD_IMM64, dst, 0, 0, imm as i32);
        self.code.push(encode(0, 0, 0, 0, (imm >> 32) as i32));
        self
    }

    /// `dst = dst op src`, 64 bits.
    pub fn alu(&mut self, op: Alu, dst: Reg, src: Reg) -> &mut Self {
        self.push(ALU64 | op as u8 | SOURCE_REGISTER, dst, src as u8, 0, 0)
    }

    /// `dst = dst op imm` (sign-extended), 64 bits.
    pub fn alu_imm(&mut self, op: Alu, dst: Reg, imm: i32) -> &mut Self {
        self.push(ALU64 | op as u8, dst, 0, 0, imm)
    }

    /// `dst = dst op src`, 32 bits; the upper half becomes 0.
    pub fn alu32(&mut self, op: Alu, dst: Reg, src: Reg) -> &mut Self {
        self.push(ALU32 | op as u8 | SOURCE_REGISTER, dst, src as u8, 0, 0)
    }

    /// `dst = dst op imm`, 32 bits; the upper half becomes 0.
    pub fn alu32_imm(&mut self, op: Alu, dst: Reg, imm: u32) -> &mut Self {
        self.push(ALU32 | op as u8, dst, 0, 0, imm as i32)
    }

    /// Jumps when `cond` holds between the 64 bits of `dst` and `imm` (sign-extended).
    pub fn jump_if64(&mut self, dst: Reg, cond: Cond, imm: i32, to: Label) -> &mut Self {
        self.jumps.push((self.code.len(), to));
        self.push(JMP | cond as u8, dst, 0, 0, imm)
    }

    /// Jumps always.
    pub fn jump(&mut self, to: Label) -> &mut Self {
        self.jumps.push((self.code.len(), to));
        self.push(JUMP_ALWAYS, Reg::R0, 0, 0, 0)
    }

    /// Jumps when `cond` holds between the low 32 bits of `dst` and `imm`. It compares 32 bits (Linux 5.1), because 64 would
    /// sign-extend `imm`, and addresses use all 32 bits.
    pub fn jump_if(&mut self, dst: Reg, cond: Cond, imm: u32, to: Label) -> &mut Self {
        self.jumps.push((self.code.len(), to));
        self.push(JMP32 | cond as u8, dst, 0, 0, imm as i32)
    }

    /// Jumps when `cond` holds between the 64 bits of `dst` and those of `src`, which may both be packet pointers.
    pub fn jump_if_reg(&mut self, dst: Reg, cond: Cond, src: Reg, to: Label) -> &mut Self {
        self.jumps.push((self.code.len(), to));
        self.push(JMP | cond as u8 | SOURCE_REGISTER, dst, src as u8, 0, 0)
    }

    /// Jumps when any of the 64 bits of `dst` is set.
    pub fn jump_if_not_zero(&mut self, dst: Reg, to: Label) -> &mut Self {
        self.jump_if64(dst, Cond::Ne, 0, to)
    }

    /// `dst =` the map behind `fd`. The kernel takes its own reference when the program is loaded.
    pub fn load_map(&mut self, dst: Reg, fd: i32) -> &mut Self {
        self.push(LD_IMM64, dst, PSEUDO_MAP_FD, 0, fd);
        self.code.push(0);
        self
    }

    /// Calls the helper with this number (bpf-helpers(7), `enum bpf_func_id`).
    pub fn call(&mut self, helper: i32) -> &mut Self {
        self.push(CALL, Reg::R0, 0, 0, helper)
    }

    /// Returns `R0`.
    pub fn exit(&mut self) -> &mut Self {
        self.push(EXIT, Reg::R0, 0, 0, 0)
    }

    /// Returns the number of 8-byte slots so far.
    pub(crate) fn len(&self) -> usize {
        self.code.len()
    }

    /// Patches the jumps and returns the program.
    ///
    /// # Errors
    /// [`Code::Unsupported`] when a jump is longer than its 16 bits hold; [`Code::State`] when a label was not placed.
    pub fn finish(mut self) -> Result<Vec<u64>> {
        const OFFSET_BYTES: Range<usize> = 2..4;
        for &(at, label) in &self.jumps {
            let target = self.labels[label.0].ok_or_else(|| {
                Error::new(
                    Code::State,
                    format!("eBPF assembler: the label of the jump at {at} was never placed"),
                )
            })?;
            // An offset counts from the instruction behind the jump.
            let distance = target as i64 - at as i64 - 1;
            let offset = i16::try_from(distance).map_err(|_| {
                Error::new(
                    Code::Unsupported,
                    format!("eBPF program too long: a jump of {distance} instructions, at most 32767 fit"),
                )
            })?;
            let mut bytes = self.code[at].to_ne_bytes();
            bytes[OFFSET_BYTES].copy_from_slice(&offset.to_ne_bytes());
            self.code[at] = u64::from_ne_bytes(bytes);
        }
        Ok(self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cond::*, Reg::*, *};

    fn bytes(code: &[u64]) -> Vec<[u8; 8]> {
        code.iter().map(|i| i.to_ne_bytes()).collect()
    }

    #[test]
    fn encodings_of_the_instruction_set_document() {
        let mut a = Assembler::new();
        a.load(Size::Half, R5, R2, 12).mov_imm(R0, -2).mov(R6, R1).add_imm(R2, 14).be16(R5).call(51).exit();
        a.load(Size::Byte, R1, R2, 0).load(Size::Word, R1, R2, 0).load(Size::Double, R1, R2, -8);
        assert_eq!(
            bytes(&a.finish().unwrap()),
            [
                [0x69, 0x25, 12, 0, 0, 0, 0, 0],
                [0xb7, 0x00, 0, 0, 0xfe, 0xff, 0xff, 0xff],
                [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
                [0x07, 0x02, 0, 0, 14, 0, 0, 0],
                [0xdc, 0x05, 0, 0, 16, 0, 0, 0],
                [0x85, 0x00, 0, 0, 51, 0, 0, 0],
                [0x95, 0x00, 0, 0, 0, 0, 0, 0],
                [0x71, 0x21, 0, 0, 0, 0, 0, 0],
                [0x61, 0x21, 0, 0, 0, 0, 0, 0],
                [0x79, 0x21, 0xf8, 0xff, 0, 0, 0, 0],
            ]
        );
    }

    #[test]
    fn arithmetic_and_stores_of_the_instruction_set_document() {
        let mut a = Assembler::new();
        a.alu(Alu::Mul, R7, R0).alu_imm(Alu::And, R7, -1).alu32(Alu::Xor, R1, R0).alu32_imm(Alu::Shr, R1, 15);
        a.store(Size::Double, R10, -8, R7).atomic_add(R0, R1).be(R0, 64).mov_imm64(R1, 0x1_8000_0002);
        assert_eq!(
            bytes(&a.finish().unwrap()),
            [
                [0x2f, 0x07, 0, 0, 0, 0, 0, 0],
                [0x57, 0x07, 0, 0, 0xff, 0xff, 0xff, 0xff],
                [0xac, 0x01, 0, 0, 0, 0, 0, 0],
                [0x74, 0x01, 0, 0, 15, 0, 0, 0],
                [0x7b, 0x7a, 0xf8, 0xff, 0, 0, 0, 0],
                [0xdb, 0x10, 0, 0, 0, 0, 0, 0],
                [0xdc, 0x00, 0, 0, 64, 0, 0, 0],
                [0x18, 0x01, 0, 0, 2, 0, 0, 0x80],
                [0, 0, 0, 0, 1, 0, 0, 0],
            ]
        );
    }

    #[test]
    fn jumps_are_relative_to_the_next_instruction_and_count_both_slots_of_a_map_load() {
        let mut a = Assembler::new();
        let (start, end) = (a.label(), a.label());
        a.place(start).jump_if(R5, Eq, 0xffff_fffe, end).load_map(R1, 7).jump_if_reg(R4, Gt, R3, end);
        a.jump(start).place(end).exit();
        assert_eq!(
            bytes(&a.finish().unwrap()),
            [
                [0x16, 0x05, 4, 0, 0xfe, 0xff, 0xff, 0xff],
                [0x18, 0x11, 0, 0, 7, 0, 0, 0],
                [0; 8],
                [0x2d, 0x34, 1, 0, 0, 0, 0, 0],
                [0x05, 0x00, 0xfb, 0xff, 0, 0, 0, 0],
                [0x95, 0x00, 0, 0, 0, 0, 0, 0],
            ]
        );
    }

    #[test]
    fn a_missing_label_and_a_long_jump_are_errors() {
        let mut a = Assembler::new();
        let nowhere = a.label();
        a.jump(nowhere);
        assert_eq!(a.finish().unwrap_err().code, Code::State);
        let mut a = Assembler::new();
        let far = a.label();
        a.jump(far);
        for _ in 0..32_768 {
            a.exit();
        }
        a.place(far).exit();
        assert_eq!(a.finish().unwrap_err().code, Code::Unsupported);
    }
}
