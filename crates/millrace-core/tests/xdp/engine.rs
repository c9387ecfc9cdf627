//! The whole engine on AF_XDP while its interface changes: the receive threads see to it by themselves.

use std::{
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    config::{BackendChoice, EngineConfig, Multicast},
    engine::{Engine, EngineStats},
};

use crate::{
    rig::{self, Pair, RawSender},
    support::{self, ONE_PORT, TIMEOUT},
};

/// An engine and its queue's memory, which outlives it: no worker reads the lanes, and what does not fit is counted.
struct Running {
    engine: Engine,
    _memory: Vec<u64>,
}

/// Opens and starts in the receiving namespace, where the threads then stay.
fn start(pair: &Pair, config: EngineConfig) -> Running {
    start_with(pair, config, "queue(0)")
}

fn start_with(pair: &Pair, config: EngineConfig, rules: &str) -> Running {
    pair.in_b(|| {
        let config = EngineConfig { backend: BackendChoice::Xdp, rules: rules.into(), ..config };
        let mut engine = Engine::open(config).unwrap();
        let bytes = engine.describe().queue_bytes;
        let mut memory = vec![0u64; bytes.div_ceil(8)];
        // SAFETY: zeroed, for this queue alone, and freed after the engine was dropped.
        unsafe { engine.attach(0, memory.as_mut_ptr().cast(), bytes).unwrap() };
        engine.start().unwrap();
        Running { engine, _memory: memory }
    })
}

