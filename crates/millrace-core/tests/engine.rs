//! The engine over real UDP sockets on loopback: rules, lanes, wake-ups, stop, books. No privilege needed.

use std::{
    alloc::Layout,
    collections::HashSet,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    config::EngineConfig,
    engine::Engine,
    error::Code,
    lane::{ARMED_OFFSET, HEAD_OFFSET, LaneLayout, TAIL_OFFSET},
};

const TIMEOUT: Duration = Duration::from_secs(60);

/// What a SharedArrayBuffer and a worker are to the engine: memory, a consumer, a count of wake-ups.
struct Worker {
    base: *mut u8,
    layout: Layout,
    control: usize,
    lanes: Vec<LaneLayout>,
    wakes: Arc<AtomicU64>,
}

impl Worker {
    fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: offsets come from the layout; the memory lives as long as `self` and is only used atomically here.
        unsafe { AtomicU32::from_ptr(self.base.add(offset).cast()) }
    }

    fn arm(&self) {
        self.word(self.control + ARMED_OFFSET).store(1, Ordering::SeqCst);
    }

    /// Takes everything that is there: payloads in lane order.
    fn drain(&self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for lane in &self.lanes {
            let tail = self.word(lane.control_offset + TAIL_OFFSET).load(Ordering::Relaxed);
            let head = self.word(lane.control_offset + HEAD_OFFSET).load(Ordering::Acquire);
            for k in 0..head.wrapping_sub(tail) {
                let slot = (tail.wrapping_add(k) & (lane.slots - 1)) as usize;
                // SAFETY: published slots and their payloads are not written until they are released below.
                unsafe {
                    let d = self.base.add(lane.descriptors_offset + slot * 64);
                    let (offset, length) = (d.cast::<u32>().read(), d.add(4).cast::<u16>().read());
                    let p = self.base.add(lane.payload_offset + offset as usize);
                    out.push(std::slice::from_raw_parts(p, usize::from(length)).to_vec());
                }
            }
            self.word(lane.control_offset + TAIL_OFFSET).store(head, Ordering::Release);
        }
        out
    }

    fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::SeqCst)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: allocated in `service` with this layout, freed once, after the engine (declared later, dropped first).
        unsafe { std::alloc::dealloc(self.base.sub(16), self.layout) };
    }
}

/// The engine is dropped before the memory it writes to.
struct Service {
    engine: Engine,
    workers: Vec<Worker>,
    port: u16,
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn config(port: u16, rules: &str, more: &str) -> String {
    format!(
        r#"{{"backend":"socket","listen":[{{"address":"127.0.0.1","port":{port}}}],"queues":3,"rxThreads":2,"rules":{rules:?},
        "busyPoll":"adaptive","busyPollUs":50,"laneSlots":1024,"laneBytes":1048576,"wakeMin":64,"wakeMaxUs":200,
        "xdpMode":"auto","xdpFrames":4096,"packetBlockBytes":1048576,"packetBlocks":16,"socketRcvbuf":8388608{more}}}"#
    )
}

fn service(rules: &str, more: &str) -> Service {
    let port = free_port();
    let mut engine = Engine::open(EngineConfig::from_json(&config(port, rules, more)).unwrap()).unwrap();
    let description = engine.describe();
    let workers: Vec<Worker> = (0..description.queues)
        .map(|queue| {
            // 16-byte aligned as a SharedArrayBuffer is: never on a cache line's start.
            let layout = Layout::from_size_align(description.queue_bytes + 16, 64).unwrap();
            // SAFETY: the size is not zero; the memory is zeroed, used for this queue only and outlives the engine.
            let (base, lanes) = unsafe {
                let base = std::alloc::alloc_zeroed(layout).add(16);
                (base, engine.attach(queue, base, description.queue_bytes).unwrap())
            };
            let wakes = Arc::new(AtomicU64::new(0));
            let count = Arc::clone(&wakes);
            engine.set_wake(queue, Some(Arc::new(move || _ = count.fetch_add(1, Ordering::SeqCst)))).unwrap();
            Worker { base, layout, control: lanes.control_offset, lanes: lanes.lanes, wakes }
        })
        .collect();
    engine.start().unwrap();
    Service { engine, workers, port }
}

