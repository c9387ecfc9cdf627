//! AF_XDP end to end over veth: exact counts, exact bytes, exact losses.

use std::{
    net::UdpSocket,
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    datagram::Datagram,
    packet::FrameDrop,
    packet::{build::Frame, parse_ethernet},
    protocol::{ETH_P_8021AD, ETH_P_8021Q},
    rx::{
        Receiver, Sink,
        xdp::{self, XdpReceiver, umem::FrameCensus},
    },
};

use crate::{
    rig::{self, Pair, RawSender, V4},
    xdp_support::{Collector, TIMEOUT, config, counter, drain, drain_until, lost, open, report},
};

const NUMBERED: u16 = 20_000;
/// Numbers start here: source ports below could be anything.
const FIRST: u16 = 1024;
/// Frames sent before the receivers must have caught up: well below what one queue's rings hold.
const BURST: u16 = 500;

/// The `i`-th datagram: every size from 0 to what fits, both families, tagged and not, three ports.
fn numbered(i: u16) -> Vec<u8> {
    let (src_port, dst_port) = (FIRST + i, 9000 + i % 3);
    let plain = if i % 4 == 3 { Pair::v6(src_port, dst_port) } else { Pair::v4(src_port, dst_port) };
    let vlan = match i % 5 {
        1 => vec![(ETH_P_8021Q, i & 0xfff)],
        2 => vec![(ETH_P_8021AD, 7), (ETH_P_8021Q, i & 0xfff)],
        _ => vec![],
    };
    // AF_PACKET allows 1514 bytes, and 4 more only behind an 802.1Q tag.
    let mut most = if i % 4 == 3 { 1452 } else { 1472 };
    most -= if vlan.len() == 2 { 8 } else { 0 };
    Frame { vlan, ..plain }.bytes(&payload(i, usize::from(i) % (most + 1)))
}

fn payload(i: u16, len: usize) -> Vec<u8> {
    (0..len).map(|k| (k as u16 ^ i.wrapping_mul(0x9e37)).wrapping_mul(31) as u8).collect()
}

/// Traffic for other ports and addresses, and traffic that the program leaves to the stack.
fn foreign(i: u16) -> Vec<u8> {
    let v4 = Pair::v4(FIRST + i, 9000);
    match i % 6 {
        0 => Pair::v4(FIRST + i, 9003).bytes(b"another port"),
        1 => Frame { ipv4_options: vec![1; 4], ..v4 }.bytes(b"options"),
        2 => {
            let mut fragment = v4.bytes(b"fragment");
            fragment[20] = 0x20;
            fragment
        }
        3 => {
            let mut tcp = v4.bytes(b"tcp, or so it says, and long enough");
            tcp[23] = 6;
            tcp
        }
        4 => {
            let ipv6_extensions = vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0])];
            Frame { ipv6_extensions, ..Pair::v6(FIRST + i, 9000) }.bytes(b"extension header")
        }
        _ => {
            let mut lldp = v4.bytes(b"x");
            lldp[12..14].copy_from_slice(&0x88ccu16.to_be_bytes());
            lldp
        }
    }
}

