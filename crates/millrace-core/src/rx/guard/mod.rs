//! The guard.
mod destination_match;
mod endpoint_sockets;
mod endpoints;
mod fragment_inspection;
mod fragments;
mod memberships;
mod omission;
mod packet;
mod port_holder;
mod receiver;
mod ring_interface;
mod role;
mod selection;
mod selection_program;
mod xdp;

pub use packet::open_for_packet;
pub use receiver::GuardReceiver;
pub use xdp::open_for_xdp;
