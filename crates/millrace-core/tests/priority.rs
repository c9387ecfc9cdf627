//! Real-time priority of receive threads, granted and refused, on sockets of the loopback interface.

mod rig;

use std::{
    collections::BTreeMap,
    io,
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    config::{BackendChoice, EngineConfig, Tpacket},
    engine::{Engine, EngineStats},
    net::Interface,
    sys::scheduling,
};
use rig::{Pair, RawSender, TIMEOUT};

fn config(priority: Option<u8>, busy_poll: &str) -> EngineConfig {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let priority = priority.map_or("null".into(), |p| p.to_string());
    EngineConfig::from_json(&format!(
        r#"{{"backend":"socket","listen":[{{"address":"127.0.0.1","port":{port}}}],"queues":1,"rxThreads":2,
        "rxPriority":{priority},"rules":"queue(0)","busyPoll":"{busy_poll}","busyPollUs":50,"laneSlots":64,
        "laneBytes":65536,"wakeMin":1,"wakeMaxUs":1,"xdpMode":"auto","xdpFrames":512,"packetBlockBytes":131072,
        "packetBlocks":4,"socketRcvbuf":65536}}"#
    ))
    .unwrap()
}

/// Starts an engine, reads how its threads are scheduled once each has reported it (it has then slept), and stops it.
fn stats_of(config: EngineConfig) -> EngineStats {
    let mut engine = Engine::open(config).unwrap();
    let bytes = engine.describe().queue_bytes;
    let mut memory = vec![0u64; bytes.div_ceil(8)];
    // SAFETY: zeroed, for this queue alone, and freed after the engine was dropped.
    unsafe { engine.attach(0, memory.as_mut_ptr().cast(), bytes).unwrap() };
    engine.start().unwrap();
    let start = Instant::now();
    let stats = loop {
        let stats = engine.stats();
        if stats.threads.iter().all(|t| t.sleeps > 0) {
            // Anew: the counters of one reading are taken one after the other.
            break engine.stats();
        }
        assert!(start.elapsed() < TIMEOUT, "{stats:#?}");
        thread::sleep(Duration::from_millis(1));
    };
    engine.stop();
    drop(engine);
    stats
}

#[test]
fn receive_threads_get_the_priority_asked_for_and_no_other_thread_does() {
    rig::require_root!();
    rig::require_real_time!();
    let stats = stats_of(config(Some(7), "adaptive"));
    assert!(stats.threads.iter().all(|t| t.priority == Some(7)), "{stats:#?}");
    assert!(stats.backend.granted.contains(&("receive threads".into(), "SCHED_FIFO 7".into())), "{stats:#?}");
    let crowded = scheduling::allowed_cpus().unwrap().len() < 2;
    assert_eq!(stats.backend.degraded.len(), usize::from(crowded), "{stats:#?}");
    assert_eq!(scheduling::fifo_priority(), None, "the priority of this thread is what it was");
    let one_cpu = scheduling::allowed_cpus().unwrap()[..1].to_vec();
    let stats = stats_of(EngineConfig { rx_cpus: one_cpu, ..config(Some(7), "adaptive") });
    assert!(stats.threads.iter().all(|t| t.priority == Some(7)), "{stats:#?}");
    let degraded = &stats.backend.degraded;
    assert!(degraded.len() == 1 && degraded[0].contains("share CPUs, 2 on 1"), "{degraded:?}");
    let stats = stats_of(config(None, "adaptive"));
    assert!(stats.threads.iter().all(|t| t.priority.is_none()), "{stats:#?}");
    // Only opened: such threads would take this host's CPUs.
    let engine = Engine::open(config(Some(1), "always")).unwrap();
    let degraded = engine.stats().backend.degraded;
    assert!(degraded.len() == 1 + usize::from(crowded), "{degraded:?}");
    assert!(degraded[0].contains("MILLRACE_BUSY_POLL=always"), "{degraded:?}");
}

/// Gives up CAP_SYS_NICE (bit 23) and every other capability, on a thread of its own: what it starts has none either.
#[test]
fn refused_priority_is_said_once_and_the_threads_run_without() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call fills the struct it is given.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_RTPRIO, &raw mut limit) }, 0);
    if limit.rlim_cur >= 50 {
        return rig::skip("RLIMIT_RTPRIO of this session allows it without a capability");
    }
    thread::spawn(|| {
        // _LINUX_CAPABILITY_VERSION_3, pid 0: the calling thread; effective, permitted, inheritable, twice.
        let (header, none) = ([0x2008_0522u32, 0], [0u32; 6]);
        // SAFETY: the layouts are those of capset(2), version 3; the kernel only reads them.
        let rc = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
        assert_eq!(rc, 0, "capset: {}", io::Error::last_os_error());
        let stats = stats_of(config(Some(50), "adaptive"));
        assert!(stats.threads.iter().all(|t| t.priority.is_none() && t.error.is_none()), "{stats:#?}");
        assert_eq!(stats.backend.degraded.len(), 1, "{stats:#?}");
        for named in ["SCHED_FIFO 50", "CAP_SYS_NICE", "RLIMIT_RTPRIO", "os error 1)"] {
            assert!(stats.backend.degraded[0].contains(named), "{named}: {stats:#?}");
        }
    })
    .join()
    .unwrap();
}