fn every_datagram_arrives(mode: &str) {
    let pair = Pair::new(4);
    let listen = r#"{"address":"192.0.2.2","port":9000},{"port":9001},{"address":"::","port":9002},
        {"address":"2001:db8::2","port":9000}"#;
    let opened = pair
        .in_b(|| xdp::open(&config(mode, 4096, listen), &millrace_core::rx::RulePrograms::default()))
        .unwrap();
    assert_eq!(opened.info.mode, format!("{mode} copy"));
    // Generic mode on veth carries a warning about UDP_SEGMENT.
    assert_eq!(opened.info.degraded.len(), usize::from(mode == "generic"), "{:?}", opened.info.degraded);
    let mut receivers = opened.receivers;
    assert_eq!(receivers.len(), 4);
    let (mut sink, sender) = (Collector::default(), pair.in_a(|| RawSender::new("va")));
    for i in 0..NUMBERED {
        sender.send(&numbered(i));
        if i % 3 == 0 {
            sender.send(&foreign(i));
        }
        if i % BURST == BURST - 1 || i == NUMBERED - 1 {
            drain_until(&mut receivers, &mut sink, |_, s| s.datagrams == usize::from(i) + 1);
        }
    }
    thread::sleep(Duration::from_millis(50));
    assert_eq!(drain(&mut receivers, &mut sink), 0, "more than was sent");
    for i in 0..NUMBERED {
        let frame = numbered(i);
        let (want, got) = (parse_ethernet(&frame).unwrap(), &sink.seen[&(FIRST + i)]);
        assert_eq!((got.src, got.dst, got.dst_port), (want.src, want.dst, want.dst_port), "number {i}");
        assert_eq!(got.payload, want.payload, "number {i}");
    }
    assert_eq!(sink.dropped, [], "the program redirected what is not ours");
    assert_eq!(lost(&mut receivers), 0, "{}", report(&mut receivers));
    // Natively the flows spread over all four queues. Generic mode on veth reads the sender's tx queue number as a
    // recorded rx queue, which is one too low: 0, 0, 1, 2.
    assert_eq!(sink.queues.len(), if mode == "native" { 4 } else { 3 }, "{:?}", sink.queues);
    for r in &receivers {
        let f = r.frames();
        assert_eq!((f.free + f.fill, f.rx, f.in_kernel), (f.total, 0, 0), "{f:?}");
    }
}

#[test]
fn native_every_datagram_arrives() {
    rig::require_root!();
    every_datagram_arrives("native");
}

#[test]
fn generic_every_datagram_arrives() {
    rig::require_root!();
    every_datagram_arrives("generic");
}

fn send_numbers(pair: &Pair, numbers: std::ops::Range<u16>) {
    pair.in_a(|| {
        let sender = RawSender::new("va");
        for i in numbers {
            sender.send(&Pair::v4(FIRST + i, 9000).bytes(&payload(i, 40)));
        }
    });
}

fn overflow_is_counted_exactly(mode: &str) {
    let pair = Pair::new(1);
    let mut receivers = pair.in_b(|| open(mode, 1024)).unwrap().receivers;
    let mut sink = Collector::default();
    // Until what was sent is either counted as lost or waiting in the rx ring.
    let settle = |receivers: &mut [XdpReceiver], want: u64| {
        let start = Instant::now();
        while lost(receivers) + u64::from(receivers[0].frames().rx) < want {
            assert!(start.elapsed() < TIMEOUT, "{}", report(receivers));
            thread::sleep(Duration::from_millis(1));
        }
    };
    let counters = |r: &mut [XdpReceiver]| {
        ["xsk_rx_dropped", "xsk_rx_ring_full", "xsk_fill_ring_empty"].map(|name| counter(r, name))
    };
    // Rings of 512: that many arrive, the fill ring is empty then, the rest is lost.
    send_numbers(&pair, 0..1000);
    settle(&mut receivers, 1000);
    assert_eq!(counters(&mut receivers), [488, 0, 488], "the note is contained in rx_dropped");
    assert_eq!(drain(&mut receivers, &mut sink), 512);
    // It resumes, and nothing more is lost.
    send_numbers(&pair, 1000..1200);
    drain_until(&mut receivers, &mut sink, |_, s| s.datagrams == 712);
    assert_eq!(lost(&mut receivers), 488);

    // A pass that leaves frames behind tops the fill ring up; then the rx ring is what fills first.
    send_numbers(&pair, 1200..1712);
    settle(&mut receivers, 488 + 512);
    assert_eq!(receivers[0].receive(&mut sink).unwrap(), 256);
    assert_eq!(
        receivers[0].frames(),
        FrameCensus { free: 256, fill: 512, rx: 256, in_kernel: 0, total: 1024 }
    );
    send_numbers(&pair, 1712..2712);
    settle(&mut receivers, 488 + 256 + 1000);
    assert_eq!(counters(&mut receivers), [488, 744, 488], "rx_dropped and ring_full do not overlap");
    assert_eq!(drain(&mut receivers, &mut sink), 512);
    assert_eq!((sink.datagrams as u64 + lost(&mut receivers), sink.dropped), (2712, vec![]));
    let f = receivers[0].frames();
    assert_eq!((f.free + f.fill + f.rx + f.in_kernel, f.rx), (f.total, 0), "{f:?}");
    assert!(f.in_kernel <= 1, "the kernel keeps one frame back when the rx ring is full: {f:?}");
}

