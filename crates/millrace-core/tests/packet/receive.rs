//! The packet backend: rings and guard together deliver every datagram once, and nothing else.

use millrace_core::{datagram::flags, net::Interface, packet::FrameDrop};

use crate::{
    rig::{self, Pair, RawSender, V4, V6},
    support::*,
};

#[test]
fn twenty_thousand_datagrams_arrive_exactly() {
    rig::require_root!();
    let pair = Pair::new(2);
    let mut opened = open_packet(&pair, r#"{"port":9000},{"port":9001},{"port":9002}"#, 4);
    assert!(opened.info.degraded.is_empty(), "{:?}", opened.info.degraded);
    exact(&pair, &mut opened, true);
    assert_eq!(packets(&mut opened), 20_000, "foreign traffic never enters the ring");
}

#[test]
fn a_segmented_burst_is_split() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_packet(&pair, ONE_PORT, 2);
    for v6 in [false, true] {
        let collector = segmented(&pair, &mut opened, v6);
        assert!(
            collector.got.iter().all(|g| g.flags & flags::SPLIT != 0),
            "veth hands the super-packet over whole"
        );
    }
    assert_eq!(packets(&mut opened), 2);
}

/// The driver merges what arrives in one go (GRO) because the guard allows it for IPv4, and the ring splits it again.
#[test]
fn what_gro_merged_is_split() {
    rig::require_root!();
    let pair = Pair::new(1);
    // The sender's kernel segments the burst before the wire, so that ten frames cross it; veth does GRO only for
    // frames of a device without TSO.
    rig::run(&format!("ip netns exec {} ethtool -K va tso off tx-udp-segmentation off", pair.a));
    rig::run(&format!("ip netns exec {} ethtool -K vb gro on", pair.b));
    let mut opened = open_packet(&pair, ONE_PORT, 2);
    (0..5).for_each(|_| drop(segmented(&pair, &mut opened, false)));
    let v4 = packets(&mut opened);
    assert!((5..50).contains(&v4), "50 frames on the wire, {v4} in the ring");
    segmented(&pair, &mut opened, true);
    assert_eq!(packets(&mut opened) - v4, 10, "the guard does not ask for it for IPv6");
    assert_eq!(lost(&mut opened), 0);
}

#[test]
fn fragments_are_one_datagram() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_packet(&pair, ONE_PORT, 2);
    let v4 = fragmented(&pair, &mut opened, false);
    assert_eq!(v4.flags & flags::SLOW_PATH, 0, "IPv4 is put together for the ring");
    let v6 = fragmented(&pair, &mut opened, true);
    assert_ne!(v6.flags & flags::SLOW_PATH, 0, "IPv6 comes by the guard");
    assert_eq!((v6.dst.to_ip().to_string().as_str(), v6.dst_port), (V6.1, 9000));
    // The largest datagrams there are.
    pair.in_a(|| {
        assert_eq!(sender(false).send_to(&vec![4; 65_507], to(false, 9000)).unwrap(), 65_507);
        assert_eq!(sender(true).send_to(&vec![6; 65_527], to(true, 9000)).unwrap(), 65_527);
    });
    let mut sizes = drain(&mut opened, 2).sizes();
    sizes.sort_unstable();
    assert_eq!(sizes, [65_507, 65_527]);
    assert_eq!(lost(&mut opened), 0);
}

/// What the guard's filter lets pass without being a fragment is ignored there.
#[test]
fn large_ipv6_datagrams_and_atomic_fragments_arrive_once() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_packet(&pair, ONE_PORT, 1);
    pair.in_a(|| {
        for size in [1231, 1232, 1233, 1400, 1452] {
            sender(true).send_to(&vec![2; size], to(true, 9000)).unwrap();
        }
        let mut atomic = Pair::v6(7, 9000);
        atomic.ipv6_extensions = vec![(44, vec![0, 0, 0, 0, 0, 0, 0, 9])];
        RawSender::new("va").send(&atomic.bytes(&[9; 1300]));
        RawSender::new("va").send(&atomic.bytes(&[9; 20]));
    });
    let collector = drain(&mut opened, 7);
    assert_eq!(collector.sizes(), [1231, 1232, 1233, 1400, 1452, 1300, 20]);
    assert!(collector.got.iter().all(|g| g.flags & flags::SLOW_PATH == 0));
}

