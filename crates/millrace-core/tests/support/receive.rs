//! What the socket and the packet backend have in common, tested by the same code: numbered datagrams, a sink that
//! keeps everything, and cases that hold for both.
#![allow(dead_code, unreachable_pub)]

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    config::EngineConfig,
    datagram::{Addr, Datagram, Timestamp, flags},
    error::Result,
    packet::FrameDrop,
    rx::{
        Opened, Receiver, RulePrograms, Sink,
        packet::{self, PacketReceiver},
        socket::{self, SocketReceiver},
    },
};

pub use crate::rig::TIMEOUT;
use crate::rig::{self, Pair, RawSender, V4, V6};

/// Nothing for this long means that nothing more comes.
pub const QUIET: Duration = Duration::from_millis(60);

/// A configuration for `listen` (JSON entries) on interface `dev`.
pub fn config(listen: &str, dev: &str, threads: u16) -> EngineConfig {
    EngineConfig::from_json(&format!(
        r#"{{"backend":"auto","interface":"{dev}","listen":[{listen}],"queues":1,"rxThreads":{threads},"rules":"",
        "busyPoll":"off","busyPollUs":1,"laneSlots":64,"laneBytes":65536,"wakeMin":1,"wakeMaxUs":1,"xdpMode":"auto",
        "xdpFrames":512,"packetBlockBytes":131072,"packetBlocks":128,"socketRcvbuf":8388608}}"#
    ))
    .unwrap()
}

/// A pair without IPv6, so that nothing but the test's frames is on the wire: round robin counts every frame.
pub fn quiet_pair(queues: u32) -> Pair {
    let pair = Pair::new(queues);
    for ns in [&pair.a, &pair.b] {
        rig::run(&format!("ip netns exec {ns} sysctl -qw net.ipv6.conf.all.disable_ipv6=1"));
    }
    pair
}

/// Members by number of the first payload byte: ldb [NET + 28], behind an IPv4 header without options; ret a.
pub fn by_payload() -> RulePrograms {
    let filter = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    RulePrograms {
        fanout: Ok(vec![filter(0x30, libc::SKF_NET_OFF as u32 + 28), filter(0x16, 0)]),
        ..RulePrograms::default()
    }
}

/// One datagram, kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    pub payload: Vec<u8>,
    pub src: Addr,
    pub dst: Addr,
    pub src_port: u16,
    pub dst_port: u16,
    pub time: Timestamp,
    pub rx_queue: u16,
    pub flags: u16,
}

/// Keeps all datagrams and counts the drops.
#[derive(Debug, Default)]
pub struct Collector {
    pub got: Vec<Collected>,
    pub dropped: HashMap<FrameDrop, usize>,
}

impl Sink for Collector {
    fn datagram(&mut self, d: &Datagram<'_>) {
        self.got.push(Collected {
            payload: d.payload.to_vec(),
            src: d.src,
            dst: d.dst,
            src_port: d.src_port,
            dst_port: d.dst_port,
            time: d.time,
            rx_queue: d.rx_queue,
            flags: d.flags,
        });
    }

    fn frame_dropped(&mut self, reason: FrameDrop) {
        *self.dropped.entry(reason).or_default() += 1;
    }
}

impl Collector {
    pub fn sizes(&self) -> Vec<usize> {
        self.got.iter().map(|g| g.payload.len()).collect()
    }

    pub fn dropped(&self, reason: FrameDrop) -> usize {
        self.dropped.get(&reason).copied().unwrap_or(0)
    }
}

/// Reads all receivers and the guard until `expected` datagrams are there and then nothing more comes for [`QUIET`].
pub fn drain<R: Receiver>(opened: &mut Opened<R>, expected: usize) -> Collector {
    let mut collector = Collector::default();
    let (start, mut last) = (Instant::now(), Instant::now());
    while (collector.got.len() < expected || last.elapsed() < QUIET) && start.elapsed() < TIMEOUT {
        let mut seen = 0;
        for r in &mut opened.receivers {
            seen += r.receive(&mut collector).unwrap();
        }
        if let Some(guard) = &mut opened.guard {
            seen += guard.receive(&mut collector).unwrap();
        }
        if seen > 0 {
            last = Instant::now();
        } else {
            opened.receivers[0].wait(Duration::from_millis(1)).unwrap();
        }
    }
    collector
}

/// Sum of all `lost` of receivers and guard.
pub fn lost<R: Receiver>(opened: &mut Opened<R>) -> u64 {
    let own: u64 = opened.receivers.iter_mut().flat_map(|r| r.counters().lost).map(|(_, n)| n).sum();
    let guard: u64 = opened.guard.iter_mut().flat_map(|g| g.counters().lost).map(|(_, n)| n).sum();
    own + guard
}

