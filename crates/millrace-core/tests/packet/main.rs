//! The packet backend (src/rx/packet): rings, fanout groups, and the guard beside them.

#[path = "../rig/mod.rs"]
mod rig;
#[path = "../support/receive.rs"]
mod support;

mod fanout;
mod groups;
mod lifecycle;
mod receive;
mod tpacket_v2;
