//! Every system call that more than one room needs, once.
//!
//! This is the lowest room: it imports nothing of the crate but its error type, and decides nothing. Each wrapper names the
//! manual page or the kernel's document whose rules it relies on.

pub mod mapping;
pub(crate) mod port_owner;
pub mod scheduling;
pub(crate) mod socket;
