//! What the guard's sockets had no room for.

use std::thread;

use millrace_core::{
    config::EngineConfig,
    rx::{Opened, Receiver, packet::PacketReceiver},
};

use crate::{
    rig::{self, Pair},
    setup::{numbers, open},
    support::*,
};

/// A loss is in the books only where the datagram was surely nowhere else.
#[test]
fn what_the_guard_lost_is_a_loss_or_a_note() {
    rig::require_root!();
    let pair = Pair::new(1);
    let tiny = EngineConfig { socket_rcvbuf: 16_384, ..config(ONE_PORT, "vb", 1) };
    let mut opened = open(&pair, &tiny);
    let unsure = |opened: &mut Opened<PacketReceiver>| {
        let notes = opened.guard.as_mut().unwrap().counters().notes;
        notes.iter().find(|n| n.0 == "guard_rcvbuf_unsure").unwrap().1
    };
    // Large and whole: the ring has them all.
    let count = 200;
    pair.in_a(|| {
        (0..count).for_each(|i| assert!(sender(true).send_to(&payload(i, 1300), to(true, 9000)).unwrap() > 0))
    });
    thread::sleep(QUIET);
    let maybe = unsure(&mut opened);
    assert!(maybe > 0 && maybe < count as u64);
    let collector = drain(&mut opened, count);
    assert_eq!(numbers(&collector), (0..count).collect::<Vec<_>>());
    assert_eq!(lost(&mut opened), 0);
    // By loopback: what is not read is lost.
    pair.in_b(|| {
        (0..count)
            .for_each(|i| assert!(sender(false).send_to(&payload(i, 1300), ("127.0.0.1", 9000)).unwrap() > 0))
    });
    let collector = drain(&mut opened, 1);
    assert!(!collector.got.is_empty() && collector.got.len() < count);
    assert_eq!(lost(&mut opened), (count - collector.got.len()) as u64);
    assert_eq!(unsure(&mut opened), maybe);
}
