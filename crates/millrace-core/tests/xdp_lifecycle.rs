//! AF_XDP from opening to closing: what the interface is, what it refuses, what happens when it changes meanwhile.

mod rig;
mod xdp_support;

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    config::{EngineConfig, ZeroCopy},
    error::Code,
    net::Interface,
    rx::{
        Receiver,
        xdp::{self, XdpReceiver, host::Host, socket::XskSocket, umem::Umem},
    },
};
use rig::{Pair, RawSender, V4, run};
use xdp_support::{
    Collector, TIMEOUT, assert_detached, config, counter, drain, drain_until, lost, open, program_on, report,
    send, udp_socket,
};

#[test]
fn interface_facts_come_from_the_threads_namespace() {
    rig::require_root!();
    let pair = Pair::new(4);
    run(&format!("ip -n {} route add default via {} dev vb", pair.b, V4.0));
    pair.in_b(|| {
        let vb = Interface::of_default_route().unwrap();
        assert_eq!((vb.name.as_str(), vb.rx_queues(), vb.driver().as_deref()), ("vb", 4, Some("veth")));
        assert_eq!(vb, Interface::by_name("vb").unwrap());
        let link = vb.link().unwrap();
        assert_eq!((link.mtu, link.operstate, link.xdp), (1500, "up", None));
    });
    pair.in_a(|| assert_eq!(Interface::of_default_route().unwrap_err().code, Code::Interface));
    let before = pair.in_b(|| Interface::by_name("vb").unwrap().link().unwrap().statistics.rx_packets);
    send(&pair, 0..10);
    let after = pair.in_b(|| Interface::by_name("vb").unwrap().link().unwrap().statistics.rx_packets);
    assert!(after >= before + 10, "{before} {after}");
}

#[test]
fn an_unknown_interface_is_an_error_that_names_the_known_ones() {
    rig::require_root!();
    let pair = Pair::new(1);
    let wrong = EngineConfig { interface: Some("eth77".into()), ..config("auto", 512, r#"{"port":9000}"#) };
    let e = pair.in_b(|| xdp::open(&wrong)).err().unwrap();
    assert_eq!(e.code, Code::Interface);
    assert!(e.message.contains("eth77") && e.message.contains("lo, vb"), "{e}");
}

#[test]
fn after_close_intake_datagrams_go_up_the_stack() {
    rig::require_root!();
    for mode in ["native", "generic"] {
        let pair = Pair::new(2);
        let socket = udp_socket(&pair);
        let mut receivers = pair.in_b(|| open(mode, 1024)).unwrap().receivers;
        let mut sink = Collector::default();
        send(&pair, 0..200);
        // Nothing was read yet: the last receive calls find all that came before the intake closed.
        let waiting = |r: &[XdpReceiver]| r.iter().map(|r| r.frames().rx).sum::<u32>();
        let start = Instant::now();
        while waiting(&receivers) < 200 {
            assert!(start.elapsed() < TIMEOUT, "{} of 200", waiting(&receivers));
            thread::sleep(Duration::from_millis(1));
        }
        receivers.iter_mut().for_each(Receiver::close_intake);
        drain(&mut receivers, &mut sink);
        assert_eq!((sink.datagrams, lost(&mut receivers)), (200, 0));
        send(&pair, 200..220);
        let mut buffer = [0; 16];
        for i in 200..220u16 {
            let (n, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..n], from.port()), (&i.to_be_bytes()[..], 1000 + i), "{mode}");
        }
        assert_eq!(drain(&mut receivers, &mut sink), 0);
        // Dropped with everything still mapped a moment ago: no black hole either.
        drop(receivers);
        send(&pair, 220..221);
        assert_eq!(socket.recv_from(&mut buffer).unwrap().0, 2);
    }
}

#[test]
fn wait_wakes_up_for_a_frame_and_gives_up_in_time() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut receivers = pair.in_b(|| open("native", 512)).unwrap().receivers;
    let mut sink = Collector::default();
    let start = Instant::now();
    receivers[0].wait(Duration::from_millis(30)).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(30), "{:?}", start.elapsed());
    send(&pair, 0..1);
    let start = Instant::now();
    receivers[0].wait(TIMEOUT).unwrap();
    assert!(start.elapsed() < TIMEOUT, "poll(2) did not wake up");
    drain_until(&mut receivers, &mut sink, |_, s| s.datagrams == 1);
}

