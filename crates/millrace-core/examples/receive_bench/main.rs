//! Receives as Millrace does, or as little as possible, and says what it took; driven by `npm run bench -- receive`.
//!
//! `receive_bench flow|drain BACKEND CONTESTANT INTERFACE PORT`
//!
//! `flow` receives from `ready` until stdin ends: Millrace's whole engine (`millrace`) or the loop that only counts (`count`).
//! `drain` waits for stdin to end while the sender fills ring or socket, and then empties it: no sender and no wait is in
//! the figure. Its contestants: `count`, `parse`, `rules`, `lanes`, each with one stage more than the one before.

mod clock;
mod lanes;
mod recvmmsg;
mod stages;

use std::{
    error::Error,
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    config::EngineConfig,
    engine::Engine,
    lane::{QueueLayout, QueueMemory},
    packet::FrameDrop,
    rule::RuleSet,
    rx::{Receiver, RulePrograms, Sink, ladder, packet::frame_counter::PacketCounter, xdp::XdpCounter},
    scatter::{LiveRules, Moderation, Queue, Scatter, ThreadCounters},
};
use recvmmsg::PlainSocket;
use stages::{Lanes, Parse, Rules, Stage};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Four rules, of which a numbered datagram of 100 bytes passes three.
const RULES: &str = "short: len < 8 => drop\nrtcp: u8[8] >> 6 == 3 and u8[9] == 200 => queue(0)\n\
                     ours: sport in {1, 2, 3} => queue(1)\nnumbered: len >= 8 => mod(u32[0])";
const QUEUES: u16 = 2;
const LANE_SLOTS: u32 = 1 << 16;
const LANE_BYTES: u32 = 1 << 24;
const RCVBUF: u32 = 64 << 20;
/// A pass with so many frames has more waiting, as in the engine; while traffic flows threads read at this pace.
const BACKLOG: usize = 64;
const PACE: Duration = Duration::from_micros(100);
const TRAFFIC_FLOWS: Duration = Duration::from_millis(2);
/// A drain ends when nothing came for this long (a TPACKET_V3 block is closed after 1 ms).
const EMPTY: Duration = Duration::from_millis(20);

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mode, backend, contestant, interface, port] = args.as_slice() else {
        return Err("receive_bench flow|drain BACKEND CONTESTANT INTERFACE PORT".into());
    };
    let config = config(backend, interface, port.parse()?)?;
    let report = match (mode.as_str(), contestant.as_str(), backend.as_str()) {
        ("flow", "millrace", _) => flow_engine(config)?,
        ("flow", "count", "xdp") => flow(XdpCounter::open(&config)?)?,
        ("flow", "count", "packet") => flow(PacketCounter::open(&config)?)?,
        ("flow", "count", "socket") => flow(plain(&config)?)?,
        ("drain", "count", "xdp") => drain(XdpCounter::open(&config)?, &mut Parse)?,
        ("drain", "count", "packet") => drain(PacketCounter::open(&config)?, &mut Parse)?,
        ("drain", "count", "socket") => drain(plain(&config)?, &mut Parse)?,
        ("drain", stage, _) => drain_stage(&config, stage)?,
        _ => return Err(format!("no such measurement: {}", args.join(" ")).into()),
    };
    println!("{report}");
    Ok(())
}

fn config(backend: &str, interface: &str, port: u16) -> Outcome<EngineConfig> {
    let json = serde_json::json!({
        "backend": backend, "interface": interface, "listen": [{ "port": port }],
        "queues": QUEUES, "rxThreads": 1, "rules": RULES, "busyPoll": "adaptive", "busyPollUs": 100,
        "laneSlots": LANE_SLOTS, "laneBytes": LANE_BYTES, "wakeMin": 64, "wakeMaxUs": 200,
        "xdpMode": "native", "xdpFrames": 1 << 16, "packetBlockBytes": 1 << 17, "packetBlocks": 256,
        "socketRcvbuf": RCVBUF,
    });
    Ok(EngineConfig::from_json(&json.to_string())?)
}

fn plain(config: &EngineConfig) -> Outcome<PlainSocket> {
    Ok(PlainSocket::open(config.listen[0].port, RCVBUF)?)
}

/// Tells the bench that everything is open.
fn ready() {
    println!("ready");
    let _ = std::io::stdout().flush();
}

/// Waits until the bench closes our stdin.
fn until_told() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn report(datagrams: u64, lost: u64, cpu: Duration, publishing: Duration) -> String {
    let (cpu, publishing) = (cpu.as_nanos() as u64, publishing.as_nanos() as u64);
    serde_json::json!({ "datagrams": datagrams, "lost": lost, "cpuNanos": cpu, "publishNanos": publishing })
        .to_string()
}

/// The whole data plane, and a consumer.
fn flow_engine(config: EngineConfig) -> Outcome<String> {
    let mut engine = Engine::open(config)?;
    let description = engine.describe();
    let mut queues = Vec::new();
    for index in 0..description.queues {
        let memory = lanes::memory(description.queue_bytes);
        let base = memory.as_mut_ptr();
        // SAFETY: zeroed, never freed, used for this queue only.
        let layout = unsafe { engine.attach(index, base.cast(), description.queue_bytes)? };
        queues.push(lanes::Queue { base: base as usize, layout });
    }
    let consumer = lanes::Consumer::start(queues);
    engine.start()?;
    ready();
    until_told();
    // Before the threads end, and their clocks with them; what is still in the rings by now is next to nothing.
    let cpu = clock::threads(&["millrace-rx", "millrace-guard"]);
    let stats = engine.stats();
    let received = stats.queues.iter().map(|q| q.scattered + q.queue_full).sum();
    engine.stop();
    drop(consumer);
    let lost =
        engine.stats().threads.iter().flat_map(|t| t.kernel_lost.values().copied().collect::<Vec<_>>()).sum();
    Ok(report(received, lost, cpu, Duration::ZERO))
}

