//! Actions that spread: from a key to a queue.

use super::super::hash::{self, FINAL_MULTIPLIER, MULTIPLIER};
use super::super::kernel::Reason;
use super::super::program::{AddressField, Key, NodeId, Operand, Spread};
use super::super::queues::Queues;
use super::compiler::Compiler;
use super::layout::{NUMBER, stack};
use crate::bpf::ebpf::{Alu, Reg, Size};

impl Compiler<'_, '_> {
    /// Returns the queue that the key selects.
    pub(super) fn spread(&mut self, by: &Spread, over: Queues, fail: NodeId) -> Result<(), Reason> {
        match by {
            Spread::Mod(value) => {
                self.value(*value, fail)?;
                self.a.mov(Reg::R0, NUMBER);
            }
            Spread::HashFlow => self.hash(&[Key::Flow], fail)?,
            Spread::HashLoad(load) => self.hash(&[Key::Number(Operand::Load(*load))], fail)?,
            Spread::Hash(keys) => self.hash(keys.of(&self.program.keys), fail)?,
            // `KernelAction::of` has refused the others, each with its reason.
            _ => return Err("it is no function of the datagram".into()),
        }
        self.a.alu_imm(Alu::Mod, Reg::R0, over.count() as i32).add_imm(Reg::R0, over.first.into()).exit();
        Ok(())
    }

    /// `R0` ← hash of the keys.
    fn hash(&mut self, keys: &[Key], fail: NodeId) -> Result<(), Reason> {
        self.a.alu32_imm(Alu::Mov, Reg::R0, hash::SEED);
        self.a.store(Size::Double, Reg::R10, stack::HASH, Reg::R0);
        for key in keys {
            self.key(key, fail)?;
        }
        self.a.load(Size::Double, Reg::R0, Reg::R10, stack::HASH);
        self.xor_shift(16);
        self.a.alu32_imm(Alu::Mul, Reg::R0, MULTIPLIER);
        self.xor_shift(13);
        self.a.alu32_imm(Alu::Mul, Reg::R0, FINAL_MULTIPLIER);
        self.xor_shift(16);
        Ok(())
    }

    /// Mixes a key into the hash.
    fn key(&mut self, key: &Key, fail: NodeId) -> Result<(), Reason> {
        match key {
            Key::Number(value) => {
                self.value(*value, fail)?;
                self.a.mov(Reg::R0, NUMBER).alu_imm(Alu::Shr, Reg::R0, 32);
                self.mix_word();
                self.a.mov(Reg::R0, NUMBER);
                self.mix_word();
            }
            Key::Bytes { from, len } => {
                self.check_bounds(*from, usize::from(*len), fail);
                let (from, end) = (u32::from(*from), u32::from(*from) + u32::from(*len));
                for at in (from..end).step_by(4) {
                    self.partial_word(at, (end - at).min(4));
                    self.mix_word();
                }
            }
            Key::Address(which) => {
                for i in 0..4 {
                    self.mix_address_word(*which, i);
                }
            }
            Key::Flow => {
                for i in 0..4 {
                    self.mix_address_word(AddressField::Src, i);
                    self.mix_address_word(AddressField::Dst, i);
                }
                // The UDP header begins with both ports, in the order of the hash.
                self.header(0, 4);
                self.mix_word();
            }
        }
        Ok(())
    }

    /// `R0` ← up to four bytes of the payload, at the left of a word whose other bytes are zero.
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

    fn mix_address_word(&mut self, which: AddressField, word: i16) {
        let at = match which {
            AddressField::Src => stack::SRC,
            AddressField::Dst => stack::DST,
        };
        self.a.load(Size::Word, Reg::R0, Reg::R10, at + 4 * word).be(Reg::R0, 32);
        self.mix_word();
    }

    /// Mixes the word in `R0` into the hash.
    fn mix_word(&mut self) {
        self.a.load(Size::Double, Reg::R1, Reg::R10, stack::HASH).alu32(Alu::Xor, Reg::R0, Reg::R1);
        self.a.alu32_imm(Alu::Mul, Reg::R0, MULTIPLIER);
        self.xor_shift(15);
        self.a.store(Size::Double, Reg::R10, stack::HASH, Reg::R0);
    }

    /// `R0` ← `R0 ^ (R0 >> n)`, 32 bits.
    fn xor_shift(&mut self, n: u32) {
        self.a.alu32(Alu::Mov, Reg::R1, Reg::R0).alu32_imm(Alu::Shr, Reg::R1, n).alu32(
            Alu::Xor,
            Reg::R0,
            Reg::R1,
        );
    }
}
