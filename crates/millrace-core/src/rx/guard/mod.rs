//! The guard: bound sockets that own our ports beside a backend that reads below the stack.

mod packet;
mod program;
mod xdp;

pub(in crate::rx) use packet::Sorting;
pub use packet::open_for_packet;
pub use xdp::open_for_xdp;
