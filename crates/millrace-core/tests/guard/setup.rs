//! What the tests of the guard open, and how they read what came.

use millrace_core::{
    config::{EngineConfig, FanoutFlag},
    rx::{Opened, packet::PacketReceiver},
};

use crate::{rig::Pair, support::*};

pub(crate) fn without_defrag(port: u16, threads: u16) -> EngineConfig {
    let listen = format!(r#"{{"port":{port}}}"#);
    EngineConfig { fanout_flags: vec![FanoutFlag::Uniqueid], ..config(&listen, "vb", threads) }
}

pub(crate) fn open(pair: &Pair, config: &EngineConfig) -> Opened<PacketReceiver> {
    open_in_b(pair, config, open_rings).unwrap()
}

/// The numbers in the first two bytes, sorted.
pub(crate) fn numbers(collector: &Collector) -> Vec<usize> {
    let mut all: Vec<usize> =
        collector.got.iter().map(|g| usize::from(g.payload[0]) | usize::from(g.payload[1]) << 8).collect();
    all.sort_unstable();
    all
}
