//! Sending, by three paths: UDP sockets, AF_PACKET and AF_XDP.
//!
//! `sender` is the trait that `socket`, `packet` and `xdp` implement; `frame` makes the frames of the last two; `open` opens
//! the senders of a run.

mod frame;
mod open;
mod packet;
mod sender;
mod socket;
mod xdp;

pub(crate) use open::open;
pub(crate) use sender::{Accepted, Refusal, Sender};
