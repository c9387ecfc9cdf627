//! Closing: what came is received, and what comes afterwards goes up the stack.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use millrace_core::rx::{Receiver, xdp::XdpReceiver};

use crate::{
    rig::{self, Pair, RawSender},
    xdp_support::{Collector, TIMEOUT, drain, lost, open, program_on, report, send, udp_socket},
};

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

/// Attaching may take the driver seconds and bounce the link.
#[test]
fn nothing_is_attached_any_more_when_the_service_stops() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut receivers = pair.in_b(|| open("native", 512)).unwrap().receivers;
    let state = receivers[0].interface_state();
    pair.delete_link();
    let start = Instant::now();
    while receivers[0].away().is_none() {
        assert!(start.elapsed() < TIMEOUT, "{}", report(&mut receivers));
        drop(receivers[0].counters());
    }
    state.stop();
    pair.create_link(1, [2, 0, 0, 0, 0x0b, 7]);
    // The helper thread would poll twice in this time, if it still ran.
    thread::sleep(Duration::from_secs(2));
    drop(receivers[0].counters());
    assert_eq!((program_on(&pair.b), receivers[0].serves()), (None, vec![]));
    drop(receivers);
    assert_eq!(program_on(&pair.b), None);
}
