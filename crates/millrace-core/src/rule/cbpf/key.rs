//! Actions that spread: from a key to a queue.

use super::super::hash::{self, FINAL_MULTIPLIER, MULTIPLIER};
use super::super::kernel::Reason;
use super::super::load::Load;
use super::super::program::{AddressField, Key, NodeId, Operand, Spread};
use super::super::queues::Queues;
use super::compiler::Compiler;
use super::target::CbpfTarget;
use super::value::MAX_WORD;
use crate::bpf::classic::code;

/// The state of a hash while the program is made: a constant up to the first word that is not, then a scratch word.
#[derive(Clone, Copy)]
enum State {
    Const(u32),
    Scratch,
}

impl Compiler<'_> {
    /// Returns the queue that the key selects.
    pub(super) fn spread(&mut self, by: &Spread, over: Queues, fail: NodeId) -> Result<(), Reason> {
        match by {
            Spread::Mod(Operand::Load(load @ (Load::U64(at) | Load::U64Le(at)))) => {
                self.check_bounds(*at, 8, fail);
                self.reduce_wide(*load, over)?;
            }
            Spread::Mod(value) => {
                // The remainder by a power of two is in the lower bits, whatever is above them.
                if self.value(*value, fail)? > MAX_WORD && !over.count().is_power_of_two() {
                    let what = "it reduces a number that may need more than 32 bits to a number of queues that is no power of two";
                    return Err(what.into());
                }
                self.reduce(over);
            }
            Spread::HashFlow => self.hash(&[Key::Flow], over, fail)?,
            Spread::HashLoad(load) => self.hash(&[Key::Number(Operand::Load(*load))], over, fail)?,
            Spread::Hash(keys) => {
                self.hash(keys.of(&self.program.keys), over, fail)?;
            }
            // `KernelAction::of` has refused the others, each with its reason.
            _ => return Err("it is no function of the datagram".into()),
        }
        if let CbpfTarget::Reuseport { sockets } = self.layout.target
            && u64::from(over.first) + over.count() > sockets.into()
        {
            self.a.op(code::MOD, sockets.max(1).into());
        }
        self.a.ret_a();
        Ok(())
    }

    /// A ← queue, from a number in A.
    fn reduce(&mut self, over: Queues) {
        self.remainder(over);
        if over.first > 0 {
            self.a.op(code::ADD, over.first.into());
        }
    }

    /// A ← A modulo the number of queues.
    fn remainder(&mut self, over: Queues) {
        let count = over.count() as u32;
        if count.is_power_of_two() {
            self.a.op(code::AND, count - 1);
        } else {
            self.a.op(code::MOD, count);
        }
    }

    /// A ← queue, from a 64-bit field, as `(upper % n * (2^32 % n) % n + lower % n) % n`. As n has 16 bits, no intermediate
    /// result needs more than 32.
    fn reduce_wide(&mut self, load: Load, over: Queues) -> Result<(), Reason> {
        let upper = self.alloc()?;
        // `wide_word` needs a scratch word; this makes sure that there is one.
        self.alloc()?;
        self.free();
        if !over.count().is_power_of_two() {
            self.wide_word(load, 0);
            self.remainder(over);
            self.a.op(code::MUL, ((1u64 << 32) % over.count()) as u32);
            self.remainder(over);
            self.a.op(code::ST, upper);
        }
        self.wide_word(load, 1);
        self.remainder(over);
        if !over.count().is_power_of_two() {
            self.a.op(code::LDX_MEM, upper);
            self.x_is_udp_offset = false;
            self.a.op(code::ADD | code::X, 0);
            self.remainder(over);
        }
        self.free();
        if over.first > 0 {
            self.a.op(code::ADD, over.first.into());
        }
        Ok(())
    }

    /// A ← queue, from the hash of the keys.
    fn hash(&mut self, keys: &[Key], over: Queues, fail: NodeId) -> Result<(), Reason> {
        let slot = self.alloc()?;
        let mut state = State::Const(hash::SEED);
        for key in keys {
            state = self.key(key, state, slot, fail)?;
        }
        match state {
            State::Const(h) => self.a.op(code::LD_IMM, h),
            State::Scratch => self.a.op(code::LD_MEM, slot),
        }
        self.xor_shift(16);
        self.a.op(code::MUL, MULTIPLIER);
        self.xor_shift(13);
        self.a.op(code::MUL, FINAL_MULTIPLIER);
        self.xor_shift(16);
        self.free();
        self.reduce(over);
        Ok(())
    }

    /// Mixes a key into the hash. `slot` is the scratch word of the state.
    fn key(&mut self, key: &Key, mut state: State, slot: u32, fail: NodeId) -> Result<State, Reason> {
        match key {
            Key::Number(Operand::Load(load @ (Load::U64(at) | Load::U64Le(at)))) => {
                self.check_bounds(*at, 8, fail);
                // `wide_word` needs a scratch word; this makes sure that there is one.
                self.alloc()?;
                self.free();
                for word in 0..2 {
                    self.wide_word(*load, word);
                    state = self.step(state, slot);
                }
            }
            Key::Number(value) => {
                if self.value(*value, fail)? > MAX_WORD {
                    return Err(
                        "it hashes the result of a calculation that may need more than 32 bits".into()
                    );
                }
                // The upper word of the number is zero, but it counts.
                state = match state {
                    State::Const(h) => State::Const(hash::step(h, 0)),
                    State::Scratch => {
                        let value = self.save()?;
                        self.a.op(code::LD_IMM, 0);
                        self.step(state, slot);
                        self.a.op(code::LD_MEM, value);
                        self.free();
                        State::Scratch
                    }
                };
                state = self.step(state, slot);
            }
            Key::Bytes { from, len } => {
                self.check_bounds(*from, usize::from(*len), fail);
                let (from, end) = (u32::from(*from), u32::from(*from) + u32::from(*len));
                for at in (from..end).step_by(4) {
                    self.partial_word(at, (end - at).min(4))?;
                    state = self.step(state, slot);
                }
            }
            Key::Address(which) => {
                for word in 0..4 {
                    self.address_word(*which, word);
                    state = self.step(state, slot);
                }
            }
            Key::Flow => {
                for word in 0..4 {
                    for which in [AddressField::Src, AddressField::Dst] {
                        self.address_word(which, word);
                        state = self.step(state, slot);
                    }
                }
                self.port(0);
                self.a.op(code::LSH, 16);
                let source = self.save()?;
                self.port(1);
                self.tax();
                self.a.op(code::LD_MEM, source);
                self.a.op(code::OR | code::X, 0);
                self.free();
                state = self.step(state, slot);
            }
        }
        Ok(state)
    }

    /// A ← up to four bytes of the payload, at the left of a word whose other bytes are zero.
    fn partial_word(&mut self, at: u32, bytes: u32) -> Result<(), Reason> {
        if bytes == 3 {
            self.payload(at, 2);
            self.a.op(code::LSH, 16);
            let saved = self.save()?;
            self.payload(at + 2, 1);
            self.a.op(code::LSH, 8);
            self.tax();
            self.a.op(code::LD_MEM, saved);
            self.a.op(code::OR | code::X, 0);
            self.free();
            return Ok(());
        }
        self.payload(at, bytes as usize);
        if bytes < 4 {
            self.a.op(code::LSH, 32 - 8 * bytes);
        }
        Ok(())
    }

    /// Mixes the word in A into the state.
    fn step(&mut self, state: State, slot: u32) -> State {
        match state {
            State::Const(h) => self.a.op(code::XOR, h),
            State::Scratch => {
                self.a.op(code::LDX_MEM, slot);
                self.x_is_udp_offset = false;
                self.a.op(code::XOR | code::X, 0);
            }
        }
        self.a.op(code::MUL, MULTIPLIER);
        self.xor_shift(15);
        self.a.op(code::ST, slot);
        State::Scratch
    }

    /// A ← A ^ (A >> n)
    fn xor_shift(&mut self, n: u32) {
        self.tax();
        self.a.op(code::RSH, n);
        self.a.op(code::XOR | code::X, 0);
    }
}
