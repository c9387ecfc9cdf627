//! Frames larger than one frame of packet memory: in several descriptors natively, by the stack in generic mode.

use crate::{
    rig::{self, Pair, RawSender, run},
    xdp_support::{Collector, drain_until, lost, open, report, udp_socket},
};

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