/// Extension headers count for the MTU: what a conforming sender fragments may have a small payload then.
#[test]
fn fragments_with_extension_headers_arrive_once() {
    rig::require_root!();
    // An unknown option, which every receiver skips (RFC 8200 §4.2); the stack takes no padding of that length.
    let options = (60, [&[0, 2, 0x1e, 20][..], &[0; 20]].concat());
    let atomic = (44, vec![0, 0, 0, 0, 0, 0, 0, 9]);
    let pair = Pair::new(1);
    let mut opened = open_packet(&pair, ONE_PORT, 1);
    let frame = |extensions: &[(u8, Vec<u8>)], i: usize, size| {
        let frame =
            millrace_core::packet::build::Frame { ipv6_extensions: extensions.to_vec(), ..Pair::v6(7, 9000) };
        frame.bytes(&payload(i, size))
    };
    // In the ring, whatever their size: 40 IPv6 header, 24 options, 8 UDP header.
    let mut frames = Vec::new();
    let whole =
        [std::slice::from_ref(&options), &[options.clone(), atomic.clone()], &[atomic, options.clone()]];
    for (i, size) in [20, 1216, 1300].into_iter().enumerate() {
        whole.iter().for_each(|extensions| frames.push(frame(extensions, i, size)));
    }
    let in_ring = frames.len();
    // Fragments of 1280 bytes at most, options before the fragment header or behind it.
    for (i, size) in [1216, 1217, 2400].into_iter().enumerate() {
        for unfragmented in [0, 24] {
            let id = (2 * i + unfragmented) as u8;
            frames.extend(fragments(&frame(std::slice::from_ref(&options), 3 + i, size), unfragmented, id));
        }
    }
    pair.in_a(|| {
        let raw = RawSender::new("va");
        frames.iter().for_each(|frame| raw.send(frame));
    });
    let collector = drain(&mut opened, in_ring + 6);
    let slow = |g: &&Collected| g.flags & flags::SLOW_PATH != 0;
    let mut sizes: Vec<usize> = collector.got.iter().filter(slow).map(|g| g.payload.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1216, 1216, 1217, 1217, 2400, 2400]);
    for g in collector.got.iter().filter(slow) {
        let i = 3 + [1216, 1217, 2400].iter().position(|size| *size == g.payload.len()).unwrap();
        assert_eq!(g.payload, payload(i, g.payload.len()));
    }
    assert_eq!(collector.got.len(), in_ring + 6);
}

/// An IPv6 frame in fragments of 1280 bytes, behind `unfragmented` bytes of extension headers, which must be one header.
fn fragments(frame: &[u8], unfragmented: usize, id: u8) -> Vec<Vec<u8>> {
    let (head, rest) = frame.split_at(14 + 40 + unfragmented);
    let room = (1280 - 40 - unfragmented - 8) / 8 * 8;
    let kind = if unfragmented == 0 { 14 + 6 } else { 14 + 40 };
    let parts: Vec<&[u8]> = rest.chunks(room).collect();
    let one = |(n, part): (usize, &&[u8])| {
        let mut head = head.to_vec();
        let next = std::mem::replace(&mut head[kind], 44);
        head[18..20].copy_from_slice(&((unfragmented + 8 + part.len()) as u16).to_be_bytes());
        let offset = (n * room) as u16 | u16::from(n + 1 < parts.len());
        let [high, low] = offset.to_be_bytes();
        [&head[..], &[next, 0, high, low, 0, 0, 0, id], part].concat()
    };
    parts.iter().enumerate().map(one).collect()
}

#[test]
fn options_extension_headers_and_vlan_tags_are_read_by_the_ring() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_packet(&pair, ONE_PORT, 1);
    let mut frames = Vec::new();
    for vlan in [vec![], vec![(0x8100, 5)], vec![(0x88a8, 7), (0x8100, 5)]] {
        let mut options = Pair::v4(1, 9000);
        options.ipv4_options = vec![1, 1, 1, 0];
        let mut extended = Pair::v6(1, 9000);
        extended.ipv6_extensions = vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0])];
        for mut frame in [Pair::v4(1, 9000), Pair::v6(1, 9000), options, extended] {
            frame.vlan.clone_from(&vlan);
            frames.push(frame);
        }
    }
    pair.in_a(|| {
        let raw = RawSender::new("va");
        for (i, frame) in frames.iter().enumerate() {
            raw.send(&frame.bytes(&payload(i, 64)));
            let other = rig_port(frame, 9001);
            raw.send(&other.bytes(b"foreign"));
        }
    });
    let collector = drain(&mut opened, 12);
    let expected: Vec<_> = (0..12).map(|i| payload(i, 64)).collect();
    assert_eq!(collector.got.into_iter().map(|g| g.payload).collect::<Vec<_>>(), expected);
    // The filter cannot read behind an extension header, so these three come in and are refused here.
    assert_eq!(collector.dropped.get(&FrameDrop::Foreign), Some(&3));
}

