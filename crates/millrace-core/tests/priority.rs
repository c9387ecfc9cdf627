//! Real-time priority of receive threads, granted and refused, on sockets of the loopback interface.

mod rig;

use std::{
    io,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    affinity,
    config::EngineConfig,
    engine::{Engine, EngineStats},
};

const PATIENCE: Duration = Duration::from_secs(60);

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

/// Starts an engine, looks once every thread has said how it is scheduled (it has then slept), and stops it.
fn stats_of(config: EngineConfig) -> EngineStats {
    let mut engine = Engine::open(config).unwrap();
    let bytes = engine.plan().queue_bytes;
    let mut memory = vec![0u64; bytes.div_ceil(8)];
    // SAFETY: zeroed, for this queue alone, and freed after the engine was dropped.
    unsafe { engine.attach(0, memory.as_mut_ptr().cast(), bytes).unwrap() };
    engine.start().unwrap();
    let start = Instant::now();
    let stats = loop {
        let stats = engine.stats();
        if stats.threads.iter().all(|t| t.sleeps > 0) {
            break stats;
        }
        assert!(start.elapsed() < PATIENCE, "{stats:#?}");
        thread::sleep(Duration::from_millis(1));
    };
    engine.stop();
    drop(engine);
    stats
}

#[test]
fn receive_threads_get_the_priority_asked_for_and_no_other_thread_does() {
    if !rig::privileged("receive_threads_get_the_priority_asked_for_and_no_other_thread_does") {
        return;
    }
    if let Err(e) = affinity::try_fifo(1) {
        eprintln!("SKIP: not even root may have real-time priority here: {e}");
        return;
    }
    let stats = stats_of(config(Some(7), "adaptive"));
    assert!(stats.threads.iter().all(|t| t.priority == Some(7)), "{stats:#?}");
    assert!(stats.backend.granted.contains(&("receive threads".into(), "SCHED_FIFO 7".into())), "{stats:#?}");
    assert!(stats.backend.degraded.is_empty(), "{stats:#?}");
    assert_eq!(affinity::fifo_priority(), None, "ours is what it was");
    let stats = stats_of(config(None, "adaptive"));
    assert!(stats.threads.iter().all(|t| t.priority.is_none()), "{stats:#?}");
    // Only opened: such threads would take this host's CPUs.
    let engine = Engine::open(config(Some(1), "always")).unwrap();
    let degraded = engine.stats().backend.degraded;
    assert!(degraded.len() == 1 && degraded[0].contains("MILLRACE_BUSY_POLL=always"), "{degraded:?}");
}

/// Gives up CAP_SYS_NICE (bit 23) and every other capability, on a thread of its own: what it starts has none either.
#[test]
fn refused_priority_is_said_once_and_the_threads_run_without() {
    thread::spawn(|| {
        // _LINUX_CAPABILITY_VERSION_3, pid 0: the calling thread; effective, permitted, inheritable, twice.
        let (header, none) = ([0x2008_0522u32, 0], [0u32; 6]);
        // SAFETY: the layouts are those of capset(2), version 3; the kernel only reads them.
        let rc = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
        assert_eq!(rc, 0, "capset: {}", io::Error::last_os_error());
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the call fills the struct it is given.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_RTPRIO, &raw mut limit) }, 0);
        if limit.rlim_cur >= 50 {
            eprintln!("SKIP: RLIMIT_RTPRIO of this session allows it without a capability");
            return;
        }
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
