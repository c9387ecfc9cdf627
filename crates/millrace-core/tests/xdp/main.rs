//! AF_XDP (src/rx/xdp) over veth, natively and in generic mode.

#[path = "../rig/mod.rs"]
mod rig;
#[path = "../support/receive.rs"]
mod support;
#[path = "../support/xdp.rs"]
mod xdp_support;

mod close;
mod engine;
mod foreign_program;
mod jumbo;
mod link_state;
mod open;
mod program;
mod receive;
mod removed_interface;
mod rx_queues;
mod settings;
