//! UDP load generator whose every datagram can be accounted for.

mod pace;
mod path;
pub mod payload;
mod plan;
mod report;
mod route;
mod run;
mod share;
mod sys;

use std::sync::atomic::AtomicBool;

pub use millrace_core::error::{Code, Error, Result};
pub use pace::parse_rate;
pub use payload::{Payload, number, payload};
pub use plan::{Gso, MAX_SEGMENTS, Mac, Plan, Sizes, Via, parse_ports};
pub use report::{Gap, Progress, Report, Retries};
pub use run::run;

/// A flag that SIGINT and SIGTERM set, for the `stop` of [`run`]. A second signal ends the process at once.
pub fn stop_on_signals() -> &'static AtomicBool {
    sys::stop_on_signals()
}