fn await_stats(running: &Running, what: &str, done: impl Fn(&EngineStats) -> bool) -> EngineStats {
    let start = Instant::now();
    loop {
        let stats = running.engine.stats();
        if done(&stats) {
            return stats;
        }
        assert!(start.elapsed() < TIMEOUT, "{what}: {stats:#?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn received(stats: &EngineStats, kind: &str) -> u64 {
    stats.threads.iter().filter(|t| t.kind == kind).map(|t| t.received).sum()
}

/// Sockets of all receive threads.
fn sockets(stats: &EngineStats) -> u64 {
    stats.threads.iter().filter_map(|t| t.kernel_notes.get("xdp_rx_queues")).sum()
}

fn send(pair: &Pair, count: u16) {
    pair.in_a(|| {
        let sender = RawSender::new("va");
        for i in 0..count {
            sender.send(&Pair::v4(1000 + i, 9000).bytes(b"numbered by its port"));
            if i % 100 == 99 {
                // Rings of 256, and the threads share the CPUs with other tests.
                thread::sleep(Duration::from_millis(20));
            }
        }
    });
}

#[test]
fn an_interface_that_goes_and_comes_is_received_from_again() {
    rig::require_root!();
    let pair = Pair::new(2);
    let mut running = start(&pair, support::config(ONE_PORT, "vb", 1));
    send(&pair, 1000);
    await_stats(&running, "datagrams", |s| received(s, "receive") == 1000);

    pair.delete_link();
    let stats = await_stats(&running, "the loss", |s| {
        s.threads.iter().filter(|t| t.kind == "receive").all(|t| t.away.is_some())
    });
    assert!(stats.threads[0].away.as_deref().unwrap().contains("vb was removed"), "{stats:#?}");
    assert!(stats.threads.iter().all(|t| t.error.is_none()) && sockets(&stats) == 0, "{stats:#?}");
    assert_eq!(stats.threads[2].away, None, "the guard stays");

    pair.create_link(4, [2, 0, 0, 0, 0x0b, 9]);
    let stats = await_stats(&running, "four sockets", |s| sockets(s) == 4);
    assert!(stats.threads.iter().all(|t| t.away.is_none()), "{stats:#?}");
    assert_eq!(stats.backend.mode, "native copy");
    assert!(stats.backend.granted.contains(&("rx queues".into(), "4".into())), "{stats:#?}");
    send(&pair, 1000);
    let stats = await_stats(&running, "datagrams after it", |s| received(s, "receive") == 2000);
    assert_eq!(received(&stats, "guard"), 0);
    running.engine.stop();
    let stats = running.engine.stats();
    assert!(stats.threads.iter().all(|t| t.error.is_none()), "{stats:#?}");
    let sum: u64 = stats.threads.iter().map(|t| t.scattered + t.dropped.queue_full).sum();
    assert_eq!(sum, 2000);
}

/// Rules that change while there is no program, and a program that is installed again.
#[test]
fn early_drops_follow_the_rules_over_a_removed_interface_and_are_counted_once() {
    rig::require_root!();
    // Three times that fits a ring.
    const EACH: u64 = 60;
    let pair = Pair::new(2);
    let channels = |ns: &str, change: &str| rig::run(&format!("ip netns exec {ns} ethtool -L {change}"));
    let one = "first: u8[0] == 1 => drop\nelse => queue(0)";
    let two = "second: u8[0] == 2 => drop\nthird: u8[0] == 3 => drop\nelse => queue(0)";
    channels(&pair.a, "va tx 1");
    channels(&pair.b, "vb rx 1");
    let mut running = start_with(&pair, support::config(ONE_PORT, "vb", 1), one);
    // As many datagrams that begin with 1, 2 and 3; how many times that were dropped early and received by then.
    let sent = |running: &Running, early: u64, received: u64| {
        pair.in_a(|| {
            let raw = RawSender::new("va");
            for i in 0..3 * EACH {
                raw.send(&Pair::v4(1000, 9000).bytes(&[1 + (i % 3) as u8; 20]));
            }
        });
        let all = |s: &EngineStats| s.early_dropped + s.threads.iter().map(|t| t.received).sum::<u64>();
        let stats = await_stats(running, "datagrams", |s| all(s) >= (early + received) * EACH);
        let by_thread: u64 = stats.threads.iter().map(|t| t.dropped.rule).sum();
        let got = stats.threads.iter().map(|t| t.received).sum::<u64>();
        assert_eq!((stats.early_dropped, got, by_thread), (early * EACH, received * EACH, 0), "{stats:#?}");
        stats.rules.iter().map(|rule| rule.dropped / EACH).collect::<Vec<_>>()
    };
    assert_eq!(sent(&running, 1, 2), [1, 0]);
    // Installed again, for the second rx queue.
    channels(&pair.b, "vb rx 2");
    channels(&pair.a, "va tx 2");
    await_stats(&running, "two sockets", |s| sockets(s) == 2);
    assert_eq!(sent(&running, 2, 4), [2, 0]);
    let replug = |running: &mut Running, rules: Option<&str>| {
        pair.delete_link();
        await_stats(running, "the loss", |s| s.threads[0].away.is_some());
        rules.map(|rules| running.engine.reload(rules).unwrap());
        pair.create_link(2, rig::MAC_B);
        await_stats(running, "two sockets", |s| sockets(s) == 2);
    };
    replug(&mut running, Some(two));
    assert_eq!(sent(&running, 4, 5), [1, 1, 0]);
    replug(&mut running, None);
    assert_eq!(sent(&running, 6, 6), [2, 2, 0]);
    replug(&mut running, Some(one));
    assert_eq!(sent(&running, 7, 8), [3, 0]);
    replug(&mut running, Some("queue(0)"));
    sent(&running, 7, 11);
    running.engine.stop();
    let stats = running.engine.stats();
    let queue = &stats.queues[0];
    assert_eq!((stats.early_dropped, queue.scattered + queue.queue_full), (7 * EACH, 11 * EACH));
}

#[test]
fn multicast_groups_are_joined_on_the_new_interface() {
    rig::require_root!();
    let pair = Pair::new(1);
    let routes = || {
        for (ns, dev) in [(&pair.a, "va"), (&pair.b, "vb")] {
            rig::run(&format!("ip -n {ns} route add 239.0.0.0/8 dev {dev}"));
        }
    };
    routes();
    // One names its interface, the other leaves it to the routes.
    let group = |address: &str, interface: Option<&str>| Multicast {
        group: address.parse().unwrap(),
        interface: interface.map(Into::into),
        source: None,
    };
    let multicast =
        vec![group("239.1.2.3", Some("vb")), group("239.1.2.4", None), group("ff15::9", Some("vb"))];
    let mut running = start(&pair, EngineConfig { multicast, ..support::config(ONE_PORT, "vb", 1) });
    let send = || {
        pair.in_a(|| {
            for to in ["239.1.2.3:9000", "239.1.2.4:9000"] {
                // One fits a frame and comes by xdp; the other is fragments, which the guard's membership lets in.
                support::sender(false).send_to(&[1; 100], to).unwrap();
                support::sender(false).send_to(&[2; 4000], to).unwrap();
            }
        });
    };
    send();
    let both = |n: u64| move |s: &EngineStats| received(s, "receive") == n && received(s, "guard") == n;
    await_stats(&running, "the groups", both(2));
    for round in 2..4u64 {
        pair.delete_link();
        await_stats(&running, "the loss", |s| s.threads[0].away.is_some());
        pair.create_link(1, rig::MAC_B);
        routes();
        await_stats(&running, "the interface and its groups", |s| {
            s.threads[1].kernel_notes["multicast_rejoined"] == 3 * (round - 1) && s.threads[0].away.is_none()
        });
        let joined = rig::run(&format!("ip -n {} maddr show dev vb", pair.b));
        for address in ["239.1.2.3", "239.1.2.4", "ff15::9"] {
            assert!(joined.contains(address), "{address}: {joined}");
        }
        send();
        await_stats(&running, "the groups again", both(2 * round));
    }
    running.engine.stop();
}

#[test]
fn new_rx_queues_are_taken_over_while_the_threads_run() {
    rig::require_root!();
    let pair = Pair::new(2);
    let channels = |ns: &str, change: &str| rig::run(&format!("ip netns exec {ns} ethtool -L {change}"));
    channels(&pair.a, "va tx 1");
    channels(&pair.b, "vb rx 1");
    let mut running = start(&pair, support::config(ONE_PORT, "vb", 1));
    let stats = running.engine.stats();
    assert_eq!(stats.threads.len(), 2, "one receive thread and the guard");
    let program = |s: &EngineStats| s.backend.granted.iter().find(|g| g.0 == "program id").unwrap().1.clone();
    channels(&pair.b, "vb rx 2");
    channels(&pair.a, "va tx 2");
    let grown = await_stats(&running, "two sockets", |s| sockets(s) == 2);
    assert_ne!(program(&grown), program(&stats), "installed again, for the new rx queue");
    send(&pair, 2000);
    let stats = await_stats(&running, "datagrams", |s| received(s, "receive") + received(s, "guard") == 2000);
    assert_eq!(received(&stats, "guard"), 0);
    assert!(stats.threads[0].kernel_lost.values().all(|n| *n == 0), "{stats:#?}");
    running.engine.stop();
}
