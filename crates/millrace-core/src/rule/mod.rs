//! Payload rules: a small language that decides for each datagram which queue it goes to, or that it is dropped.
//!
//! `docs/rules.md` defines the language. A rule set is compiled once, in the stages of any compiler, and the program that
//! comes out is run on every datagram in user space. Where the kernel can run it too, it is translated further:
//!
//! ```text
//! text → tokens → syntax tree → analysed rules → program → verdict          (eval)
//!                                                       ├→ classic BPF      (cbpf)
//!                                                       ├→ eBPF             (ebpf)
//!                                                       └→ explanation      (explain)
//! ```
//!
//! The stages, in their order:
//!
//! - `lex/` turns the text into tokens.
//! - `parse/` turns tokens into the syntax tree, by recursive descent.
//! - `analyze/` checks types, constants and queue numbers, finds rules that can never match, and yields typed rules.
//! - `lower` turns typed rules into a program: a graph of tests and actions.
//! - `if_to_switch` replaces runs of tests on one field by one binary search.
//! - `eval` runs a program on a datagram. It defines what rules mean; every other stage behind `lower` must agree with it.
//! - `cbpf/` and `ebpf/` translate a program for the kernel, exactly or not at all.
//! - `explain` runs the program without binary searches and records what became of each rule.
//! - `dump` prints a program, and its translations, as human-readable text.
//!
//! What the stages hand on, and what they share:
//!
//! - `span` is a byte range of the text; `operator` the operators, with their meaning.
//! - `ast` is the syntax tree; `canonical` prints it.
//! - `analyze/typed` are the typed rules; `program` is the graph, `load` the numbers it reads, `queues` what it selects from.
//! - `facts` is what a rule may read; `verdict` what it decides; `state` what actions remember between datagrams.
//! - `hash` is the hash of the `hash` action, which is part of the language.
//! - `diagnostics` collects and prints mistakes; `spelling` finds the word that was meant.
//! - `kernel/` holds what both BPF compilers need: what no kernel program can decide, which headers are read, and what is
//!   known about the payload's length at each node.
//! - `set` is the compiled rule set; `compile` runs the stages.
//! - `command` answers `millrace rules` with structures that serialize to its JSON.
//!
//! Everything here is a function of its arguments: no file imports a receiver, and none does I/O.

mod analyze;
mod ast;
mod canonical;
mod cbpf;
pub mod command;
mod compile;
mod diagnostics;
mod dump;
mod ebpf;
mod eval;
mod explain;
mod facts;
mod hash;
mod if_to_switch;
mod kernel;
mod lex;
mod load;
mod lower;
mod operator;
mod parse;
mod program;
mod queues;
mod set;
mod span;
mod spelling;
mod state;
#[cfg(test)]
mod tests;
mod verdict;

pub use cbpf::CbpfTarget;
pub use compile::queue_count;
pub use ebpf::EarlyDrop;
pub use explain::{Explainer, Outcome, RuleTrace};
pub use facts::Facts;
pub use kernel::Unsupported;
pub use set::RuleSet;
pub use state::RuleState;
pub use verdict::Verdict;
