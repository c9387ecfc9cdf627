//! `millrace check`: what this machine, this process and this configuration allow. It finds out by trying what a start
//! would do, not by comparing versions. Nothing is attached to an interface and nothing is left behind.
//!
//! [`run`] makes a [`PreflightReport`] of [`Finding`]s: about this process (`process`), the interface (`interface`), and
//! each backend (`backends`).

mod backends;
mod interface;
mod probe;
mod process;
mod report;

pub use probe::run;
pub use report::{CheckStatus, Finding, PreflightReport};
