//! This room wraps every system call that more than one other room needs, each call once.
//!
//! It is the lowest room: it imports nothing of the crate but the error type, and it decides nothing. Each wrapper names
//! the manual page or the kernel document whose rules it relies on.

mod errno;
pub mod mapping;
pub(crate) mod multicast;
pub(crate) mod poll;
pub(crate) mod port_owner;
pub mod scheduling;
pub(crate) mod socket;
