//! The common part of the two BPF compilers: what no kernel program can decide, and what is known about a program before it
//! is translated.

mod action;
mod case_table;
mod header_fields;
mod node_labels;
mod unsupported;

pub(super) use action::{KernelAction, unknown_in_kernel};
pub(super) use case_table::{range_cases, set_cases};
pub(super) use header_fields::HeaderFields;
pub(super) use node_labels::NodeLabels;
pub use unsupported::Unsupported;
pub(super) use unsupported::{Reason, unsupported};
