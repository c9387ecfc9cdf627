//! Test rig: two network namespaces joined by a veth pair, a sender of raw frames, and the conditions a test can require.
//! ../README.md draws it.
#![allow(dead_code, unreachable_pub, unused_imports, unused_macros)]

use std::time::Duration;

mod pair;
mod raw_sender;
mod require;
pub mod shell;

pub use millrace_core::testing::skip;
pub use pair::{MAC_A, MAC_B, Pair, V4, V6, add_address, await_local_route, in_namespace, mount_own_sysfs};
pub use raw_sender::RawSender;
pub use require::{can_be_real_time, can_make_namespaces};
pub(crate) use require::{require_real_time, require_root};
pub use shell::run;

/// How long a test waits for something that must come before it fails. Too short and a test fails because the machine is
/// busy: setting up a ring waits for an RCU grace period, which was seen to take more than four seconds on an overloaded
/// machine. A longer one only delays the report of a failure.
pub const TIMEOUT: Duration = Duration::from_secs(60);
