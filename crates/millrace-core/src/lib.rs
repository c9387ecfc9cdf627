//! The data plane of Millrace: UDP off the wire, rules on the payload, lanes to the workers.
//!
//! Path of a datagram: an `rx` backend yields [`datagram::Datagram`]s, a [`rule`] set picks a queue, the engine copies
//! it into a lane. Nothing in this crate knows Node.
#![warn(missing_docs)]
#![cfg_attr(not(feature = "testing"), allow(unreachable_pub))]

#[cfg(not(target_os = "linux"))]
compile_error!("millrace-core runs on Linux only: AF_XDP, AF_PACKET and SO_REUSEPORT are Linux interfaces");
#[cfg(not(target_endian = "little"))]
compile_error!(
    "lane descriptors are shared with JavaScript as little-endian words: build for a little-endian target"
);

pub mod capture;
pub mod config;
pub mod datagram;
pub mod engine;
pub mod error;
pub mod lane;
pub mod packet;
pub mod preflight;
pub mod protocol;
pub mod rule;
pub mod stats;
pub mod sys;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

mod real_time;
mod receive_thread;

// Rooms below the engine. No user of the crate needs them; integration tests and benchmarks look into them.
#[cfg(feature = "testing")]
pub mod bpf;
#[cfg(feature = "testing")]
pub mod live_rules;
#[cfg(feature = "testing")]
pub mod net;
#[cfg(feature = "testing")]
pub mod rx;
#[cfg(feature = "testing")]
pub mod scatter;

#[cfg(not(feature = "testing"))]
mod bpf;
#[cfg(not(feature = "testing"))]
mod live_rules;
#[cfg(not(feature = "testing"))]
mod net;
#[cfg(not(feature = "testing"))]
mod rx;
#[cfg(not(feature = "testing"))]
mod scatter;
