//! The ends of rules: from a key to a queue.

use super::super::hash;
use super::super::program::{Key, Load, Operand, Queues, Spread, Which};
use super::super::target::{self, Why};
use super::{At, CbpfTarget, Compiler, code};

const MULTIPLIER: u32 = 0x85eb_ca6b;
const NARROW: u64 = u32::MAX as u64;

/// The state of a hash: a constant until the first word that is none, then a scratch word.
#[derive(Clone, Copy)]
enum State {
    Const(u32),
    Kept,
}

impl Compiler<'_> {
    pub(super) fn spread(&mut self, by: &Spread, over: Queues, fail: At) -> Result<(), Why> {
        match by {
            Spread::Mod(Operand::Load(load @ (Load::U64(at) | Load::U64Le(at)))) => {
                self.need(*at, 8, fail);
                self.reduce_wide(*load, over)?;
            }
            Spread::Mod(value) => {
                // Of a power of two the lower bits are the remainder, whatever is above them.
                if self.value(*value, fail)? > NARROW && !over.count().is_power_of_two() {
                    let what = "it reduces a number that may need more than 32 bits to a number of queues that is no power of two";
                    return Err(what.into());
                }
                self.reduce(over);
            }
            Spread::HashFlow => self.hash(&[Key::Flow], over, fail)?,
            Spread::HashLoad(load) => self.hash(&[Key::Number(Operand::Load(*load))], over, fail)?,
            Spread::Hash(keys) => {
                self.hash(target::slice(&self.program.keys, *keys), over, fail)?;
            }
            Spread::RoundRobin { .. } | Spread::Random | Spread::Cpu | Spread::RxQueue => {
                return Err("it is no function of the datagram".into());
            }
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

    fn remainder(&mut self, over: Queues) {
        let count = over.count() as u32;
        if count.is_power_of_two() {
            self.a.op(code::AND, count - 1);
        } else {
            self.a.op(code::MOD, count);
        }
    }

    /// `(upper % n * (2^32 % n) % n + lower % n) % n`: with n of 16 bits, nothing exceeds 32.
    fn reduce_wide(&mut self, load: Load, over: Queues) -> Result<(), Why> {
        let kept = self.claim()?;
        let spare = self.claim()?; // for `wide_word`
        self.release();
        debug_assert_eq!(spare, kept + 1);
        if !over.count().is_power_of_two() {
            self.wide_word(load, 0);
            self.remainder(over);
            self.a.op(code::MUL, ((1u64 << 32) % over.count()) as u32);
            self.remainder(over);
            self.a.op(code::ST, kept);
        }
        self.wide_word(load, 1);
        self.remainder(over);
        if !over.count().is_power_of_two() {
            self.a.op(code::LDX_MEM, kept);
            self.based = false;
            self.a.op(code::ADD | code::X, 0);
            self.remainder(over);
        }
        self.release();
        if over.first > 0 {
            self.a.op(code::ADD, over.first.into());
        }
        Ok(())
    }

    fn hash(&mut self, keys: &[Key], over: Queues, fail: At) -> Result<(), Why> {
        let kept = self.claim()?;
        let mut state = State::Const(hash::SEED);
        for key in keys {
            state = self.key(key, state, kept, fail)?;
        }
        match state {
            State::Const(h) => self.a.op(code::LD_IMM, h),
            State::Kept => self.a.op(code::LD_MEM, kept),
        }
        self.fold(16);
        self.a.op(code::MUL, MULTIPLIER);
        self.fold(13);
        self.a.op(code::MUL, 0xc2b2_ae35);
        self.fold(16);
        self.release();
        self.reduce(over);
        Ok(())
    }

    fn key(&mut self, key: &Key, mut state: State, kept: u32, fail: At) -> Result<State, Why> {
        match key {
            Key::Number(Operand::Load(load @ (Load::U64(at) | Load::U64Le(at)))) => {
                self.need(*at, 8, fail);
                self.claim()?; // for `wide_word`
                self.release();
                for word in 0..2 {
                    self.wide_word(*load, word);
                    state = self.step(state, kept);
                }
            }
            Key::Number(value) => {
                if self.value(*value, fail)? > NARROW {
                    return Err(
                        "it hashes the result of a calculation that may need more than 32 bits".into()
                    );
                }
                // The upper word is zero.
                state = match state {
                    State::Const(h) => State::Const(hash::step(h, 0)),
                    State::Kept => {
                        let value = self.keep()?;
                        self.a.op(code::LD_IMM, 0);
                        self.step(state, kept);
                        self.a.op(code::LD_MEM, value);
                        self.release();
                        State::Kept
                    }
                };
                state = self.step(state, kept);
            }
            Key::Bytes { from, len } => {
                self.need(*from, usize::from(*len), fail);
                let (from, end) = (u32::from(*from), u32::from(*from) + u32::from(*len));
                for at in (from..end).step_by(4) {
                    self.partial_word(at, (end - at).min(4))?;
                    state = self.step(state, kept);
                }
            }
            Key::Address(which) => {
                for word in 0..4 {
                    self.address_word(*which, word);
                    state = self.step(state, kept);
                }
            }
            Key::Flow => {
                for word in 0..4 {
                    for which in [Which::Src, Which::Dst] {
                        self.address_word(which, word);
                        state = self.step(state, kept);
                    }
                }
                self.port(0);
                self.a.op(code::LSH, 16);
                let source = self.keep()?;
                self.port(1);
                self.tax();
                self.a.op(code::LD_MEM, source);
                self.a.op(code::OR | code::X, 0);
                self.release();
                state = self.step(state, kept);
            }
        }
        Ok(state)
    }

    /// A ← up to four bytes of the payload, from the left of a word.
    fn partial_word(&mut self, at: u32, bytes: u32) -> Result<(), Why> {
        if bytes == 3 {
            self.payload(at, 2);
            self.a.op(code::LSH, 16);
            let kept = self.keep()?;
            self.payload(at + 2, 1);
            self.a.op(code::LSH, 8);
            self.tax();
            self.a.op(code::LD_MEM, kept);
            self.a.op(code::OR | code::X, 0);
            self.release();
            return Ok(());
        }
        self.payload(at, bytes as usize);
        if bytes < 4 {
            self.a.op(code::LSH, 32 - 8 * bytes);
        }
        Ok(())
    }

    /// Takes the word in A into the state.
    fn step(&mut self, state: State, kept: u32) -> State {
        match state {
            State::Const(h) => self.a.op(code::XOR, h),
            State::Kept => {
                self.a.op(code::LDX_MEM, kept);
                self.based = false;
                self.a.op(code::XOR | code::X, 0);
            }
        }
        self.a.op(code::MUL, MULTIPLIER);
        self.fold(15);
        self.a.op(code::ST, kept);
        State::Kept
    }

    /// A ← A ^ (A >> n)
    fn fold(&mut self, n: u32) {
        self.tax();
        self.a.op(code::RSH, n);
        self.a.op(code::XOR | code::X, 0);
    }
}