#[test]
fn native_overflow_is_counted_exactly() {
    rig::require_root!();
    overflow_is_counted_exactly("native");
}

#[test]
fn generic_overflow_is_counted_exactly() {
    rig::require_root!();
    overflow_is_counted_exactly("generic");
}

#[test]
fn frames_for_us_whose_lengths_lie_are_counted_and_harmless() {
    rig::require_root!();
    for mode in ["native", "generic"] {
        let pair = Pair::new(1);
        let mut receivers = pair.in_b(|| open(mode, 512)).unwrap().receivers;
        let mut sink = Collector::default();
        pair.in_a(|| {
            let sender = RawSender::new("va");
            let good = Pair::v4(FIRST, 9000).bytes(b"0123456789");
            // UDP length, IPv4 total length, IPv4 total length below its header, IPv6 payload length.
            for (at, value) in [(38, 4000u16), (38, 0), (16, 1500), (16, 19)] {
                let mut bad = good.clone();
                bad[at..at + 2].copy_from_slice(&value.to_be_bytes());
                sender.send(&bad);
            }
            let mut bad = Pair::v6(FIRST, 9000).bytes(b"0123456789");
            bad[18..20].copy_from_slice(&1400u16.to_be_bytes());
            sender.send(&bad);
            // Padding behind the IP packet is not payload.
            let mut padded = good.clone();
            padded.resize(200, 0xee);
            sender.send(&padded);
        });
        drain_until(&mut receivers, &mut sink, |_, s| s.datagrams + s.dropped.len() == 6);
        assert_eq!(sink.dropped, [FrameDrop::Malformed; 5]);
        assert_eq!(sink.seen[&FIRST].payload, b"0123456789");
        let f = receivers[0].frames();
        assert_eq!((f.free + f.fill, f.in_kernel), (f.total, 0));
    }
}

/// Only counts, because the datagrams of one UDP_SEGMENT send share their source port.
#[derive(Default)]
struct Sizes(Vec<usize>);

impl Sink for Sizes {
    fn datagram(&mut self, d: &Datagram<'_>) {
        self.0.push(d.payload.len());
    }
    fn frame_dropped(&mut self, reason: FrameDrop) {
        panic!("{reason:?}");
    }
}

#[test]
fn super_packets_are_split_natively_and_left_to_the_stack_in_generic_mode() {
    rig::require_root!();
    for (mode, mtu) in [("native", 1500), ("native", 9000), ("generic", 1500)] {
        let pair = Pair::new(1);
        rig::run(&format!("ip -n {} link set va mtu {mtu}", pair.a));
        rig::run(&format!("ip -n {} link set vb mtu {mtu}", pair.b));
        let guard = pair.in_b(|| UdpSocket::bind((V4.1, 9000)).unwrap());
        guard.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut receivers = pair.in_b(|| open(mode, 512)).unwrap().receivers;
        for (segment, total) in [(1000, 10_000), (800, 1600)] {
            pair.in_a(|| {
                let sender = UdpSocket::bind((V4.0, 0)).unwrap();
                let segment = segment as libc::c_int;
                // SAFETY: pointer and length describe `segment`, which outlives the call.
                let rc = unsafe {
                    let (level, option) = (libc::SOL_UDP, libc::UDP_SEGMENT);
                    libc::setsockopt(sender.as_raw_fd(), level, option, (&raw const segment).cast(), 4)
                };
                assert_eq!(rc, 0, "UDP_SEGMENT: {}", std::io::Error::last_os_error());
                sender.send_to(&vec![1; total], (V4.1, 9000)).unwrap();
            });
            let (mut ours, mut by_stack, start) = (Sizes::default(), Vec::new(), Instant::now());
            while ours.0.len() + by_stack.len() < total / segment {
                assert!(start.elapsed() < TIMEOUT, "{:?} {by_stack:?}", ours.0);
                receivers[0].receive(&mut ours).unwrap();
                by_stack.extend(guard.recv(&mut [0; 2000]));
            }
            let all = vec![segment; total / segment];
            let want = if mode == "native" { (all, vec![]) } else { (vec![], all) };
            assert_eq!((ours.0, by_stack), want, "{mode}, MTU {mtu}");
        }
    }
}
