//! Receiving: three backends behind one trait.
//!
//! A [`Receiver`] belongs to one receive thread and hands what it reads to a [`Sink`]. [`xdp`], [`packet`] and
//! [`socket`] each open one receiver per thread; [`ladder`] tries them in order and explains why one was refused.
//! [`RulePrograms`] are the rules as programs that the kernel runs, and [`early`] the drops among them.

mod backend_info;
pub mod early;
pub mod guard;
mod kernel_counters;
pub mod ladder;
mod local;
mod no_guard;
mod opened;
pub mod packet;
mod receiver;
pub mod rule_programs;
pub mod socket;
pub mod xdp;

pub use backend_info::BackendInfo;
pub use kernel_counters::KernelCounters;
pub use no_guard::NoGuard;
pub use opened::Opened;
pub use receiver::{Receiver, Sink};
pub use rule_programs::{ReplacePrograms, RulePrograms, STEERING};
