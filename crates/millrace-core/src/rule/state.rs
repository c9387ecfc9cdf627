//! What actions remember between datagrams, one for each receive thread, so that nothing is shared.

use super::program::Program;

/// State that actions such as `round_robin`, `random` and `sample` keep; one per receive thread.
#[derive(Debug, Clone)]
pub struct RuleState {
    /// Next turn of each `round_robin`.
    turns: Vec<u32>,
    /// Datagrams that each `sample` still drops before it keeps one.
    skips: Vec<u32>,
    /// xorshift64*, never 0.
    random: u64,
}

impl RuleState {
    pub(crate) fn new(program: &Program, thread: usize, seed: u64) -> Self {
        RuleState {
            // Threads begin at different queues, or a burst to all threads would be a burst to queue 0.
            turns: program.round_robins.iter().map(|n| (thread % (*n).max(1) as usize) as u32).collect(),
            skips: vec![0; program.samples as usize],
            // An odd multiplier spreads neighbouring threads; `| 1` keeps the generator off its fixed point 0.
            random: (seed ^ (thread as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1,
        }
    }

    /// Whose turn it is, of `count`.
    #[inline]
    pub(crate) fn turn(&mut self, slot: usize, count: u32) -> u32 {
        // A state of another rule set has other slots; better a fixed queue than a panic.
        let Some(next) = self.turns.get_mut(slot) else { return 0 };
        let turn = *next;
        *next = if turn + 1 >= count { 0 } else { turn + 1 };
        turn
    }

    /// Is this the one in `n` that is kept? The first is.
    #[inline]
    pub(crate) fn sampled(&mut self, slot: usize, n: u32) -> bool {
        let Some(skip) = self.skips.get_mut(slot) else { return true };
        match skip.checked_sub(1) {
            Some(rest) => {
                *skip = rest;
                false
            }
            None => {
                *skip = n.saturating_sub(1);
                true
            }
        }
    }

    #[inline]
    pub(crate) fn random(&mut self) -> u32 {
        let mut x = self.random;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random = x;
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}
