//! The socket backend: plain UDP sockets in SO_REUSEPORT groups, read with recvmmsg(2). It needs no privilege and works in
//! any container.
//!
//! Every receiver owns one socket for each endpoint of the listen list; the kernel spreads flows over the receivers by its
//! hash of addresses and ports, or by the rules' program. [`open()`] binds them and returns a [`SocketReceiver`] for each
//! thread:
//!
//! | file | idea |
//! |---|---|
//! | `endpoints` | listen list → endpoints |
//! | `bind`, `options`, `multicast` | endpoint → bound sockets with their options and groups |
//! | `reuseport_groups` | the rules' program that selects a socket of a group |
//! | `batch`, `control`, `read`, `deliver` | recvmmsg(2) → messages and control messages → datagrams |
//! | `drop_counter`, `checksum_errors` | what was lost |
//! | `intake` | the end of arrivals |
//!
//! The guard (room `guard` beside this one) is made from the same parts; nothing here imports anything of it.
//!
//! Sources: socket(7), udp(7), ip(7), ipv6(7), Documentation/networking/timestamping.rst.

pub(crate) mod batch;
pub(crate) mod bind;
mod checksum_errors;
pub(crate) mod control;
pub(crate) mod deliver;
pub(crate) mod drop_counter;
pub(crate) mod endpoints;
pub(crate) mod intake;
pub(crate) mod multicast;
mod open;
pub(crate) mod options;
pub(crate) mod read;
mod receiver;
mod reuseport_groups;

pub use open::open;
pub use receiver::SocketReceiver;
