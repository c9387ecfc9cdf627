//! Program → classic BPF, for steering: the kernel runs it on each datagram, and it returns the queue's index.
//!
//! Classic BPF (Documentation/networking/filter.rst) has a 32-bit accumulator A, an index register X, sixteen words of
//! scratch memory, forward jumps, and no calls. What can be translated exactly is translated; anything else is refused
//! ([`super::kernel::Unsupported`]) and left to the evaluator. A load beyond the packet would end the program with 0, so a
//! check of the length precedes each, unless every path to it has checked that much already.
//!
//! `target` says where a program is attached; `translate` goes through the nodes. A program begins with the prologue in
//! `header`, which finds the headers and puts what the rules read where `layout` says. `condition` translates tests, `value`
//! calculations, `key` hashes and the choice of a queue; they read the packet through `access`. All are methods of the
//! `compiler`, which holds what is known at the current point.

mod access;
mod compiler;
mod condition;
mod header;
mod key;
mod layout;
mod target;
mod translate;
mod value;

pub use target::CbpfTarget;
