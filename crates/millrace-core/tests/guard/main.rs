//! The packet backend's guard (src/rx/guard): what the ring cannot have is delivered, once, and nothing that the ring has.

#[path = "../rig/mod.rs"]
mod rig;
#[path = "../support/receive.rs"]
mod support;

mod addresses;
mod fragments;
mod local_senders;
mod losses;
mod second_interface;
mod setup;
mod upper_devices;
