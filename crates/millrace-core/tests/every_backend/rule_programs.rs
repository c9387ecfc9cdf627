//! RulePrograms by the rules in the kernel: every datagram comes by the receive thread that owns its queue.

use std::{
    alloc::Layout,
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    config::{BackendChoice, EngineConfig, FanoutMode, XdpMode},
    engine::{Engine, EngineStats},
};

use crate::{
    rig::{self, Pair},
    support::*,
};

const RULES: &str = "u8[0] < 3 => queue(2); else => mod(u8[0])";
const SENT: u64 = 2000;

/// Runs an engine on `vb`, sends [`SENT`] datagrams of many flows, and reads the books.
fn books(backend: BackendChoice, fanout: FanoutMode) -> EngineStats {
    let pair = Pair::new(1);
    let running = Running::start(&pair, config_of(backend, fanout, RULES));
    send(&pair, SENT);
    running.received(SENT);
    running.stop()
}

/// Datagrams of 16 flows and both families; the first byte counts to 10, the second from 0 to 255.
fn send(pair: &Pair, count: u64) {
    pair.in_a(|| {
        let sockets: Vec<_> = (0..16).map(|i| sender(i % 2 == 0)).collect();
        for i in 0..count as usize {
            let payload = [(i / 16 % 11) as u8, (i / 16) as u8, 0, 0];
            sockets[i % 16].send_to(&payload, to(i % 2 == 0, 9000)).unwrap();
            if i % 100 == 99 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
}

fn config_of(backend: BackendChoice, fanout: FanoutMode, rules: &str) -> EngineConfig {
    EngineConfig {
        backend,
        fanout,
        queues: 4,
        rules: rules.into(),
        lane_slots: 4096,
        lane_bytes: 1 << 20,
        xdp_frames: 8192,
        ..config(ONE_PORT, "vb", 4)
    }
}

/// A queue's memory.
struct Memory(*mut u8);

// SAFETY: nothing is read or written through it here.
unsafe impl Send for Memory {}

/// An engine in a pair's far namespace, with memory that no worker reads.
struct Running {
    engine: Engine,
    memory: Vec<Memory>,
    layout: Layout,
}

impl Running {
    fn start(pair: &Pair, config: EngineConfig) -> Self {
        pair.in_b(|| {
            let queues = usize::from(config.queues);
            let mut engine = Engine::open(config.clone()).unwrap();
            let layout = Layout::from_size_align(engine.describe().queue_bytes, 64).unwrap();
            let attach = |queue| {
                // SAFETY: the size is not zero; zeroed memory for this queue alone, freed after the engine is dropped.
                unsafe {
                    let base = std::alloc::alloc_zeroed(layout);
                    engine.attach(queue, base, layout.size()).unwrap();
                    Memory(base)
                }
            };
            let memory = (0..queues).map(attach).collect();
            engine.start().unwrap();
            Running { engine, memory, layout }
        })
    }

    /// Waits until so many were received or dropped early since the start.
    fn received(&self, count: u64) {
        let start = Instant::now();
        loop {
            let stats = self.engine.stats();
            let seen = stats.threads.iter().map(|t| t.received).sum::<u64>() + stats.early_dropped;
            if seen >= count {
                return assert_eq!(seen, count);
            }
            assert!(start.elapsed() < TIMEOUT, "{seen} of {count}: {stats:#?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(mut self) -> EngineStats {
        self.engine.stop();
        let stats = self.engine.stats();
        drop(self.engine);
        // SAFETY: allocated in `start` with this layout, and the engine that wrote to it is gone.
        self.memory.into_iter().for_each(|memory| unsafe { std::alloc::dealloc(memory.0, self.layout) });
        stats
    }
}

fn local(stats: &EngineStats) -> (u64, u64) {
    let sum = |f: fn(&millrace_core::engine::ThreadStats) -> u64| stats.threads.iter().map(f).sum();
    (sum(|t| t.scattered), sum(|t| t.steered_local))
}

#[test]
fn every_datagram_comes_by_the_thread_that_owns_its_queue() {
    rig::require_root!();
    for (backend, mode) in
        [(BackendChoice::Packet, "tpacket_v3 fanout rules"), (BackendChoice::Socket, "reuseport")]
    {
        let stats = books(backend, FanoutMode::Rules);
        assert_eq!(stats.backend.mode, mode);
        assert_eq!(local(&stats), (SENT, SENT), "{mode}");
    }
}

#[test]
fn without_steering_only_some_do() {
    rig::require_root!();
    let stats = books(BackendChoice::Packet, FanoutMode::Hash);
    let (all, local) = local(&stats);
    assert!(all == SENT && local < SENT, "{local} of {all}");
}

fn granted(stats: &EngineStats, what: &str) -> String {
    stats.backend.granted.iter().find(|(key, _)| key == what).unwrap().1.clone()
}

#[test]
fn programs_in_the_kernel_follow_a_reload() {
    rig::require_root!();
    // Drops and spills are no obstacle, nor are more queues than threads.
    let sets =
        ["u8[0] < 3 => queue(2)\nelse => mod(u8[0])", "u8[0] == 3 => drop\nelse => mod(u8[1] + 1) spill"];
    for (backend, fanout) in [
        (BackendChoice::Packet, FanoutMode::Rules),
        (BackendChoice::Packet, FanoutMode::Ebpf),
        (BackendChoice::Socket, FanoutMode::Rules),
    ] {
        let pair = Pair::new(1);
        let config = EngineConfig { queues: 8, ..config_of(backend, fanout, sets[0]) };
        let mut running = Running::start(&pair, config);
        send(&pair, SENT);
        running.received(SENT);
        assert_eq!(local(&running.engine.stats()), (SENT, SENT), "{backend:?} {fanout:?}");

        assert_eq!(running.engine.reload(sets[1]).unwrap(), 2);
        send(&pair, SENT);
        running.received(2 * SENT);
        let stats = running.engine.stats();
        assert!(granted(&stats, "steering").starts_with("rules"), "{:?}", stats.backend);
        let dropped = stats.rules[0].dropped;
        assert_eq!(dropped, (0..SENT).filter(|i| i / 16 % 11 == 3).count() as u64);
        assert_eq!(local(&stats), (2 * SENT - dropped, 2 * SENT - dropped), "{backend:?} {fanout:?}");

        // Rules for user space alone: another spread, and it says why. Then back again.
        running.engine.reload("round_robin").unwrap();
        let stats = running.engine.stats();
        assert!(granted(&stats, "steering").contains("not rules: rule `rule1`: `round_robin`"));
        running.engine.reload(sets[0]).unwrap();
        send(&pair, SENT);
        running.received(3 * SENT);
        let stats = running.stop();
        assert_eq!(local(&stats), (3 * SENT - dropped, 3 * SENT - dropped), "{backend:?} {fanout:?}");
    }
}

#[test]
fn where_classic_bpf_cannot_ebpf_steers() {
    rig::require_root!();
    // A sum may need more than 32 bits, which only eBPF has.
    let pair = Pair::new(1);
    let rules = "u32[0] * 2 > 0x0601_0000 => mod(u8[1])\nelse => mod(u8[0])";
    let mut running = Running::start(&pair, config_of(BackendChoice::Packet, FanoutMode::Rules, rules));
    send(&pair, SENT);
    running.received(SENT);
    // A group keeps its kind: rules that classic BPF could have run are steered by eBPF too.
    running.engine.reload(RULES).unwrap();
    send(&pair, SENT);
    running.received(2 * SENT);
    let stats = running.stop();
    assert_eq!(granted(&stats, "steering"), "rules, eBPF");
    assert_eq!(local(&stats), (2 * SENT, 2 * SENT));
}

/// How many of `count` datagrams have this first byte.
fn with_first(count: u64, byte: u64) -> u64 {
    (0..count).filter(|i| i / 16 % 11 == byte).count() as u64
}

#[test]
fn leading_drops_happen_in_the_xdp_program_and_are_counted() {
    rig::require_root!();
    for xdp_mode in [XdpMode::Native, XdpMode::Generic] {
        let pair = Pair::new(1);
        let first = "noise: u8[0] == 7 => drop\nshort: len < 4 => drop\nelse => mod(u8[1])";
        let config = EngineConfig { xdp_mode, ..config_of(BackendChoice::Xdp, FanoutMode::Rules, first) };
        let mut running = Running::start(&pair, config);
        send(&pair, SENT);
        running.received(SENT);
        let noise = with_first(SENT, 7);
        let stats = running.engine.stats();
        assert_eq!(granted(&stats, "early drops"), "2 leading rules run in the XDP program");
        let early = |stats: &EngineStats| {
            let by_thread: u64 = stats.threads.iter().map(|t| t.dropped.rule).sum();
            assert_eq!(by_thread, 0, "no thread saw what the program dropped");
            stats.early_dropped
        };
        assert_eq!((early(&stats), noise > 0), (noise, true));
        assert_eq!((stats.rules[0].matched, stats.rules[0].dropped), (noise, noise));
        assert_eq!(local(&stats).0, SENT - noise);

        // Other drops: the old program's counts stay with their rule's name.
        running
            .engine
            .reload("other: u8[0] in {1, 2} => drop\nnoise: u8[0] == 8 => drop\nelse => queue(1)")
            .unwrap();
        send(&pair, SENT);
        running.received(2 * SENT);
        let stats = running.engine.stats();
        let other = with_first(SENT, 1) + with_first(SENT, 2);
        let noise = noise + with_first(SENT, 8);
        assert_eq!(early(&stats), noise + other);
        assert_eq!((stats.rules[0].dropped, stats.rules[1].dropped), (other, noise));

        // None any more; and a set that does not compile changes nothing.
        running.engine.reload("kept: mod(u8[0])").unwrap();
        running.engine.reload("nonsense").unwrap_err();
        send(&pair, SENT);
        running.received(3 * SENT);
        let stats = running.stop();
        assert_eq!(granted(&stats, "early drops"), "none: the rules begin with no drop");
        assert_eq!((early(&stats), stats.rules[0].matched), (noise + other, SENT));
        let guard: u64 = stats.threads.iter().filter(|t| t.kind == "guard").map(|t| t.received).sum();
        assert_eq!(guard, 0, "the program was never off the interface");
    }
}

#[test]
fn with_checksums_to_verify_nothing_is_dropped_early() {
    rig::require_root!();
    let pair = Pair::new(1);
    let rules = "noise: u8[0] == 7 => drop\nelse => mod(u8[1])";
    let config =
        EngineConfig { verify_checksum: true, ..config_of(BackendChoice::Xdp, FanoutMode::Rules, rules) };
    let running = Running::start(&pair, config);
    send(&pair, SENT);
    running.received(SENT);
    let stats = running.stop();
    assert_eq!((stats.early_dropped, stats.rules[0].dropped), (0, with_first(SENT, 7)));
}

#[test]
fn a_hundred_reloads_under_traffic_lose_nothing() {
    rig::require_root!();
    let sets = [
        "one: u8[0] == 1 => drop\nelse => mod(u8[1])",
        "two: u8[0] == 2 => drop\nthree: u8[0] == 3 => queue(1)\nelse => mod(u8[1] + 1)",
        "round_robin",
    ];
    const COUNT: u64 = 20_000;
    for backend in [BackendChoice::Xdp, BackendChoice::Packet, BackendChoice::Socket] {
        let pair = Pair::new(1);
        let config = EngineConfig {
            xdp_frames: 16_384,
            lane_slots: 16_384,
            lane_bytes: 4 << 20,
            ..config_of(backend, FanoutMode::Rules, sets[2])
        };
        let mut running = Running::start(&pair, config);
        let mut reloads = 0;
        thread::scope(|scope| {
            let sending = scope.spawn(|| send(&pair, COUNT));
            while !sending.is_finished() || reloads < 100 {
                running.engine.reload(sets[reloads % 3]).unwrap();
                reloads += 1;
            }
        });
        running.received(COUNT);
        let stats = running.stop();
        let (scattered, _) = local(&stats);
        let dropped = stats.threads.iter().map(|t| t.dropped.rule).sum::<u64>() + stats.early_dropped;
        assert_eq!(scattered + dropped, COUNT, "{backend:?}, {reloads} reloads: {stats:#?}");
        assert!(dropped <= with_first(COUNT, 1) + with_first(COUNT, 2));
        assert_eq!(stats.rules_generation, reloads as u64 + 1);
        let guard: u64 = stats.threads.iter().filter(|t| t.kind == "guard").map(|t| t.received).sum();
        assert_eq!(guard, 0, "{backend:?}: the program was never off the interface");
    }
}
