//! A link that goes down and comes up, and waiting for frames.

use std::time::{Duration, Instant};

use millrace_core::rx::Receiver;

use crate::{
    rig::{self, Pair, run},
    xdp_support::{Collector, TIMEOUT, await_degraded, drain_until, open, send},
};

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
fn a_link_that_is_down_is_said_for_as_long_as_it_is() {
    rig::require_root!();
    let pair = Pair::new(1);
    run(&format!("ip -n {} link set va down", pair.a));
    let opened = pair.in_b(|| open("native", 512)).unwrap();
    let says = |degraded: &[String]| degraded == ["vb is down: nothing arrives until it is up"];
    assert!(says(&opened.info.degraded), "{:?}", opened.info.degraded);
    let state = opened.receivers[0].interface_state();
    run(&format!("ip -n {} link set va up", pair.a));
    await_degraded(&state, |degraded| degraded.is_empty());
    run(&format!("ip -n {} link set va down", pair.a));
    await_degraded(&state, says);
}
