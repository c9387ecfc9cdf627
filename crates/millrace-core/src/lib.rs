//! The data plane of Millrace: UDP off the wire, rules on the payload, lanes to the workers.
//!
//! Path of a datagram: a [`rx`] backend yields [`datagram::Datagram`]s, a [`rule`] set picks a queue, the engine copies
//! it into a lane. Nothing in this crate knows Node.
#![warn(missing_docs)]

#[cfg(not(target_os = "linux"))]
compile_error!("millrace-core runs on Linux only: AF_XDP, AF_PACKET and SO_REUSEPORT are Linux interfaces");
#[cfg(not(target_endian = "little"))]
compile_error!(
    "lane descriptors are shared with JavaScript as little-endian words: build for a little-endian target"
);

pub mod bpf;
pub mod capture;
pub mod config;
pub mod datagram;
pub mod engine;
pub mod error;
pub mod lane;
pub mod live_rules;
pub mod net;
pub mod packet;
pub mod preflight;
pub mod protocol;
mod real_time;
mod receive_thread;
pub mod rule;
pub mod rx;
pub mod scatter;
pub mod stats;
pub mod sys;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