#[test]
fn a_link_that_flaps_is_no_error() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut receivers = pair.in_b(|| open("native", 512)).unwrap().receivers;
    let mut sink = Collector::default();
    run(&format!("ip -n {} link set vb down", pair.b));
    assert_eq!(receivers[0].receive(&mut sink).unwrap(), 0);
    receivers[0].wait(Duration::from_millis(5)).unwrap();
    pair.link_up();
    send(&pair, 0..50);
    drain_until(&mut receivers, &mut sink, |_, s| s.datagrams == 50);
    assert_eq!(receivers[0].away(), None);
}

#[test]
fn jumbo_frames_arrive_whole() {
    rig::require_root!();
    let pair = Pair::new(1);
    run(&format!("ip -n {} link set va mtu 9000", pair.a));
    run(&format!("ip -n {} link set vb mtu 9000", pair.b));
    let opened = pair.in_b(|| open("native", 2048)).unwrap();
    assert_eq!(opened.info.mode, "native copy");
    assert!(opened.info.degraded.is_empty(), "{:?}", opened.info.degraded);
    let buffers = opened.info.granted.iter().find(|(k, _)| k == "frames in several buffers").unwrap();
    assert_eq!(buffers.1, "on");
    let mut receivers = opened.receivers;
    let mut sink = Collector::default();
    // One to six descriptors each, more than one pass takes at once.
    let size = |i: u16| [0, 1, 1750, 1751, 3542, 3543, 5000, 8972][usize::from(i) % 8];
    let bytes = |i: u16| (0..size(i)).map(|k| (k as u16 ^ i.wrapping_mul(77)) as u8).collect::<Vec<u8>>();
    for round in 0..10 {
        let range = round * 100..(round + 1) * 100;
        pair.in_a(|| {
            let sender = RawSender::new("va");
            range.clone().for_each(|i| sender.send(&Pair::v4(1000 + i, 9000).bytes(&bytes(i))));
        });
        drain_until(&mut receivers, &mut sink, |_, s| s.datagrams == usize::from(range.end));
    }
    for i in 0..1000 {
        assert_eq!(sink.seen[&(1000 + i)].payload, bytes(i), "number {i}");
    }
    assert_eq!((sink.dropped.len(), lost(&mut receivers)), (0, 0), "{}", report(&mut receivers));
    let f = receivers[0].frames();
    assert_eq!((f.free + f.fill, f.rx, f.in_kernel), (f.total, 0, 0), "{f:?}");
}

/// Payloads are the senders', and a switch may add a trailer: neither makes a frame of several descriptors another one.
#[test]
fn jumbo_frames_arrive_whatever_is_in_them() {
    rig::require_root!();
    let pair = Pair::new(1);
    run(&format!("ip -n {} link set va mtu 9000", pair.a));
    run(&format!("ip -n {} link set vb mtu 9000", pair.b));
    let mut receivers = pair.in_b(|| open("native", 2048)).unwrap().receivers;
    // Descriptors take 1,792 bytes each, of which headers take 42.
    let plain = vec![7; 5000];
    let all_ones = vec![0xff; 3000];
    let mut address_in_it = vec![0; 5000];
    for piece in [1792, 2 * 1792] {
        address_in_it[piece - 42..piece - 36].copy_from_slice(&rig::MAC_B);
    }
    let broadcast = |mut frame: Vec<u8>| {
        frame[..6].fill(0xff);
        frame
    };
    let trailer = |frame: Vec<u8>| [frame, vec![1, 2, 3, 4, 5, 6]].concat();
    let frame = |i: u16, payload: &[u8]| Pair::v4(1000 + i, 9000).bytes(payload);
    let mut sink = Collector::default();
    for round in 0..20 {
        let first = round * 6;
        pair.in_a(|| {
            let sender = RawSender::new("va");
            sender.send(&broadcast(frame(first, &all_ones)));
            sender.send(&frame(first + 1, &address_in_it));
            sender.send(&trailer(frame(first + 2, &plain[..3000])));
            sender.send(&trailer(Pair::v6(1000 + first + 3, 9000).bytes(&plain)));
            sender.send(&trailer(frame(first + 4, &plain[..1000])));
            sender.send(&frame(first + 5, &plain));
        });
        drain_until(&mut receivers, &mut sink, |_, s| {
            s.datagrams + s.dropped.len() == usize::from(first) + 6
        });
        assert!(sink.dropped.is_empty(), "{:?}", sink.dropped);
        let want: [&[u8]; 6] = [&all_ones, &address_in_it, &plain[..3000], &plain, &plain[..1000], &plain];
        for (i, want) in (first..).zip(want) {
            assert!(sink.seen[&(1000 + i)].payload == want, "number {i}");
        }
    }
    assert_eq!((sink.datagrams, lost(&mut receivers)), (120, 0), "{}", report(&mut receivers));
}