/// A UDP socket of the sending namespace.
pub fn sender(v6: bool) -> UdpSocket {
    UdpSocket::bind(if v6 { "[::]:0" } else { "0.0.0.0:0" }).unwrap()
}

/// The receiving end's address.
pub fn to(v6: bool, port: u16) -> SocketAddr {
    SocketAddr::new(if v6 { V6.1 } else { V4.1 }.parse::<IpAddr>().unwrap(), port)
}

/// Bytes that depend on the number and on the position.
pub fn payload(number: usize, size: usize) -> Vec<u8> {
    (0..size).map(|i| if i < 4 { (number >> (8 * i)) as u8 } else { (number * 31 + i * 7) as u8 }).collect()
}

type Key = (bool, u16, Vec<u8>);

/// 20,000 numbered datagrams of all sizes, both families, three ports, 16 flows each, with foreign traffic between;
/// every receiver on a thread of its own. The set and the bytes must be exact.
pub fn exact<R: Receiver>(pair: &Pair, opened: &mut Opened<R>, kernel_time: bool) {
    const COUNT: usize = 20_000;
    let (done, arrived) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut sent: HashMap<Key, usize> = HashMap::new();
    let mut collectors = Vec::new();
    thread::scope(|s| {
        let (done, arrived) = (&done, &arrived);
        let threads: Vec<_> =
            opened.receivers.iter_mut().map(|r| s.spawn(move || read_until(r, done, arrived))).collect();
        let guard = opened.guard.as_mut().map(|g| s.spawn(move || read_until(g, done, arrived)));
        sent = pair.in_a(|| send_numbered(COUNT, arrived));
        let start = Instant::now();
        while arrived.load(Ordering::Relaxed) < COUNT && start.elapsed() < TIMEOUT {
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(QUIET);
        done.store(true, Ordering::Relaxed);
        collectors = threads.into_iter().chain(guard).map(|t| t.join().unwrap()).collect();
    });
    assert_eq!(lost(opened), 0, "the test is paced");
    let busy = collectors.iter().filter(|k| !k.got.is_empty()).count();
    assert!(busy > 1, "48 flows should reach more than one of the receivers");
    for got in collectors.into_iter().flat_map(|k| k.got) {
        let v6 = !got.dst.is_v4();
        let (src, dst) = if v6 { V6 } else { V4 };
        assert_eq!((got.src.to_ip(), got.dst.to_ip()), (src.parse().unwrap(), dst.parse().unwrap()));
        assert_eq!(got.flags, if kernel_time { flags::KERNEL_TIME } else { 0 });
        assert!(got.time.secs.abs_diff(Timestamp::now().secs) < 60);
        let key = (v6, got.dst_port, got.payload);
        let left = sent.get_mut(&key).unwrap_or_else(|| panic!("never sent: {key:?}"));
        *left = left.checked_sub(1).unwrap_or_else(|| panic!("too often: {key:?}"));
    }
    let missing: usize = sent.values().sum();
    assert_eq!(missing, 0, "of {COUNT} datagrams");
}

fn read_until<R: Receiver>(r: &mut R, done: &AtomicBool, arrived: &AtomicUsize) -> Collector {
    let mut collector = Collector::default();
    while !done.load(Ordering::Relaxed) {
        let before = collector.got.len();
        if r.receive(&mut collector).unwrap() == 0 {
            r.wait(Duration::from_millis(2)).unwrap();
        }
        arrived.fetch_add(collector.got.len() - before, Ordering::Relaxed);
    }
    collector
}

/// Sends with at most a hundred under way, so that no queue of the kernel's overflows on a busy machine; a ring has more
/// blocks than that.
fn send_numbered(count: usize, arrived: &AtomicUsize) -> HashMap<Key, usize> {
    let v4: Vec<_> = (0..16).map(|_| sender(false)).collect();
    let v6: Vec<_> = (0..16).map(|_| sender(true)).collect();
    let raw = RawSender::new("va");
    let mut sent = HashMap::new();
    for i in 0..count {
        let is_v6 = i % 3 == 0;
        let port = 9000 + (i % 3) as u16;
        // 1472 bytes fill an Ethernet frame with IPv4, 1452 with IPv6.
        let bytes = payload(i, (i * 37) % if is_v6 { 1453 } else { 1473 });
        let socket = &if is_v6 { &v6 } else { &v4 }[i % 16];
        socket.send_to(&bytes, to(is_v6, port)).unwrap();
        *sent.entry((is_v6, port, bytes)).or_default() += 1;
        match i % 50 {
            0 => raw.send(&Pair::v4(1, 9003).bytes(b"a port nobody listens on")),
            1 => raw.send(&[[0xff; 12].as_slice(), &[0x88, 0xb5], &[7; 46]].concat()),
            2 => {
                let mut tcp = Pair::v4(9000, 9000).bytes(&[0; 40]);
                tcp[23] = 6;
                raw.send(&tcp);
            }
            _ => {}
        }
        let start = Instant::now();
        while i - arrived.load(Ordering::Relaxed).min(i) > 100 && start.elapsed() < TIMEOUT {
            thread::sleep(Duration::from_micros(200));
        }
    }
    sent
}

/// Makes what is sent leave as one super-packet of datagrams of `size` bytes (UDP_SEGMENT).
pub fn segment(socket: &UdpSocket, size: libc::c_int) {
    // SAFETY: pointer and length describe `size`.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    assert_eq!(rc, 0, "UDP_SEGMENT: {}", io::Error::last_os_error());
}

/// A 10 × 1000 byte UDP_SEGMENT burst is ten datagrams. Returns what came.
pub fn segmented<R: Receiver>(pair: &Pair, opened: &mut Opened<R>, v6: bool) -> Collector {
    let bytes = payload(77, 9_500);
    pair.in_a(|| {
        let socket = sender(v6);
        segment(&socket, 1000);
        assert_eq!(socket.send_to(&bytes, to(v6, 9000)).unwrap(), bytes.len());
    });
    let collector = drain(opened, 10);
    assert_eq!(collector.sizes(), [vec![1000; 9], vec![500]].concat(), "v6 {v6}");
    assert_eq!(collector.got.iter().flat_map(|g| g.payload.clone()).collect::<Vec<_>>(), bytes);
    collector
}

/// A 4,000 byte datagram, fragmented by its sender, is one datagram.
pub fn fragmented<R: Receiver>(pair: &Pair, opened: &mut Opened<R>, v6: bool) -> Collected {
    let bytes = payload(5, 4000);
    pair.in_a(|| {
        let socket = sender(v6);
        assert_eq!(socket.send_to(&bytes, to(v6, 9000)).unwrap(), bytes.len());
    });
    let mut collector = drain(opened, 1);
    assert_eq!(collector.sizes(), [4000], "v6 {v6}");
    assert_eq!(collector.got[0].payload, bytes);
    collector.got.remove(0)
}

/// Opens in the receiving namespace.
pub fn open_in_b<R: Receiver>(
    pair: &Pair,
    config: &EngineConfig,
    open: impl Fn(&EngineConfig) -> Result<Opened<R>> + Send + Sync,
) -> Result<Opened<R>> {
    pair.in_b(|| open(config))
}

/// Runs `f` without any capability. The calling thread keeps none afterwards: call it on a thread made for it.
pub fn without_capabilities<T>(f: impl FnOnce() -> T) -> T {
    with_capabilities(0, f)
}

/// Runs `f` with these capabilities only (a bit each, numbers below 32). The calling thread gets none back: call it on
/// a thread made for it.
pub fn with_capabilities<T>(set: u32, f: impl FnOnce() -> T) -> T {
    // _LINUX_CAPABILITY_VERSION_3, pid 0: the calling thread; effective, permitted, inheritable, twice.
    let (header, caps) = ([0x2008_0522u32, 0], [set, set, 0, 0, 0, 0]);
    // SAFETY: the layouts are those of capset(2), version 3; the kernel only reads them.
    let rc = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), caps.as_ptr()) };
    assert_eq!(rc, 0, "capset: {}", io::Error::last_os_error());
    f()
}

/// A listen list.
pub const ONE_PORT: &str = r#"{"port":9000}"#;

/// The packet backend, without programs made from rules.
pub fn open_rings(config: &EngineConfig) -> Result<Opened<PacketReceiver>> {
    packet::open(config, &RulePrograms::default())
}

/// The packet backend in the receiving namespace, on `vb`.
pub fn open_packet(pair: &Pair, listen: &str, threads: u16) -> Opened<PacketReceiver> {
    open_in_b(pair, &config(listen, "vb", threads), open_rings).unwrap()
}

/// Frames that got past the filters.
pub fn packets(opened: &mut Opened<PacketReceiver>) -> u64 {
    opened.receivers.iter_mut().map(|r| r.counters().notes.iter().find(|n| n.0 == "packets").unwrap().1).sum()
}

/// The socket backend, without programs made from rules.
pub fn open_sockets(config: &EngineConfig) -> Result<Opened<SocketReceiver>> {
    socket::open(config, &RulePrograms::default())
}
