//! What holds for every backend: addresses, multicast groups, checksums, rules that run in the kernel, `millrace check`.

#[path = "../rig/mod.rs"]
mod rig;
#[path = "../support/receive.rs"]
mod support;

mod checksum;
mod link_local;
mod multicast;
mod named_tests;
mod preflight;
mod rule_programs;
