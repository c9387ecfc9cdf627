//! Shared by the AF_XDP tests: configuration, a sink that remembers, and a bounded wait.
#![allow(dead_code, unreachable_pub)]

use std::{
    collections::HashMap,
    net::UdpSocket,
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    config::EngineConfig,
    datagram::{Addr, Datagram},
    error::Result,
    packet::FrameDrop,
    rx::{
        KernelCounters, Opened, Receiver, Sink,
        xdp::{self, InterfaceState, XdpReceiver},
    },
};

pub use crate::rig::TIMEOUT;
use crate::rig::{Pair, RawSender, V4, run};

/// A configuration for `vb`. `listen` is JSON, e.g. `{"port":9000}`.
pub fn config(mode: &str, frames: u32, listen: &str) -> EngineConfig {
    EngineConfig::from_json(&format!(
        r#"{{"backend":"xdp","interface":"vb","listen":[{listen}],"queues":1,"rxThreads":1,"rules":"",
            "busyPoll":"off","busyPollUs":1,"laneSlots":64,"laneBytes":65536,"wakeMin":1,"wakeMaxUs":1,
            "xdpMode":"{mode}","xdpFrames":{frames},"packetBlockBytes":131072,"packetBlocks":4,
            "socketRcvbuf":4096}}"#
    ))
    .unwrap()
}

/// Opens on `vb` of the calling thread's namespace.
pub fn open(mode: &str, frames: u32) -> Result<Opened<XdpReceiver>> {
    xdp::open(&config(mode, frames, r#"{"port":9000}"#), &millrace_core::rx::RulePrograms::default())
}

/// One datagram as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub payload: Vec<u8>,
    pub src: Addr,
    pub dst: Addr,
    pub dst_port: u16,
}

/// Keeps every datagram by source port, which our tests use as its number.
#[derive(Debug, Default)]
pub struct Collector {
    pub seen: HashMap<u16, Seen>,
    pub datagrams: usize,
    pub dropped: Vec<FrameDrop>,
    pub queues: HashMap<u16, usize>,
}

impl Sink for Collector {
    fn datagram(&mut self, d: &Datagram<'_>) {
        assert!(d.time.secs > 1_600_000_000 && d.time.nanos < 1_000_000_000, "{:?}", d.time);
        self.datagrams += 1;
        *self.queues.entry(d.rx_queue).or_default() += 1;
        let seen = Seen { payload: d.payload.to_vec(), src: d.src, dst: d.dst, dst_port: d.dst_port };
        if let Some(before) = self.seen.insert(d.src_port, seen) {
            panic!("number {} came twice: {before:?}", d.src_port);
        }
    }

    fn frame_dropped(&mut self, reason: FrameDrop) {
        self.dropped.push(reason);
    }
}

/// Receives until every receiver is idle at once. Returns the number of frames read.
pub fn drain(receivers: &mut [XdpReceiver], sink: &mut Collector) -> usize {
    let mut total = 0;
    loop {
        let n: usize = receivers.iter_mut().map(|r| r.receive(sink).unwrap()).sum();
        total += n;
        if n == 0 {
            return total;
        }
    }
}

/// Drains until `done`, or panics after [`TIMEOUT`].
pub fn drain_until(
    receivers: &mut [XdpReceiver],
    sink: &mut Collector,
    mut done: impl FnMut(&mut [XdpReceiver], &Collector) -> bool,
) {
    let start = Instant::now();
    loop {
        drain(receivers, sink);
        if done(receivers, sink) {
            return;
        }
        assert!(start.elapsed() < TIMEOUT, "{} datagrams, {}", sink.datagrams, report(receivers));
        thread::sleep(Duration::from_millis(1));
    }
}

/// The sum of `lost` over all receivers.
pub fn lost(receivers: &mut [XdpReceiver]) -> u64 {
    receivers.iter_mut().flat_map(|r| r.counters().lost).map(|(_, n)| n).sum()
}

/// One counter over all receivers.
pub fn counter(receivers: &mut [XdpReceiver], name: &str) -> u64 {
    let all = |c: KernelCounters| c.lost.into_iter().chain(c.notes);
    receivers.iter_mut().flat_map(|r| all(r.counters())).filter(|(n, _)| *n == name).map(|(_, v)| v).sum()
}

/// Counters and frames of every receiver, for messages.
pub fn report(receivers: &mut [XdpReceiver]) -> String {
    let one = |r: &mut XdpReceiver| format!("q{} {:?} {:?}", r.rx_queue(), r.frames(), r.counters());
    receivers.iter_mut().map(one).collect::<Vec<_>>().join("\n")
}

/// The id of the XDP program on `vb` in a namespace, as `ip` shows it.
pub fn program_on(namespace: &str) -> Option<u32> {
    let text = run(&format!("ip -n {namespace} -j link show dev vb"));
    let links: serde_json::Value = serde_json::from_str(&text).unwrap();
    links[0]["xdp"]["prog"]["id"].as_u64().map(|id| id as u32)
}

/// Sends datagrams to port 9000; number `i` has source port 1000 + `i` and `i` as its payload.
pub fn send(pair: &Pair, range: std::ops::Range<u16>) {
    pair.in_a(|| {
        let sender = RawSender::new("va");
        range.for_each(|i| sender.send(&Pair::v4(1000 + i, 9000).bytes(&i.to_be_bytes())));
    });
}

/// A socket of the host's stack for port 9000, with room for all a test sends.
pub fn udp_socket(pair: &Pair) -> UdpSocket {
    let socket = pair.in_b(|| UdpSocket::bind((V4.1, 9000)).unwrap());
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let bytes: libc::c_int = 32 << 20;
    // SAFETY: pointer and length describe `bytes`, which outlives the call.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    assert_eq!(rc, 0, "SO_RCVBUFFORCE: {}", std::io::Error::last_os_error());
    socket
}

/// `vb` has no program: closing the link takes it off at once.
pub fn assert_detached(pair: &Pair) {
    assert_eq!(program_on(&pair.b), None);
}

/// Lets the receivers reconcile their rx queues, as the engine's threads do, until they serve these rx queues.
pub fn await_serving(pair: &Pair, receivers: &mut [XdpReceiver], want: &[&[u32]]) {
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
pub fn each_receives_its_own(
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

pub fn await_degraded(state: &InterfaceState, done: impl Fn(&[String]) -> bool) {
    let start = Instant::now();
    while !done(&state.info().degraded) {
        assert!(start.elapsed() < TIMEOUT, "{:?}", state.info().degraded);
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn granted(opened: &Opened<XdpReceiver>, what: &str) -> String {
    opened.info.granted.iter().find(|(k, _)| k == what).unwrap().1.clone()
}
