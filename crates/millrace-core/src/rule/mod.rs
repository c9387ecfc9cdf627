//! Payload rules: text → program → verdict.

use crate::error::Result;

/// What a rule may look at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// UDP payload.
    pub payload: &'a [u8],
    /// Source address, 16 bytes, IPv4 mapped.
    pub src: [u8; 16],
    /// Destination address, 16 bytes, IPv4 mapped.
    pub dst: [u8; 16],
    /// Source port, host order.
    pub src_port: u16,
    /// Destination port, host order.
    pub dst_port: u16,
    /// rx queue (or member index).
    pub rx_queue: u16,
    /// CPU of the receive thread.
    pub cpu: u16,
}

/// What the rules decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Deliver to `queue`.
    Queue {
        /// Chosen queue, below the queue count.
        queue: u16,
        /// The queues to try next when it is full: `queue + 1, …` cyclic inside `first..=last`; `None`: no spill.
        spill: Option<(u16, u16)>,
        /// The 32-bit key value the action reduced or hashed; 0 where it has none.
        key: u32,
        /// Index of the rule that matched.
        rule: u16,
    },
    /// Drop, by `drop` or by `sample`.
    Drop {
        /// Index of the rule that matched.
        rule: u16,
    },
}

/// State that actions such as `round_robin`, `random` and `sample` keep; one per receive thread.
#[derive(Debug)]
pub struct RuleState;

/// A compiled rule set for a fixed number of queues.
#[derive(Debug)]
pub struct RuleSet;

impl RuleSet {
    /// Compiles.
    ///
    /// # Errors
    /// [`crate::error::Code::Rules`]; the message lists every error with line, column and caret.
    pub fn compile(_text: &str, _queues: u16) -> Result<Self> {
        Ok(RuleSet)
    }

    /// Fresh state for receive thread `thread` of `threads`.
    pub fn state(&self, _thread: usize) -> RuleState {
        RuleState
    }

    /// Names in rule order (`rule1`, `rule2`, … where the user gave none; the implicit last one is `default`).
    pub fn names(&self) -> Vec<String> {
        vec!["default".into()]
    }

    /// Decides.
    pub fn evaluate(&self, _facts: &Facts<'_>, _state: &mut RuleState) -> Verdict {
        Verdict::Queue { queue: 0, spill: None, key: 0, rule: 0 }
    }
}