fn rig_port(frame: &millrace_core::packet::build::Frame, port: u16) -> millrace_core::packet::build::Frame {
    millrace_core::packet::build::Frame { dst_port: port, ..frame.clone() }
}

#[test]
fn what_does_not_fit_is_counted_exactly() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut small = config(ONE_PORT, "vb", 2);
    (small.packet_block_bytes, small.packet_blocks) = (131_072, 4);
    let mut opened = open_in_b(&pair, &small, open_rings).unwrap();
    pair.in_a(|| {
        let sockets: Vec<_> = (0..8).map(|_| sender(false)).collect();
        for i in 0..6000 {
            sockets[i % 8].send_to(&payload(i, 400), to(false, 9000)).unwrap();
        }
    });
    std::thread::sleep(QUIET);
    let collector = drain(&mut opened, 1);
    // On a busy machine the per-CPU backlog (net.core.netdev_max_backlog) can overflow before any tap sees the frame;
    // the interface counts that.
    let backlog = pair.in_b(|| Interface::by_name("vb").unwrap().link().unwrap().statistics.rx_dropped);
    let missing = 6000 - backlog - collector.got.len() as u64;
    assert!(missing > 0 && !collector.got.is_empty());
    assert_eq!(lost(&mut opened), missing);
    assert_eq!(lost(&mut opened), missing, "the kernel clears its counter, we do not");
    assert_eq!(packets(&mut opened), 6000 - backlog);
    pair.in_a(|| sender(false).send_to(b"again", to(false, 9000)).unwrap());
    assert_eq!(drain(&mut opened, 1).sizes(), [5]);
    assert_eq!(lost(&mut opened), missing);
}

#[test]
fn a_frame_larger_than_a_block_is_counted_as_truncated() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut tiny = config(ONE_PORT, "vb", 1);
    // Below what the configuration allows, which is made so that this cannot happen.
    (tiny.packet_block_bytes, tiny.packet_blocks) = (8192, 8);
    let mut opened = open_in_b(&pair, &tiny, open_rings).unwrap();
    pair.in_a(|| {
        sender(false).send_to(&[1; 20_000], to(false, 9000)).unwrap();
        sender(false).send_to(&[1; 1000], to(false, 9000)).unwrap();
    });
    let collector = drain(&mut opened, 1);
    assert_eq!((collector.sizes(), collector.dropped(FrameDrop::Truncated)), (vec![1000], 1));
}

#[test]
fn outgoing_and_other_hosts_frames_are_not_seen() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_packet(&pair, ONE_PORT, 2);
    pair.in_b(|| {
        for _ in 0..10 {
            sender(false).send_to(b"out", (V4.0, 9000)).unwrap();
            sender(true).send_to(b"out", (V6.0, 9000)).unwrap();
        }
    });
    pair.in_a(|| {
        let mut other = Pair::v4(1, 9000);
        other.dst_mac = [2, 9, 9, 9, 9, 9];
        RawSender::new("va").send(&other.bytes(b"not for this host"));
    });
    let collector = drain(&mut opened, 0);
    assert!(collector.got.is_empty() && collector.dropped.is_empty(), "{collector:?}");
    assert_eq!(packets(&mut opened), 0);
}

#[test]
fn loopback_delivers_once() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_in_b(&pair, &config(ONE_PORT, "lo", 2), open_rings).unwrap();
    pair.in_b(|| {
        for i in 0..20 {
            sender(false).send_to(&payload(i, 8), ("127.0.0.1", 9000)).unwrap();
            sender(true).send_to(&payload(i, 2000), ("::1", 9000)).unwrap();
        }
    });
    assert_eq!(drain(&mut opened, 40).got.len(), 40);
    assert_eq!(lost(&mut opened), 0);
}

/// The ring sees the frame before the stack checks it: delivered here, dropped by the socket backend.
#[test]
fn empty_datagrams_arrive_and_checksums_are_not_verified() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_packet(&pair, ONE_PORT, 1);
    pair.in_a(|| {
        sender(false).send_to(b"", to(false, 9000)).unwrap();
        sender(true).send_to(b"", to(true, 9000)).unwrap();
        let mut bytes = Pair::v4(5, 9000).bytes(b"spoilt");
        *bytes.last_mut().unwrap() ^= 1;
        RawSender::new("va").send(&bytes);
    });
    assert_eq!(drain(&mut opened, 3).sizes(), [0, 0, 6]);
}