/// Turns on the receive thread's CPU that an ordinary thread must get, each after it was kept away for so long.
const TURNS: u64 = 30;
/// More datagrams than any of the rings holds and the receive thread can take meanwhile.
const OVERLOAD: u64 = 50_000;
const AWAY: Duration = Duration::from_millis(5);

/// Rules that take so long that a sender on another CPU is faster.
fn slow_rules() -> String {
    let rules: String = (1..=3000).map(|i| format!("u32[0] + {i} == 1 => drop\n")).collect();
    format!("{rules}else => queue(0)")
}

fn sum(counts: &BTreeMap<&'static str, u64>) -> u64 {
    counts.values().sum()
}

/// Frames to port 9000 until it is told to stop; what it returns was handed to the interface.
fn flood(sent: &AtomicU64, done: &AtomicBool) {
    let raw = RawSender::new("va");
    let frame = Pair::v4(1000, 9000).bytes(&[0xff; 20]);
    while !done.load(Ordering::Relaxed) {
        raw.send(&frame);
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// The calling thread is the ordinary one, on the receive thread's CPU, and it also stops the engine.
fn turns_beside(pair: &Pair, config: EngineConfig) {
    let (cpu, others) = (config.rx_cpus[0], scheduling::allowed_cpus().unwrap());
    let (sent, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let dropped = || Interface::by_name("vb").unwrap().link().unwrap().statistics.rx_dropped;
    let before = dropped();
    let mut engine = Engine::open(config).unwrap();
    let bytes = engine.describe().queue_bytes;
    let mut memory = vec![0u64; bytes.div_ceil(8)];
    // SAFETY: zeroed, for this queue alone, and freed after the engine was dropped.
    unsafe { engine.attach(0, memory.as_mut_ptr().cast(), bytes).unwrap() };
    let (sent, done) = (&sent, &done);
    let stats = thread::scope(|s| {
        let sender = s.spawn(move || {
            let elsewhere: Vec<usize> = others.into_iter().filter(|other| *other != cpu).collect();
            scheduling::set_allowed_cpus(&elsewhere).unwrap();
            pair.in_a(|| flood(sent, done));
        });
        scheduling::pin_to(cpu).unwrap();
        engine.start().unwrap();
        let start = Instant::now();
        let (mut turns, mut last) = (0, start);
        // The books say how often the receive thread gave way; the clock, how often we had to wait for it.
        let wanted = |turns| turns < TURNS || sent.load(Ordering::Relaxed) < OVERLOAD;
        while wanted(turns) && start.elapsed() < TIMEOUT {
            let now = Instant::now();
            turns += u64::from(now.duration_since(last) >= AWAY);
            last = now;
        }
        done.store(true, Ordering::Relaxed);
        sender.join().unwrap();
        let stats = engine.stats();
        let thread = &stats.threads[0];
        assert!(turns >= TURNS && thread.sleeps >= TURNS, "{turns} turns: {thread:#?}");
        assert_eq!(thread.priority, Some(1));
        engine.stop();
        engine.stats()
    });
    drop(engine);
    let backlog = dropped() - before;
    let over = |f: fn(&millrace_core::engine::ThreadStats) -> u64| stats.threads.iter().map(f).sum::<u64>();
    let (received, lost) = (over(|t| t.received), over(|t| sum(&t.kernel_lost)));
    assert!(received > 0 && lost > 0, "{stats:#?}");
    assert_eq!(received + lost + backlog, sent.load(Ordering::Relaxed), "{stats:#?}");
    let queue = &stats.queues[0];
    assert_eq!(received, queue.scattered + queue.queue_full, "{stats:#?}");
    assert_eq!(queue.scattered, queue.depth);
}

/// The receive thread has more to do than it can, and lets others have a turn all the same.
#[test]
fn a_receive_thread_that_is_never_done_lets_an_ordinary_thread_on_its_cpu_run() {
    rig::require_root!();
    rig::require_real_time!();
    let cpus = scheduling::allowed_cpus().unwrap();
    if cpus.len() < 2 {
        return rig::skip("the sender needs a CPU of its own");
    }
    for (backend, tpacket) in [
        (BackendChoice::Socket, Tpacket::V3),
        (BackendChoice::Packet, Tpacket::V3),
        (BackendChoice::Packet, Tpacket::V2),
    ] {
        let pair = Pair::new(1);
        let mut config = config(Some(1), "adaptive");
        config.backend = backend;
        config.tpacket = tpacket;
        config.interface = Some("vb".into());
        config.listen[0].address = None;
        config.listen[0].port = 9000;
        config.rx_threads = 1;
        config.rx_cpus = vec![cpus[0]];
        config.rules = slow_rules();
        config.socket_rcvbuf = 1 << 20;
        config.packet_slot_bytes = 2048;
        config.packet_blocks = 8;
        pair.in_b(|| turns_beside(&pair, config));
    }
}
