//! Steering by the rules in the kernel: every datagram comes by the receive thread that owns its queue.

mod rig;
#[path = "socket_support/mod.rs"]
mod support;

use std::{
    alloc::Layout,
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    config::{BackendChoice, EngineConfig, FanoutMode},
    engine::{Engine, EngineStats},
};
use rig::Pair;
use support::*;

const RULES: &str = "u8[0] < 3 => queue(2); else => mod(u8[0])";
const SENT: u64 = 2000;

/// Runs an engine on `vb`, sends [`SENT`] datagrams of many flows, and reads the books.
fn books(backend: BackendChoice, fanout: FanoutMode) -> EngineStats {
    let pair = Pair::new(1);
    let config = EngineConfig {
        backend,
        fanout,
        queues: 4,
        rules: RULES.into(),
        lane_slots: 4096,
        lane_bytes: 1 << 20,
        ..config(ONE_PORT, "vb", 4)
    };
    pair.in_b(|| {
        let mut engine = Engine::open(config.clone()).unwrap();
        let layout = Layout::from_size_align(engine.plan().queue_bytes, 64).unwrap();
        let memory: Vec<*mut u8> = (0..4)
            .map(|queue| {
                // SAFETY: the size is not zero; zeroed memory for this queue alone, freed after the engine is dropped.
                unsafe {
                    let base = std::alloc::alloc_zeroed(layout);
                    engine.attach(queue, base, layout.size()).unwrap();
                    base
                }
            })
            .collect();
        engine.start().unwrap();
        pair.in_a(|| {
            let sockets: Vec<_> = (0..16).map(|i| sender(i % 2 == 0)).collect();
            for i in 0..SENT as usize {
                let socket = &sockets[i % 16];
                socket.send_to(&[(i / 16 % 11) as u8, 0, 0, 0], to(i % 2 == 0, 9000)).unwrap();
                if i % 100 == 99 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let start = Instant::now();
        while engine.stats().threads.iter().map(|t| t.received).sum::<u64>() < SENT {
            assert!(start.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(5));
        }
        engine.stop();
        let stats = engine.stats();
        drop(engine);
        // SAFETY: allocated above with this layout, and the engine that wrote to it is gone.
        memory.into_iter().for_each(|base| unsafe { std::alloc::dealloc(base, layout) });
        stats
    })
}

fn local(stats: &EngineStats) -> (u64, u64) {
    let sum = |f: fn(&millrace_core::stats::ThreadStats) -> u64| stats.threads.iter().map(f).sum();
    (sum(|t| t.scattered), sum(|t| t.steered_local))
}

#[test]
fn every_datagram_comes_by_the_thread_that_owns_its_queue() {
    if !rig::privileged("every_datagram_comes_by_the_thread_that_owns_its_queue") {
        return;
    }
    for (backend, mode) in
        [(BackendChoice::Packet, "tpacket_v3 fanout rules"), (BackendChoice::Socket, "reuseport by rules")]
    {
        let stats = books(backend, FanoutMode::Rules);
        assert_eq!(stats.backend.mode, mode);
        assert_eq!(local(&stats), (SENT, SENT), "{mode}");
    }
}

#[test]
fn without_steering_only_some_do() {
    if !rig::privileged("without_steering_only_some_do") {
        return;
    }
    let stats = books(BackendChoice::Packet, FanoutMode::Hash);
    let (all, local) = local(&stats);
    assert!(all == SENT && local < SENT, "{local} of {all}");
}
