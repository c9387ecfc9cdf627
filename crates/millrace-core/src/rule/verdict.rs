//! The decision of a rule set about a datagram.

/// The decision of a rule set about a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The datagram goes to `queue`.
    Queue {
        /// Chosen queue, below the queue count.
        queue: u16,
        /// First and last queue of the range that the rule spills to. When `queue` is full, `queue + 1, …` are tried,
        /// cyclically within the range. `None`: the rule has no `spill`.
        spill: Option<(u16, u16)>,
        /// The lower 32 bits of the number that `mod` reduced, or the hash; 0 for an action without a key.
        key: u32,
        /// Index of the rule that matched.
        rule: u16,
    },
    /// `drop`, or `sample`, dropped the datagram.
    Drop {
        /// Index of the rule that matched.
        rule: u16,
    },
}
