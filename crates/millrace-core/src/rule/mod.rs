//! Payload rules: text → program → verdict.
//!
//! The language is described in `docs/rules.md`. A text passes through one stage per file or folder:
//! `lex` → `parse` (`ast`) → `check` → `lower` (`program`) → `decide` → `eval`; `report` renders what went wrong on the
//! way. The program is the meeting point: whatever else is to run rules starts from it, as `lower` leaves it or, if it
//! has a use for binary searches, as `decide` does. So do `cbpf` and `ebpf`, which run the rules in the kernel; `target` says what
//! the kernel cannot do.

mod ast;
mod cbpf;
mod check;
mod decide;
mod dump;
mod ebpf;
mod eval;
mod explain;
pub mod hash;
mod lex;
mod lower;
mod parse;
mod program;
mod report;
mod state;
mod target;
#[cfg(test)]
mod tests;

use crate::datagram::Datagram;
use crate::error::{Code, Error, Result};
use check::{Act, Checked};
use eval::Shortcut;
use program::Program;
use report::Report;

pub use cbpf::CbpfTarget;
pub use ebpf::EarlyDrop;
pub use explain::{Explainer, Outcome, Trial};
pub use state::RuleState;
pub use target::Unsupported;

/// Longest rule text, in bytes. It bounds the work of a compilation; a ConfigMap holds a quarter of it.
const MAX_TEXT: usize = 4 << 20;

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

impl<'a> Facts<'a> {
    /// Those of a datagram, for a receive thread on this CPU.
    #[inline(always)]
    pub fn of(d: &Datagram<'a>, cpu: u16) -> Self {
        Facts {
            payload: d.payload,
            src: d.src.0,
            dst: d.dst.0,
            src_port: d.src_port,
            dst_port: d.dst_port,
            rx_queue: d.rx_queue,
            cpu,
        }
    }
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

/// A compiled rule set for a fixed number of queues.
#[derive(Debug)]
pub struct RuleSet {
    program: Program,
    shortcut: Option<Shortcut>,
    /// Name and canonical text, in order.
    rules: Vec<(String, String)>,
    warnings: Vec<String>,
}

impl RuleSet {
    /// Compiles.
    ///
    /// # Errors
    /// [`crate::error::Code::Rules`]; the message lists every error with line, column and caret.
    pub fn compile(text: &str, queues: u16) -> Result<Self> {
        Ok(build(text, queues, true)?.0)
    }

    /// Fresh state for receive thread `thread`. With one thread (0) a `round_robin` starts at its first queue.
    pub fn state(&self, thread: usize) -> RuleState {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.state_seeded(thread, now.as_nanos() as u64)
    }

    /// As [`RuleSet::state`], with a seed for `random` instead of the time, so that a run can be repeated.
    pub fn state_seeded(&self, thread: usize, seed: u64) -> RuleState {
        RuleState::new(&self.program, thread, seed)
    }

    /// Names in rule order (`rule1`, `rule2`, … where the user gave none; the implicit last one is `default`).
    pub fn names(&self) -> Vec<String> {
        self.rules.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Name and canonical text of every rule, in order.
    pub fn describe(&self) -> Vec<(String, String)> {
        self.rules.clone()
    }

    /// Number of rules, the implicit last one included; every [`Verdict`]'s `rule` is below it.
    #[allow(clippy::len_without_is_empty)] // A rule set is never empty.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// What is allowed but probably not meant, one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Decides.
    #[inline]
    pub fn evaluate(&self, facts: &Facts<'_>, state: &mut RuleState) -> Verdict {
        if let Some(verdict) = self.shortcut.as_ref().and_then(|s| s.take(facts)) {
            return verdict;
        }
        self.program.run(facts, state)
    }
}

/// All stages. Returns the program before binary searches too, empty unless it is not `alone` that is wanted.
fn build(text: &str, queues: u16, alone: bool) -> Result<(RuleSet, Program)> {
    let fail = |message: String| Err(Error::new(Code::Rules, message));
    if queues == 0 {
        return fail("there are no queues; expected at least one".into());
    }
    if text.len() > MAX_TEXT {
        return fail(format!("the rules are {} bytes long; expected at most {MAX_TEXT}", text.len()));
    }
    let mut report = Report::default();
    let rules = parse::parse(text, &mut report);
    if rules.is_empty() && report.is_empty() {
        return fail(
            "there are no rules; expected at least one, such as `mod(u32[0])` or `hash(flow)`".into(),
        );
    }
    let checked = check::check(text, &rules, queues, &mut report);
    if !report.is_empty() {
        return fail(report.render(text));
    }
    let mut program = lower::lower(&checked);
    let plain = if alone { Program::default() } else { program.clone() };
    decide::decide(&mut program);
    let set = RuleSet {
        shortcut: program.shortcut(),
        program,
        warnings: warnings(&checked),
        rules: checked.into_iter().map(|rule| (rule.name, rule.text)).collect(),
    };
    Ok((set, plain))
}

/// See [`RuleSet::warnings`].
fn warnings(rules: &[Checked]) -> Vec<String> {
    let mut reached = rules.iter().filter(|rule| rule.reached);
    if reached.all(|rule| matches!(rule.action, Act::Drop | Act::Sample(_))) {
        return vec!["these rules drop every datagram".into()];
    }
    Vec::new()
}
