//! The data plane of Millrace: UDP off the wire, rules on the payload, lanes to the workers.
//!
//! Path of a datagram: an `rx` backend reads it off the wire as a [`datagram::Datagram`], a [`rule`] set chooses a queue,
//! and `scatter` copies it into the [`lane`] of that queue, where a worker reads it. [`engine`] runs the threads that do
//! this. Nothing in this crate depends on Node.
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
#[cfg(test)]
mod contract;
pub mod datagram;
pub mod engine;
pub mod error;
pub mod lane;
pub mod packet;
pub mod protocol;
pub mod rule;
pub mod sys;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

// Rooms below the engine. No user of the crate needs them; integration tests and benchmarks use them.
#[cfg(feature = "testing")]
pub mod bpf;
#[cfg(feature = "testing")]
pub mod net;
#[cfg(feature = "testing")]
pub mod rx;
#[cfg(feature = "testing")]
pub mod scatter;

#[cfg(not(feature = "testing"))]
mod bpf;
#[cfg(not(feature = "testing"))]
mod net;
#[cfg(not(feature = "testing"))]
mod rx;
#[cfg(not(feature = "testing"))]
mod scatter;
