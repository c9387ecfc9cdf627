//! Scatter: what a receive thread does with a datagram, from the rules to the lane of a queue.
//!
//! [`Scatter`] belongs to one receive thread: it evaluates the rules, copies the datagram into the lane that this thread
//! fills for the chosen [`Queue`], counts, and wakes workers. [`LiveRules`] are shared by all receive threads, so that a
//! reload reaches each of them between two receive passes. Every counter has one writer: [`ThreadCounters`] are a
//! thread's own, and [`rule_counters::RuleCounters`] are a thread's own for one generation of rules.

mod counters;
mod dispatch;
mod live_rules;
mod queue;
mod rule_counters;

pub use counters::{Counter, Dropped, ThreadCounters};
pub use dispatch::{Moderation, Scatter};
pub use live_rules::{LiveRules, RuleStats};
pub use queue::{Queue, Wake};