impl Service {
    fn sender(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", self.port)).unwrap();
        socket
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < TIMEOUT, "{what}: not within {TIMEOUT:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_datagram_reaches_the_queue_its_payload_names_and_the_books_close() {
    const N: u32 = 20_000;
    let mut s = service("short: len < 4 => drop\nelse => mod(u32[0])", "");
    let sockets: Vec<UdpSocket> = (0..8).map(|_| s.sender()).collect();
    let mut seen = vec![HashSet::new(); 3];
    let mut take = |s: &Service| {
        for (queue, worker) in s.workers.iter().enumerate() {
            for payload in worker.drain() {
                let n = u32::from_be_bytes(payload[..4].try_into().unwrap());
                assert_eq!(n as usize % 3, queue);
                assert_eq!(payload.len(), 4 + n as usize % 100);
                assert!(seen[queue].insert(n), "{n} came twice");
            }
        }
        seen.iter().map(HashSet::len).sum::<usize>()
    };
    for n in 0..N {
        let mut payload = vec![0; 4 + n as usize % 100];
        payload[..4].copy_from_slice(&n.to_be_bytes());
        sockets[n as usize % 8].send(&payload).unwrap();
        if n % 100 == 0 {
            sockets[0].send(b"x").unwrap();
            take(&s);
        }
    }
    until("all datagrams", || take(&s) == N as usize);
    until("the dropped ones", || s.engine.stats().rules[0].dropped == u64::from(N / 100));
    s.engine.stop();
    let stats = s.engine.stats();
    let sum = |f: fn(&millrace_core::engine::ThreadStats) -> u64| stats.threads.iter().map(f).sum::<u64>();
    assert_eq!(sum(|t| t.received), u64::from(N + N / 100));
    assert_eq!(sum(|t| t.received), sum(|t| t.scattered + t.dropped.rule + t.dropped.queue_full));
    assert_eq!(sum(|t| t.dropped.rule), u64::from(N / 100));
    assert_eq!(stats.queues.iter().map(|q| q.scattered).sum::<u64>(), u64::from(N));
    assert_eq!(
        stats.rules.iter().map(|r| r.matched).collect::<Vec<_>>(),
        [u64::from(N / 100), u64::from(N), 0]
    );
    assert!(stats.threads.iter().all(|t| t.error.is_none()));
}

#[test]
fn a_full_lane_counts_and_a_spilling_rule_moves_on() {
    let full = |rules: &str| {
        let mut s = service(rules, "");
        let socket = s.sender();
        for _ in 0..5000 {
            socket.send(b"12345678").unwrap();
        }
        until("arrival", || s.engine.stats().threads.iter().map(|t| t.received).sum::<u64>() == 5000);
        s.engine.stop();
        let queues = s.engine.stats().queues;
        (
            queues.iter().map(|q| q.scattered).collect::<Vec<_>>(),
            queues.iter().map(|q| q.queue_full).collect::<Vec<_>>(),
        )
    };
    // One flow goes to one receive thread, so one lane of 1,024 per queue fills.
    assert_eq!(full("queue(1)"), (vec![0, 1024, 0], vec![0, 3976, 0]));
    assert_eq!(full("queue(1) spill"), (vec![1024, 1024, 1024], vec![0, 1928, 0]));
    assert_eq!(full("queue(1) on 1..2 spill"), (vec![0, 1024, 1024], vec![0, 2952, 0]));
}

#[test]
fn wake_ups_are_moderated_and_never_lost() {
    let mut s = service("queue(0)", "");
    let (worker, socket) = (&s.workers[0], s.sender());
    for _ in 0..10 {
        socket.send(b"before the worker sleeps").unwrap();
    }
    until("arrival", || s.engine.stats().queues[0].depth == 10);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(worker.wakes(), 0, "a worker that does not sleep is not woken");
    // It goes to sleep with datagrams waiting, as it does when they came while it was busy.
    worker.arm();
    until("a wake-up for what waits", || worker.wakes() == 1);
    assert_eq!(worker.drain().len(), 10);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(worker.wakes(), 1, "nothing waits");
    worker.arm();
    for _ in 0..10 {
        socket.send(b"one wake-up covers a burst").unwrap();
    }
    until("a wake-up for the burst", || worker.wakes() == 2);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(worker.wakes(), 2, "armed once, woken once");
    assert_eq!(worker.drain().len(), 10);
    worker.arm();
    s.engine.stop();
    assert_eq!(s.workers[0].wakes(), 3, "a stop wakes who sleeps");
}

#[test]
fn a_detached_worker_is_not_called_and_the_next_one_is() {
    let s = service("queue(2)", "");
    s.engine.set_wake(2, None).unwrap();
    s.workers[2].arm();
    s.sender().send(b"nobody there").unwrap();
    until("arrival", || s.engine.stats().queues[2].depth == 1);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(s.workers[2].wakes(), 0);
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    s.engine.set_wake(2, Some(Arc::new(move || _ = counter.fetch_add(1, Ordering::SeqCst)))).unwrap();
    until("the new worker's wake-up", || count.load(Ordering::SeqCst) == 1);
    assert_eq!(s.workers[2].drain(), [b"nobody there"]);
}

#[test]
fn stop_delivers_what_the_kernel_holds_even_when_the_threads_slept() {
    for _ in 0..20 {
        let mut s = service("queue(0)", "");
        let socket = s.sender();
        for _ in 0..500 {
            socket.send(b"just before the end").unwrap();
        }
        s.engine.stop();
        assert_eq!(s.workers[0].drain().len(), 500);
    }
}

#[test]
fn idle_threads_sleep() {
    let start = Instant::now();
    let s = service("queue(0)", "");
    thread::sleep(Duration::from_millis(500));
    let threads = s.engine.stats().threads;
    // A busy machine makes this longer than the 500 ms.
    let took = start.elapsed();
    for t in threads {
        let most = took.as_millis() / 25;
        assert!(
            u128::from(t.sleeps) <= most,
            "thread {} slept {} times in {took:?}, expected one in 100 ms",
            t.index,
            t.sleeps
        );
    }
}

#[test]
fn misuse_is_named() {
    let open = |json: String| EngineConfig::from_json(&json).and_then(Engine::open).map(drop);
    let code = |r: Result<(), millrace_core::error::Error>| r.unwrap_err();
    let port = free_port();
    assert_eq!(code(open(config(port, "queue(3)", ""))).code, Code::Rules, "queue 3 of 0..=2");
    let e = code(open(config(port, "queue(0)", r#","rxCpus":[4096]"#)));
    assert_eq!(e.code, Code::Config);
    assert!(e.message.contains("4096"), "{e}");
    let e = code(open(config(port, "queue(0)", r#","colour":1"#)));
    assert!(e.code == Code::Config && e.message.contains("colour"), "{e}");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let e = code(open(config(taken.local_addr().unwrap().port(), "queue(0)", "")));
    assert_eq!(e.code, Code::Port, "{e}");
    let mut engine = Engine::open(EngineConfig::from_json(&config(port, "queue(0)", "")).unwrap()).unwrap();
    assert_eq!(code(engine.start()).code, Code::State, "start before memory");
    assert_eq!(code(engine.set_wake(0, None)).code, Code::State);
    let mut small = [0u64; 8];
    // SAFETY: the memory is refused, because it is too small.
    let refused = unsafe { engine.attach(0, small.as_mut_ptr().cast(), 64) };
    assert_eq!(code(refused.map(drop)).code, Code::State);
}

#[test]
fn a_hundred_reloads_under_load_lose_nothing_and_never_mix() {
    const N: u32 = 60_000;
    const RELOADS: u32 = 100;
    // Whole sets differ in the queue, and in the order of their rules.
    let sets = [
        "odd: u8[3] & 1 == 1 => queue(0)\neven: queue(0)",
        "even: u8[3] & 1 == 0 => queue(1)\nmiddle: len > 99 => drop\nodd: queue(1)",
    ];
    let mut s = service(sets[0], "");
    let socket = s.sender();
    let taken = AtomicU32::new(0);
    let mut queue_of = vec![None; N as usize];
    thread::scope(|scope| {
        let taken = &taken;
        scope.spawn(move || {
            for n in 0..N {
                // No more on the way than fit.
                while n.wrapping_sub(taken.load(Ordering::Relaxed)) > 500 {
                    // The other tests need the CPUs too.
                    thread::sleep(Duration::from_micros(200));
                }
                socket.send(&n.to_be_bytes()).unwrap();
            }
        });
        let (mut reloads, mut before) = (0, 0);
        until("all datagrams", || {
            for (queue, worker) in s.workers.iter().enumerate() {
                for payload in worker.drain() {
                    let n = u32::from_be_bytes(payload.try_into().unwrap());
                    assert_eq!(queue_of[n as usize].replace(queue), None, "{n} came twice");
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            }
            let seen = taken.load(Ordering::Relaxed);
            while reloads < RELOADS && seen > (reloads + 1) * (N / (RELOADS + 10)) {
                reloads += 1;
                let e = s.engine.reload("odd: que(0)").unwrap_err();
                assert_eq!(e.code, Code::Rules);
                let generation = s.engine.reload(sets[reloads as usize % 2]).unwrap();
                assert_eq!(generation, u64::from(reloads) + 1);
                let matched = s.engine.stats().rules.iter().map(|r| r.matched).sum::<u64>();
                assert!(matched >= before, "the counters went back from {before} to {matched}");
                before = matched;
            }
            seen == N
        });
        assert_eq!(reloads, RELOADS);
    });
    s.engine.stop();
    let stats = s.engine.stats();
    assert_eq!((stats.rules_generation, stats.rules_refused), (u64::from(RELOADS) + 1, u64::from(RELOADS)));
    // One flow, one thread: the queue changes only where the rules did.
    let changes = queue_of.windows(2).filter(|w| w[0] != w[1]).count();
    assert!((1..=RELOADS as usize).contains(&changes), "{changes} changes");
    assert!(queue_of.iter().all(|q| matches!(q, Some(0 | 1))));
    let sum = |f: fn(&millrace_core::engine::ThreadStats) -> u64| stats.threads.iter().map(f).sum::<u64>();
    assert_eq!(sum(|t| t.received), u64::from(N));
    assert_eq!(sum(|t| t.received), sum(|t| t.scattered + t.dropped.rule + t.dropped.queue_full));
    // By name, over all generations.
    let by_name: Vec<(&str, u64)> = stats.rules.iter().map(|r| (r.name.as_str(), r.matched)).collect();
    assert_eq!(by_name, [("odd", u64::from(N / 2)), ("even", u64::from(N / 2))]);
}