#[test]
fn zero_copy_that_the_driver_lacks_is_refused_or_not_tried() {
    rig::require_root!();
    let pair = Pair::new(1);
    let asked = |xdp_zerocopy| EngineConfig { xdp_zerocopy, ..config("native", 512, r#"{"port":9000}"#) };
    let e = pair.in_b(|| xdp::open(&asked(ZeroCopy::On))).err().expect("veth has no zero-copy");
    assert_eq!(e.code, Code::Unsupported);
    assert!(e.message.contains("veth") && e.message.contains("MILLRACE_XDP_ZEROCOPY=off"), "{e}");
    assert_detached(&pair);
    let opened = pair.in_b(|| xdp::open(&asked(ZeroCopy::Auto))).unwrap();
    assert_eq!(opened.info.mode, "native copy");
    assert!(opened.info.degraded.is_empty(), "{:?}", opened.info.degraded);
    let why = &opened.info.granted.iter().find(|(k, _)| k == "zero-copy asked for").unwrap().1;
    assert!(why.contains("veth") && why.contains("not in the list"), "{why}");
}

#[test]
fn generic_mode_passes_frames_longer_than_a_umem_frame() {
    rig::require_root!();
    let pair = Pair::new(1);
    run(&format!("ip -n {} link set va mtu 9000", pair.a));
    run(&format!("ip -n {} link set vb mtu 9000", pair.b));
    let opened = pair.in_b(|| open("generic", 512)).unwrap();
    assert_eq!(opened.info.mode, "generic copy");
    assert!(opened.info.degraded[0].contains("longer than 1792 bytes"), "{:?}", opened.info.degraded);
    // 1792 bytes of frame fit; one more takes the slow path instead of being lost.
    let (mut receivers, mut sink, socket) = (opened.receivers, Collector::default(), udp_socket(&pair));
    pair.in_a(|| {
        let sender = RawSender::new("va");
        sender.send(&Pair::v4(1, 9000).bytes(&[7; 1792 - 42]));
        sender.send(&Pair::v4(2, 9000).bytes(&[8; 1793 - 42]));
    });
    drain_until(&mut receivers, &mut sink, |_, s| s.datagrams == 1);
    assert_eq!(sink.seen[&1].payload, [7; 1750]);
    let mut buffer = [0; 2000];
    assert_eq!(socket.recv_from(&mut buffer).unwrap().0, 1751);
    assert_eq!(lost(&mut receivers), 0);
}

#[test]
fn closing_under_traffic_loses_nothing() {
    rig::require_root!();
    const SENT: u16 = 6000;
    for mode in ["native", "generic"] {
        let pair = Pair::new(2);
        let socket = udp_socket(&pair);
        let mut receivers = pair.in_b(|| open(mode, 16_384)).unwrap().receivers;
        let (mut sink, sent, closed) = (Collector::default(), AtomicU16::new(0), AtomicBool::new(false));
        let (mut by_stack, mut closing) = (HashSet::new(), Duration::ZERO);
        thread::scope(|s| {
            s.spawn(|| {
                pair.in_a(|| {
                    let sender = RawSender::new("va");
                    let start = Instant::now();
                    for i in 0..SENT {
                        while i > SENT / 3 * 2 && !closed.load(Ordering::Relaxed) && start.elapsed() < TIMEOUT
                        {
                            thread::sleep(Duration::from_millis(1));
                        }
                        sender.send(&Pair::v4(1000 + i, 9000).bytes(b"x"));
                        sent.store(i + 1, Ordering::Relaxed);
                        if i % 50 == 49 {
                            // Slow enough that closing happens while frames arrive.
                            thread::sleep(Duration::from_micros(500));
                        }
                    }
                });
            });
            let (socket, by_stack) = (&socket, &mut by_stack);
            s.spawn(move || {
                while let Ok((_, from)) = socket.recv_from(&mut [0; 8]) {
                    assert!(by_stack.insert(from.port()), "{from} came twice");
                    if from.port() == 1000 + SENT - 1 {
                        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
                    }
                }
            });
            while sent.load(Ordering::Relaxed) < SENT / 3 {
                drain(&mut receivers, &mut sink);
            }
            let start = Instant::now();
            receivers.iter_mut().for_each(Receiver::close_intake);
            closing = start.elapsed();
            closed.store(true, Ordering::Relaxed);
            drain(&mut receivers, &mut sink);
            let by_us = sink.datagrams;
            // What the last series of receive calls did not find never was in the rings.
            thread::sleep(Duration::from_millis(100));
            assert_eq!(drain(&mut receivers, &mut sink), 0);
            assert!(by_us >= usize::from(SENT / 3), "{by_us}");
        });
        assert_eq!(lost(&mut receivers), 0);
        assert!(!by_stack.is_empty(), "nothing was left to send after closing");
        eprintln!(
            "{mode}: {} by us, {} by the stack, closing took {closing:?}",
            sink.datagrams,
            by_stack.len()
        );
        assert_eq!(sink.datagrams + by_stack.len(), usize::from(SENT));
        assert!(sink.seen.keys().all(|port| !by_stack.contains(port)), "delivered twice");
    }
}

#[test]
fn the_number_of_rx_queues_changes() {
    rig::require_root!();
    let pair = Pair::new(4);
    let channels = |namespace: &str, change: &str| {
        let words: Vec<&str> = change.split(' ').collect();
        rig::shell::try_run(&[&["ip", "netns", "exec", namespace, "ethtool", "-L"], &words[..]].concat()).0
    };
    // veth's own rule: native XDP wants as many rx queues as the peer has tx queues.
    assert!(channels(&pair.b, "vb rx 2"));
    let e = pair.in_b(|| open("native", 1024)).err().unwrap();
    assert_eq!(e.code, Code::Unsupported);
    assert!(e.message.contains("more queues") && e.message.contains("ethtool -l vb"), "{e}");

    assert!(channels(&pair.a, "va tx 2"));
    let mut receivers = pair.in_b(|| open("native", 512)).unwrap().receivers;
    assert_eq!(receivers.len(), 2);
    assert!(!channels(&pair.b, "vb rx 1"), "the kernel keeps queues that AF_XDP sockets are bound to");

    // New queues have no socket until somebody looks: what they carry goes up the stack, and nothing is lost.
    assert!(channels(&pair.b, "vb rx 4") && channels(&pair.a, "va tx 4"));
    let (socket, mut sink) = (udp_socket(&pair), Collector::default());
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    send(&pair, 0..400);
    let (mut by_stack, start) = (0, Instant::now());
    while sink.datagrams + by_stack < 400 {
        assert!(start.elapsed() < TIMEOUT, "{} by us, {by_stack} by the stack", sink.datagrams);
        drain(&mut receivers, &mut sink);
        by_stack += usize::from(socket.recv(&mut [0; 8]).is_ok());
    }
    assert!(sink.datagrams > 0 && by_stack > 0, "{} by us, {by_stack} by the stack", sink.datagrams);

    // The two receivers share out what is new; from then on the stack gets nothing.
    look_until(&pair, &mut receivers, &[&[0, 2], &[1, 3]]);
    each_receives_its_own(&pair, &mut receivers, 400..1400, &[0, 1, 2, 3]);
    assert!(socket.recv(&mut [0; 8]).is_err(), "the stack got a datagram");

    // Queues that vanish give what they have, and their counters stay: 2,000 do not fit four rings of 256.
    send(&pair, 2000..4000);
    let before = lost(&mut receivers);
    assert!(before > 0, "the rings are too large for this test");
    receivers.iter_mut().for_each(|r| r.follow(1));
    let mut sink = Collector::default();
    drain(&mut receivers, &mut sink);
    assert_eq!((sink.datagrams as u64 + before, lost(&mut receivers)), (2000, before));
    assert_eq!((receivers[0].serves(), receivers[1].serves()), (vec![0], vec![]));
    assert_eq!(receivers[1].frames().total, 0, "closed, memory and all");
    assert_eq!(receivers[1].away(), None, "nothing to do is not trouble");

    // Only now the kernel takes the queues away. The sockets leave after a grace period.
    assert!(channels(&pair.a, "va tx 1"));
    let start = Instant::now();
    while !channels(&pair.b, "vb rx 1") {
        assert!(start.elapsed() < TIMEOUT, "the queues are still held");
        thread::sleep(Duration::from_millis(20));
    }
    look_until(&pair, &mut receivers, &[&[0], &[]]);
    each_receives_its_own(&pair, &mut receivers, 4000..4100, &[0]);
    // And back.
    assert!(channels(&pair.b, "vb rx 4") && channels(&pair.a, "va tx 4"));
    look_until(&pair, &mut receivers, &[&[0, 2], &[1, 3]]);
    each_receives_its_own(&pair, &mut receivers, 5000..6000, &[0, 1, 2, 3]);
    assert!(socket.recv(&mut [0; 8]).is_err(), "the stack got a datagram");
    assert_eq!(lost(&mut receivers), before);
}

/// Lets the receivers look after their interface, as the engine's threads do, until they serve these rx queues.
fn look_until(pair: &Pair, receivers: &mut [XdpReceiver], want: &[&[u32]]) {
    let start = Instant::now();
    loop {
        pair.in_b(|| receivers.iter_mut().for_each(|r| drop(r.counters())));
        if receivers.iter().map(XdpReceiver::serves).eq(want.iter().map(|w| w.to_vec())) {
            return;
        }
        assert!(start.elapsed() < TIMEOUT, "{}", report(receivers));
        receivers.iter_mut().for_each(|r| _ = r.receive(&mut Collector::default()).unwrap());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends, and finds every datagram at the receiver of its rx queue, and something in each of `queues`.
fn each_receives_its_own(
    pair: &Pair,
    receivers: &mut [XdpReceiver],
    range: std::ops::Range<u16>,
    queues: &[u16],
) {
    let mut sinks: Vec<Collector> = receivers.iter().map(|_| Collector::default()).collect();
    let start = Instant::now();
    let mut sum = 0;
    for begin in range.clone().step_by(100) {
        send(pair, begin..begin + 100);
        sum += 100;
        while sinks.iter().map(|s| s.datagrams).sum::<usize>() < sum {
            let got: Vec<_> = sinks.iter().map(|s| (s.datagrams, s.queues.clone())).collect();
            assert!(start.elapsed() < TIMEOUT, "{got:?} of {sum}: {}", report(receivers));
            receivers.iter_mut().zip(&mut sinks).for_each(|(r, s)| _ = r.receive(s).unwrap());
        }
    }
    for (index, sink) in sinks.iter().enumerate() {
        assert!(sink.queues.keys().all(|q| usize::from(*q) % receivers.len() == index), "{:?}", sink.queues);
    }
    let mut seen: Vec<u16> = sinks.iter().flat_map(|s| s.queues.keys().copied()).collect();
    seen.sort_unstable();
    assert_eq!(seen, queues);
}

#[test]
fn a_new_rx_queue_that_another_socket_has_is_named_and_taken_when_it_is_free() {
    rig::require_root!();
    let pair = Pair::new(2);
    rig::run(&format!("ip netns exec {} ethtool -L va tx 1", pair.a));
    rig::run(&format!("ip netns exec {} ethtool -L vb rx 1", pair.b));
    let mut receivers = pair.in_b(|| open("native", 512)).unwrap().receivers;
    rig::run(&format!("ip netns exec {} ethtool -L vb rx 2", pair.b));
    let umem = Umem::new(64, None).unwrap();
    let foreign = pair.in_b(|| {
        let socket = XskSocket::new(&umem, 32).unwrap();
        socket.bind(&Interface::by_name("vb").unwrap(), 1, false, false, TIMEOUT).unwrap();
        socket
    });
    let degraded = |r: &XdpReceiver| r.host().info().degraded;
    let start = Instant::now();
    while degraded(&receivers[0]).is_empty() {
        assert!(start.elapsed() < TIMEOUT, "{}", report(&mut receivers));
        pair.in_b(|| drop(receivers[0].counters()));
    }
    let said = degraded(&receivers[0]);
    assert!(said[0].contains("rx queue 1 of vb") && said[0].contains("another AF_XDP socket"), "{said:?}");
    assert_eq!((said.len(), receivers[0].serves(), receivers[0].away()), (1, vec![0], None));
    drop(foreign);
    look_until(&pair, &mut receivers, &[&[0, 1]]);
    assert!(degraded(&receivers[0]).is_empty());
    rig::run(&format!("ip netns exec {} ethtool -L va tx 2", pair.a));
    each_receives_its_own(&pair, &mut receivers, 0..500, &[0, 1]);
}

#[test]
fn a_removed_interface_is_waited_for_and_taken_again() {
    rig::require_root!();
    let pair = Pair::new(2);
    let opened = pair.in_b(|| open("native", 2048)).unwrap();
    let (host, mut receivers) = (opened.receivers[0].host(), opened.receivers);
    let (index, program) = (pair.in_b(|| Interface::by_name("vb").unwrap().index), receivers[0].program_id());
    let mut sink = Collector::default();
    for round in 0..3u16 {
        let sent = usize::from(round) * 1000;
        send(&pair, round * 1000..round * 1000 + 500);
        let start = Instant::now();
        while receivers.iter().map(|r| r.frames().rx).sum::<u32>() < 500 {
            assert!(start.elapsed() < TIMEOUT, "{}", report(&mut receivers));
            thread::sleep(Duration::from_millis(1));
        }
        // What the rings hold is not lost with the interface.
        pair.delete_link();
        let start = Instant::now();
        while !receivers.iter().all(|r| r.away().is_some() && r.serves().is_empty()) {
            assert!(start.elapsed() < TIMEOUT, "{}", report(&mut receivers));
            receivers.iter_mut().for_each(|r| r.wait(Duration::from_millis(5)).unwrap());
            // One without rx queues hears of it when it looks.
            receivers.iter_mut().for_each(|r| drop(r.counters()));
            drain(&mut receivers, &mut sink);
        }
        assert_eq!(sink.datagrams, sent + 500);
        assert!(receivers.iter().all(|r| r.away().unwrap().contains("vb was removed")));
        assert_eq!((receivers[0].program_id(), receivers[0].frames().total), (0, 0));
        assert_eq!(host.info().granted.iter().find(|(k, _)| k == "rx queues").unwrap().1, "0");

        // Back with another MAC, index and number of queues: fewer than there are receivers, then more.
        let queues = [1, 4, 2][usize::from(round)];
        pair.create_link(queues, [2, 0, 0, 0, 0x0b, 7]);
        let want: [[&[u32]; 2]; 3] = [[&[0], &[]], [&[0, 2], &[1, 3]], [&[0], &[1]]];
        look_until(&pair, &mut receivers, &want[usize::from(round)]);
        assert_ne!(pair.in_b(|| Interface::by_name("vb").unwrap().index), index);
        assert_ne!(receivers[0].program_id(), program);
        assert!(receivers.iter().all(|r| r.away().is_none()));
        send(&pair, round * 1000 + 500..round * 1000 + 1000);
        drain_until(&mut receivers, &mut sink, |_, s| s.datagrams == sent + 1000);
        // Attached before it was up, perhaps.
        await_degraded(&host, |degraded| degraded.is_empty());
        let info = host.info();
        assert_eq!(info.mode, "native copy");
        assert_eq!(info.granted.iter().find(|(k, _)| k == "rx queues").unwrap().1, queues.to_string());
    }
    assert_eq!(counter(&mut receivers, "xdp_reattached"), 6, "twice three times");
    assert_eq!(lost(&mut receivers), 0);
    drop(receivers);
    assert_detached(&pair);
}

fn await_degraded(host: &Host, done: impl Fn(&[String]) -> bool) {
    let start = Instant::now();
    while !done(&host.info().degraded) {
        assert!(start.elapsed() < TIMEOUT, "{:?}", host.info().degraded);
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_link_that_is_down_is_said_for_as_long_as_it_is() {
    rig::require_root!();
    let pair = Pair::new(1);
    run(&format!("ip -n {} link set va down", pair.a));
    let opened = pair.in_b(|| open("native", 512)).unwrap();
    let says = |degraded: &[String]| degraded == ["vb is down: nothing arrives until it is up"];
    assert!(says(&opened.info.degraded), "{:?}", opened.info.degraded);
    let host = opened.receivers[0].host();
    run(&format!("ip -n {} link set va up", pair.a));
    await_degraded(&host, |degraded| degraded.is_empty());
    run(&format!("ip -n {} link set va down", pair.a));
    await_degraded(&host, says);
}

/// No socket of the thread could report it.
#[test]
fn a_thread_without_sockets_hears_of_a_removed_interface() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut receivers = pair.in_b(|| open("native", 512)).unwrap().receivers;
    // As when the kernel refuses every socket.
    receivers[0].follow(0);
    drain(&mut receivers, &mut Collector::default());
    assert_eq!((receivers[0].serves(), receivers[0].frames().total), (vec![], 0));
    pair.delete_link();
    let start = Instant::now();
    while receivers[0].away().is_none() {
        assert!(start.elapsed() < TIMEOUT, "{}", report(&mut receivers));
        drop(receivers[0].counters());
        thread::sleep(Duration::from_millis(5));
    }
    assert!(receivers[0].away().unwrap().contains("vb was removed"));
    pair.create_link(1, [2, 0, 0, 0, 0x0b, 7]);
    look_until(&pair, &mut receivers, &[&[0]]);
    each_receives_its_own(&pair, &mut receivers, 0..100, &[0]);
    assert_eq!((counter(&mut receivers, "xdp_reattached"), lost(&mut receivers)), (1, 0));
}

/// Refuses the calling thread what takes the RTNL: ioctl(2), rtnetlink, and bpf(2) but for elements of maps
/// (seccomp(2)). The bind(2) of a new socket stays allowed.
fn forbid_slow_calls() {
    let bpf = |code: u32, jt, jf, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| bpf(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = |k, jt, jf| bpf(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, k);
    let answer = |k| bpf(libc::BPF_RET | libc::BPF_K, 0, 0, k);
    // `struct seccomp_data`: the number of the call, and the low half of its first argument.
    let argument = if cfg!(target_endian = "little") { 16 } else { 20 };
    let mut program = [
        load(0),
        equal(libc::SYS_ioctl as u32, 7, 0),
        equal(libc::SYS_bpf as u32, 2, 0),
        equal(libc::SYS_socket as u32, 3, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        load(argument),
        // BPF_MAP_LOOKUP_ELEM, _UPDATE_ELEM, _DELETE_ELEM
        bpf(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 2, 3, 3),
        load(argument),
        equal(libc::AF_NETLINK as u32, 0, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: both change this thread alone; the program is copied before the call returns.
    let rc = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(rc, 0, "seccomp: {}", std::io::Error::last_os_error());
    assert!(Interface::by_name("vb").is_err(), "ioctl is refused");
}

/// Any veth deleted on the host may hold the RTNL for longer than rings last.
#[test]
fn receive_threads_ask_the_interface_nothing() {
    rig::require_root!();
    let pair = Pair::new(2);
    run(&format!("ip netns exec {} ethtool -L va tx 1", pair.a));
    run(&format!("ip netns exec {} ethtool -L vb rx 1", pair.b));
    let mut receivers = pair.in_b(|| open("native", 512)).unwrap().receivers;
    let look_until = |receivers: &mut [XdpReceiver], done: &(dyn Fn(&XdpReceiver) -> bool + Sync)| {
        let start = Instant::now();
        while !done(&receivers[0]) {
            assert!(start.elapsed() < TIMEOUT, "{}", report(receivers));
            pair.in_b(|| {
                forbid_slow_calls();
                drop(receivers[0].counters());
                receivers[0].receive(&mut Collector::default()).unwrap();
            });
            thread::sleep(Duration::from_millis(20));
        }
    };
    // A new rx queue, which needs the program installed again.
    run(&format!("ip netns exec {} ethtool -L vb rx 2", pair.b));
    run(&format!("ip netns exec {} ethtool -L va tx 2", pair.a));
    look_until(&mut receivers, &|r| r.serves() == [0, 1]);
    each_receives_its_own(&pair, &mut receivers, 0..500, &[0, 1]);
    // And an interface that goes and comes.
    pair.delete_link();
    look_until(&mut receivers, &|r| r.away().is_some() && r.frames().total == 0);
    pair.create_link(2, [2, 0, 0, 0, 0x0b, 7]);
    look_until(&mut receivers, &|r| r.serves() == [0, 1]);
    each_receives_its_own(&pair, &mut receivers, 1000..1500, &[0, 1]);
    assert_eq!(lost(&mut receivers), 0);
}

/// Attaching may take the driver seconds and bounce the link.
#[test]
fn nothing_is_attached_any_more_when_the_service_stops() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut receivers = pair.in_b(|| open("native", 512)).unwrap().receivers;
    let host = receivers[0].host();
    pair.delete_link();
    let start = Instant::now();
    while receivers[0].away().is_none() {
        assert!(start.elapsed() < TIMEOUT, "{}", report(&mut receivers));
        drop(receivers[0].counters());
    }
    host.stop();
    pair.create_link(1, [2, 0, 0, 0, 0x0b, 7]);
    // Two looks of the helper thread, if there still were any.
    thread::sleep(Duration::from_secs(2));
    drop(receivers[0].counters());
    assert_eq!((program_on(&pair.b), receivers[0].serves()), (None, vec![]));
    drop(receivers);
    assert_eq!(program_on(&pair.b), None);
}

fn granted(opened: &millrace_core::rx::Opened<XdpReceiver>, what: &str) -> String {
    opened.info.granted.iter().find(|(k, _)| k == what).unwrap().1.clone()
}

#[test]
fn busy_polling_is_called_active_only_when_the_kernel_knows_the_queue() {
    rig::require_root!();
    let pair = Pair::new(1);
    let asked = EngineConfig { xdp_prefer_busy_poll: true, ..config("native", 512, r#"{"port":9000}"#) };
    let mut opened = pair.in_b(|| xdp::open(&asked)).unwrap();
    // veth takes the options and has no NAPI to offer.
    assert_eq!(granted(&opened, "preferred busy-poll"), "not active");
    assert!(
        opened.info.degraded.iter().any(|d| d.contains("SO_INCOMING_NAPI_ID")),
        "{:?}",
        opened.info.degraded
    );
    send(&pair, 0..100);
    let mut sink = Collector::default();
    drain_until(&mut opened.receivers, &mut sink, |_, s| s.datagrams == 100);
    assert!(opened.receivers[0].counters().notes.contains(&("busy_poll_napi_id", 0)));
}

#[test]
fn packet_memory_is_on_huge_pages_when_the_host_has_some() {
    rig::require_root!();
    let knob = "/proc/sys/vm/nr_hugepages";
    let pair = Pair::new(1);
    let before = std::fs::read_to_string(knob).unwrap_or_default();
    let pages = |n: &str| std::fs::write(knob, n).is_ok();
    if before.trim() != "0" || !pages("8") {
        return rig::skip("huge pages of this host are in use, or cannot be reserved");
    }
    let free = std::fs::read_to_string("/proc/meminfo").unwrap();
    let enough = free.lines().any(|l| l.starts_with("HugePages_Free") && l.trim().ends_with(" 8"));
    // 1024 frames are one page of 2 MiB.
    let opened = pair.in_b(|| open("native", 1024));
    let _ = pages("0");
    let mut opened = opened.unwrap();
    if enough {
        assert_eq!(granted(&opened, "packet memory"), "2 MiB pages");
    }
    send(&pair, 0..200);
    let mut sink = Collector::default();
    drain_until(&mut opened.receivers, &mut sink, |_, s| s.datagrams == 200);
    drop(opened);
    assert_detached(&pair);
    let opened = pair.in_b(|| open("native", 1024)).unwrap();
    assert_eq!(granted(&opened, "packet memory"), "ordinary pages");
}
