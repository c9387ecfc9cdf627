//! The ends of rules: from a key to a queue.

use super::super::hash;
use super::super::program::{Key, Operand, Queues, Spread, Which};
use super::super::target::{self, Why};
use super::{At, Compiler, NUMBER, stack};
use crate::bpf::ebpf::{Alu, Reg, Size};

const MULTIPLIER: u32 = 0x85eb_ca6b;

impl Compiler<'_, '_> {
    pub(super) fn spread(&mut self, by: &Spread, over: Queues, fail: At) -> Result<(), Why> {
        match by {
            Spread::Mod(value) => {
                self.value(*value, fail)?;
                self.a.mov(Reg::R0, NUMBER);
            }
            Spread::HashFlow => self.hash(&[Key::Flow], fail)?,
            Spread::HashLoad(load) => self.hash(&[Key::Number(Operand::Load(*load))], fail)?,
            Spread::Hash(keys) => self.hash(target::slice(&self.program.keys, *keys), fail)?,
            Spread::RoundRobin { .. } | Spread::Random | Spread::Cpu | Spread::RxQueue => {
                return Err("it is no function of the datagram".into());
            }
        }
        self.a.alu_imm(Alu::Mod, Reg::R0, over.count() as i32).add_imm(Reg::R0, over.first.into()).exit();
        Ok(())
    }

    /// `R0` ← hash of the keys.
    fn hash(&mut self, keys: &[Key], fail: At) -> Result<(), Why> {
        self.a.alu32_imm(Alu::Mov, Reg::R0, hash::SEED);
        self.a.store(Size::Double, Reg::R10, stack::HASH, Reg::R0);
        for key in keys {
            self.key(key, fail)?;
        }
        self.a.load(Size::Double, Reg::R0, Reg::R10, stack::HASH);
        self.fold(16);
        self.a.alu32_imm(Alu::Mul, Reg::R0, MULTIPLIER);
        self.fold(13);
        self.a.alu32_imm(Alu::Mul, Reg::R0, 0xc2b2_ae35);
        self.fold(16);
        Ok(())
    }

    fn key(&mut self, key: &Key, fail: At) -> Result<(), Why> {
        match key {
            Key::Number(value) => {
                self.value(*value, fail)?;
                self.a.mov(Reg::R0, NUMBER).alu_imm(Alu::Shr, Reg::R0, 32);
                self.word();
                self.a.mov(Reg::R0, NUMBER);
                self.word();
            }
            Key::Bytes { from, len } => {
                self.need(*from, usize::from(*len), fail);
                let (from, end) = (u32::from(*from), u32::from(*from) + u32::from(*len));
                for at in (from..end).step_by(4) {
                    self.partial_word(at, (end - at).min(4));
                    self.word();
                }
            }
            Key::Address(which) => {
                for i in 0..4 {
                    self.address_word(*which, i);
                }
            }
            Key::Flow => {
                for i in 0..4 {
                    self.address_word(Which::Src, i);
                    self.address_word(Which::Dst, i);
                }
                // Both ports, as they stand in the header.
                self.header(0, 4);
                self.word();
            }
        }
        Ok(())
    }

    /// `R0` ← up to four bytes of the payload, from the left of a word.
    fn partial_word(&mut self, at: u32, bytes: u32) {
        if bytes == 3 {
            self.payload(at, 2, true);
            self.a.mov(NUMBER, Reg::R0);
            self.payload(at + 2, 1, true);
            self.a.alu_imm(Alu::Shl, NUMBER, 8).alu(Alu::Or, Reg::R0, NUMBER);
        } else {
            self.payload(at, bytes as usize, true);
        }
        if bytes < 4 {
            self.a.alu_imm(Alu::Shl, Reg::R0, 32 - 8 * bytes as i32);
        }
    }

    fn address_word(&mut self, which: Which, word: i16) {
        let at = match which {
            Which::Src => stack::SRC,
            Which::Dst => stack::DST,
        };
        self.a.load(Size::Word, Reg::R0, Reg::R10, at + 4 * word).be(Reg::R0, 32);
        self.word();
    }

    /// Takes the word in `R0` into the hash.
    fn word(&mut self) {
        self.a.load(Size::Double, Reg::R1, Reg::R10, stack::HASH).alu32(Alu::Xor, Reg::R0, Reg::R1);
        self.a.alu32_imm(Alu::Mul, Reg::R0, MULTIPLIER);
        self.fold(15);
        self.a.store(Size::Double, Reg::R10, stack::HASH, Reg::R0);
    }

    /// `R0` ← `R0 ^ (R0 >> n)`, 32 bits.
    fn fold(&mut self, n: u32) {
        self.a.alu32(Alu::Mov, Reg::R1, Reg::R0).alu32_imm(Alu::Shr, Reg::R1, n).alu32(
            Alu::Xor,
            Reg::R0,
            Reg::R1,
        );
    }
}
