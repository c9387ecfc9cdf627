//! TPACKET_V2: the same datagrams, losses and counters as V3, one frame at a time.

use std::time::Instant;

use millrace_core::{
    config::{EngineConfig, Tpacket},
    datagram::flags,
    net::Interface,
    packet::FrameDrop,
    rx::{Opened, Receiver, packet},
};

use crate::{
    rig::{self, Pair, RawSender},
    support::*,
};

fn v2(listen: &str, threads: u16) -> EngineConfig {
    EngineConfig { tpacket: Tpacket::V2, ..config(listen, "vb", threads) }
}

fn open(pair: &Pair, config: &EngineConfig) -> Opened<packet::PacketReceiver> {
    let opened = open_in_b(pair, config, open_rings).unwrap();
    assert_eq!(opened.info.mode, "tpacket_v2 fanout hash");
    assert!(opened.info.degraded.is_empty(), "{:?}", opened.info.degraded);
    opened
}

#[test]
fn twenty_thousand_datagrams_arrive_exactly() {
    rig::require_root!();
    let pair = Pair::new(2);
    let mut opened = open(&pair, &v2(r#"{"port":9000},{"port":9001},{"port":9002}"#, 4));
    exact(&pair, &mut opened, true);
    assert_eq!(packets(&mut opened), 20_000, "foreign traffic never enters the ring");
}

#[test]
fn super_packets_are_split_and_fragments_joined() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open(&pair, &v2(ONE_PORT, 2));
    for v6 in [false, true] {
        let collector = segmented(&pair, &mut opened, v6);
        assert!(collector.got.iter().all(|g| g.flags & flags::SPLIT != 0));
        let whole = fragmented(&pair, &mut opened, v6);
        assert_eq!(whole.flags & flags::SLOW_PATH != 0, v6);
    }
    pair.in_a(|| {
        assert_eq!(sender(false).send_to(&vec![4; 65_507], to(false, 9000)).unwrap(), 65_507);
        assert_eq!(sender(true).send_to(&vec![6; 65_527], to(true, 9000)).unwrap(), 65_527);
    });
    let mut sizes = drain(&mut opened, 2).sizes();
    sizes.sort_unstable();
    assert_eq!(sizes, [65_507, 65_527]);
    assert_eq!(lost(&mut opened), 0);
}

#[test]
fn what_is_longer_than_a_slot_is_counted_as_truncated() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open(&pair, &EngineConfig { packet_slot_bytes: 2048, ..v2(ONE_PORT, 1) });
    pair.in_a(|| {
        // One datagram of three fragments, put together, and one that fits.
        sender(false).send_to(&[1; 4000], to(false, 9000)).unwrap();
        sender(false).send_to(&[1; 1472], to(false, 9000)).unwrap();
    });
    let collector = drain(&mut opened, 1);
    assert_eq!((collector.sizes(), collector.dropped(FrameDrop::Truncated)), (vec![1472], 1));
}

#[test]
fn a_full_ring_is_counted_exactly_and_goes_round() {
    rig::require_root!();
    let pair = Pair::new(1);
    // 4 blocks of 62 slots each (2112 does not divide a block).
    let small = EngineConfig { packet_slot_bytes: 2112, packet_blocks: 4, ..v2(ONE_PORT, 1) };
    let mut opened = open(&pair, &small);
    let mut expected_loss = 0;
    for round in 0..3 {
        pair.in_a(|| {
            let raw = RawSender::new("va");
            (0..400).for_each(|i| raw.send(&Pair::v4(1000, 9000).bytes(&payload(i, 300))));
        });
        let collector = drain(&mut opened, 1);
        let backlog = pair.in_b(|| Interface::by_name("vb").unwrap().link().unwrap().statistics.rx_dropped);
        assert_eq!(collector.got.len(), 4 * 62, "round {round}");
        assert_eq!(collector.got[0].payload, payload(0, 300), "the oldest are kept, in order");
        expected_loss += 400 - 4 * 62;
        assert_eq!(lost(&mut opened) + backlog, expected_loss);
        assert_eq!(packets(&mut opened) + backlog, 400 * (round + 1));
    }
}

#[test]
fn a_lone_frame_wakes_the_reader_and_closing_leaves_nothing() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open(&pair, &v2(ONE_PORT, 1));
    let mut collector = Collector::default();
    for i in 0..20 {
        pair.in_a(|| RawSender::new("va").send(&Pair::v4(1000, 9000).bytes(&payload(i, 20))));
        let start = Instant::now();
        opened.receivers[0].wait(TIMEOUT).unwrap();
        assert!(start.elapsed() < TIMEOUT, "woken by the frame, not by the timeout");
        // The frame is in its slot before the reader is woken, so that one pass is enough.
        assert_eq!(opened.receivers[0].receive(&mut collector).unwrap(), 1);
    }
    let send = || pair.in_a(|| RawSender::new("va").send(&Pair::v4(1000, 9000).bytes(b"x")));
    send();
    opened.receivers[0].close_intake();
    send();
    assert_eq!(opened.receivers[0].receive(&mut collector).unwrap(), 1);
    assert_eq!(opened.receivers[0].receive(&mut collector).unwrap(), 0);
    assert_eq!((collector.got.len(), lost(&mut opened)), (21, 0));
}