/// A sink for receivers that have nothing to say.
struct Nothing;

impl Sink for Nothing {
    fn datagram(&mut self, _: &millrace_core::datagram::Datagram<'_>) {}
    fn frame_dropped(&mut self, _: FrameDrop) {}
}

/// A counting loop, which waits as the engine does: only the work for each datagram differs.
fn flow<R: Receiver>(mut receiver: R) -> Outcome<String> {
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        let counting = scope.spawn(move || -> millrace_core::error::Result<(u64, u64, Duration)> {
            millrace_core::sys::scheduling::minimize_timer_slack();
            let (mut count, mut last) = (0u64, None);
            while !stop.load(Ordering::Acquire) {
                let frames = receiver.receive(&mut Nothing)?;
                let now = Instant::now();
                if frames > 0 {
                    count += frames as u64;
                    last = Some(now);
                }
                let flowing = last.is_some_and(|at| now.duration_since(at) < TRAFFIC_FLOWS);
                if frames >= BACKLOG {
                    continue;
                } else if flowing && !R::POLL_COALESCES {
                    thread::sleep(PACE);
                } else {
                    receiver.wait(Duration::from_millis(20))?;
                }
            }
            let cpu = clock::this_thread();
            Ok((count, receiver.counters().lost.iter().map(|(_, n)| n).sum(), cpu))
        });
        ready();
        until_told();
        stop.store(true, Ordering::Release);
        let (count, lost, cpu) = counting.join().map_err(|_| "the counting thread panicked")??;
        Ok(report(count, lost, cpu, Duration::ZERO))
    })
}

/// Empties what the sender left.
fn drain<R: Receiver, S: Stage>(mut receiver: R, stage: &mut S) -> Outcome<String> {
    ready();
    until_told();
    let mut datagrams = 0;
    let mut end = clock::this_thread();
    let begin = end;
    let mut last = Instant::now();
    while last.elapsed() < EMPTY {
        let mut frames = receiver.receive(stage)?;
        while frames > 0 {
            stage.passed();
            datagrams += frames as u64;
            frames = receiver.receive(stage)?;
            if frames == 0 {
                (last, end) = (Instant::now(), clock::this_thread());
            }
        }
    }
    let lost = receiver.counters().lost.iter().map(|(_, n)| n).sum();
    Ok(report(datagrams, lost, end - begin, stage.publishing()))
}

fn drain_stage(config: &EngineConfig, stage: &str) -> Outcome<String> {
    let set = RuleSet::compile(RULES, QUEUES)?;
    let (backend, _) = ladder::open(config, &RulePrograms::default())?;
    match stage {
        "parse" => drain_backend(backend, &mut Parse),
        "rules" => {
            let state = set.state(0);
            drain_backend(backend, &mut Rules { set, state })
        }
        "lanes" => {
            // Large enough for everything a drain finds, so that no consumer is needed.
            let layout = QueueLayout::new(1, LANE_SLOTS, LANE_BYTES);
            let queue = || {
                let base = lanes::memory(layout.bytes).as_mut_ptr();
                // SAFETY: zeroed, never freed, used for this queue only.
                let memory = unsafe { QueueMemory::new(base.cast(), layout.bytes, layout.clone()) };
                memory.map(|memory| Arc::new(Queue::new(memory)))
            };
            let queues: Option<Vec<_>> = (0..QUEUES).map(|_| queue()).collect();
            let counters = Arc::new(ThreadCounters::new(QUEUES.into()));
            let moderation = Moderation { min: 64, max_age: Duration::from_micros(200) };
            let queues = queues.ok_or("queue memory does not fit its layout")?;
            let rules = LiveRules::new(Arc::new(set), None, 1, QUEUES.into());
            // SAFETY: the only Scatter of these queues.
            let scatter = unsafe { Scatter::new(0, rules, &queues, Arc::clone(&counters), moderation) };
            let result = drain_backend(backend, &mut Lanes { scatter, publishing: Duration::ZERO })?;
            match counters.queue_full.iter().map(|c| c.get()).sum() {
                0 => Ok(result),
                full => Err(format!("{full} datagrams found their lane full: lanes are too small").into()),
            }
        }
        _ => Err(format!("stage {stage}: expected count, parse, rules or lanes").into()),
    }
}

fn drain_backend<S: Stage>(backend: ladder::Backend, stage: &mut S) -> Outcome<String> {
    fn first<R>(receivers: Vec<R>) -> Outcome<R> {
        receivers.into_iter().next().ok_or_else(|| "no receiver".into())
    }
    match backend {
        // The guard's socket stays open, unread: it holds the port.
        ladder::Backend::Xdp(o) => {
            let _guard = o.guard;
            drain(first(o.receivers)?, stage)
        }
        ladder::Backend::Packet(o) => {
            let _guard = o.guard;
            drain(first(o.receivers)?, stage)
        }
        ladder::Backend::Socket(o) => drain(first(o.receivers)?, stage),
    }
}
