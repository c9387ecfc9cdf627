//! Program → eBPF: to steer a fanout group, and to drop early in XDP. All of the language's arithmetic can be translated,
//! 64 bits wide; what is refused belongs to the receive thread ([`super::kernel::KernelAction`]).
//!
//! `translate` goes through the nodes and makes the program that steers; `early_drop` makes the code that the XDP program runs.
//! `header` finds the UDP header of a socket buffer, `access` reads from headers and payload. `condition` translates tests,
//! `value` calculations, `key` hashes and the choice of a queue. All are methods of the `compiler`, which holds what is known
//! at the current point. `layout` says what registers and stack slots hold, `helpers` which kernel functions are called.

mod access;
mod compiler;
mod condition;
mod early_drop;
mod header;
mod helpers;
mod key;
mod layout;
mod translate;
mod value;

pub use early_drop::EarlyDrop;
pub(super) use helpers::SKB_LOAD_BYTES_RELATIVE;
