//! The state that actions keep between datagrams. Each receive thread has a state of its own, so nothing is shared.

use super::program::Program;

/// The state that `round_robin`, `random` and `sample` keep between datagrams; each receive thread has one.
#[derive(Debug, Clone)]
pub struct RuleState {
    /// The offset that each `round_robin` selects next, from the first queue of its range.
    turns: Vec<u32>,
    /// Datagrams that each `sample` still drops before it keeps one.
    skips: Vec<u32>,
    /// State of a xorshift64* generator (Vigna, 2016), never 0.
    random: u64,
}

impl RuleState {
    pub(crate) fn new(program: &Program, thread: usize, seed: u64) -> Self {
        RuleState {
            // Threads start at different queues; otherwise a burst that reaches all threads would hit queue 0 alone.
            turns: program.round_robins.iter().map(|n| (thread % (*n).max(1) as usize) as u32).collect(),
            skips: vec![0; program.samples as usize],
            // An odd multiplier gives neighbouring threads seeds far apart; `| 1` avoids 0, which the generator maps to 0.
            random: (seed ^ (thread as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1,
        }
    }

    /// The next offset of a `round_robin` over `count` queues.
    #[inline]
    pub(crate) fn next_turn(&mut self, slot: usize, count: u32) -> u32 {
        // The state of another rule set has other slots; a fixed queue is better than a panic.
        let Some(next) = self.turns.get_mut(slot) else { return 0 };
        let turn = *next;
        *next = if turn + 1 >= count { 0 } else { turn + 1 };
        turn
    }

    /// Whether a `sample(n)` keeps this datagram. It keeps the first, and then one in `n`.
    #[inline]
    pub(crate) fn keeps_sample(&mut self, slot: usize, n: u32) -> bool {
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
