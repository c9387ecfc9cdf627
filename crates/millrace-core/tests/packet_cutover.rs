//! A member of the fanout group dies: the others move to a new group and lose nothing on the way.

mod rig;
#[path = "support/receive.rs"]
mod support;

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    config::{EngineConfig, FanoutFlag, FanoutMode, Tpacket},
    net::Interface,
    rx::{Opened, Receiver, packet, packet::PacketReceiver},
    sys::scheduling,
};
use rig::{Pair, RawSender};
use support::*;

/// Longer than the others wait before they make a new group.
const GRACE: Duration = Duration::from_millis(600);

fn steered(members: u16) -> EngineConfig {
    EngineConfig { fanout: FanoutMode::Rules, ..config(ONE_PORT, "vb", members) }
}

fn open(pair: &Pair, config: &EngineConfig) -> Opened<PacketReceiver> {
    pair.in_b(|| packet::open(config, &by_payload())).unwrap()
}

fn send(pair: &Pair, count: usize) {
    pair.in_a(|| {
        let raw = RawSender::new("va");
        (0..count).for_each(|i| raw.send(&Pair::v4(1000, 9000).bytes(&payload(i, 50))));
    });
}

/// A member that died has left the kernel's list of packet sockets; so many are left.
fn assert_members(pair: &Pair, members: usize) {
    let sockets = || std::fs::read_to_string("/proc/thread-self/net/packet").unwrap().lines().count() - 1;
    assert_eq!(pair.in_b(sockets), members);
}

/// New groups that this member has moved to.
fn rebuilds(r: &mut PacketReceiver) -> u64 {
    let notes = r.counters().notes;
    assert!(!notes.contains(&("group_rebuild_failed", 1)), "{notes:?}");
    notes.iter().find(|(name, _)| *name == "group_rebuilds").map_or(0, |(_, n)| *n)
}

/// Reads these receivers until each has moved `times` times.
fn until_moved(pair: &Pair, receivers: &mut [PacketReceiver], collector: &mut Collector, times: u64) {
    let start = Instant::now();
    pair.in_b(|| {
        while receivers.iter_mut().any(|r| rebuilds(r) < times) {
            assert!(start.elapsed() < TIMEOUT, "no new group");
            for r in receivers.iter_mut() {
                r.receive(collector).unwrap();
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
}

/// Each datagram came by the member that its first byte says, of those alive.
fn in_order(collector: &Collector, alive: &[u16]) -> bool {
    collector.got.iter().all(|g| g.rx_queue == alive[usize::from(g.payload[0]) % alive.len()])
}

#[test]
fn a_dead_member_leaves_a_new_group_in_order() {
    rig::require_root!();
    let unique = vec![FanoutFlag::Defrag, FanoutFlag::IgnoreOutgoing, FanoutFlag::Uniqueid];
    // Without uniqueid the old group's id must not be that of the new one.
    let own = vec![FanoutFlag::Defrag, FanoutFlag::IgnoreOutgoing];
    for (tpacket, flags) in [(Tpacket::V3, &unique), (Tpacket::V2, &unique), (Tpacket::V3, &own)] {
        let pair = quiet_pair(1);
        let config = EngineConfig { tpacket, fanout_flags: flags.clone(), ..steered(4) };
        let mut opened = open(&pair, &config);
        send(&pair, 40);
        assert_eq!(drain(&mut opened, 40).got.len(), 40);
        drop(opened.receivers.remove(1));
        assert_members(&pair, 3);
        // The kernel has put the last member into the gap: 0, 3, 2. What is in the rings now must not get lost.
        send(&pair, 30);
        thread::sleep(GRACE);
        let mut collector = Collector::default();
        until_moved(&pair, &mut opened.receivers, &mut collector, 1);
        assert_eq!(collector.got.len(), 30);
        assert!(in_order(&collector, &[0, 3, 2]));
        send(&pair, 30);
        let collector = drain(&mut opened, 30);
        assert_eq!(collector.got.len(), 30);
        assert!(in_order(&collector, &[0, 2, 3]), "{flags:?}");
        assert_eq!(lost(&mut opened), 0);
    }
}

#[test]
fn a_member_that_closes_before_it_moved_reads_both_rings() {
    rig::require_root!();
    for tpacket in [Tpacket::V3, Tpacket::V2] {
        let pair = quiet_pair(1);
        let mut opened = open(&pair, &EngineConfig { tpacket, ..steered(3) });
        drop(opened.receivers.remove(1));
        assert_members(&pair, 2);
        send(&pair, 40);
        thread::sleep(GRACE);
        let mut collector = Collector::default();
        until_moved(&pair, &mut opened.receivers[..1], &mut collector, 1);
        // The other one has 20 in its old ring, and a new one.
        send(&pair, 40);
        opened.receivers.iter_mut().for_each(Receiver::close_intake);
        send(&pair, 40);
        for r in &mut opened.receivers {
            while r.receive(&mut collector).unwrap() > 0 {}
        }
        assert_eq!((collector.got.len(), lost(&mut opened)), (80, 0), "{tpacket:?}");
    }
}

#[test]
fn moving_takes_no_more_at_a_time_than_any_pass() {
    rig::require_root!();
    const COUNT: usize = 6000;
    let pair = quiet_pair(1);
    // Slots, so that a slow sender fills no more of the ring than a fast one.
    let config = EngineConfig { tpacket: Tpacket::V2, packet_slot_bytes: 2048, ..steered(3) };
    let mut opened = open(&pair, &config);
    drop(opened.receivers.remove(1));
    assert_members(&pair, 2);
    send(&pair, COUNT);
    thread::sleep(GRACE);
    let mut collector = Collector::default();
    // Starts the thread that makes the group, and lets it finish before the rings are empty.
    pair.in_b(|| opened.receivers[0].receive(&mut collector).unwrap());
    thread::sleep(Duration::from_millis(300));
    let mut most = 0;
    let start = Instant::now();
    while collector.got.len() < COUNT && start.elapsed() < TIMEOUT {
        for r in &mut opened.receivers {
            most = most.max(r.receive(&mut collector).unwrap());
        }
    }
    until_moved(&pair, &mut opened.receivers, &mut collector, 1);
    assert_eq!((collector.got.len(), lost(&mut opened)), (COUNT, 0));
    assert!(most <= 256, "{most} frames in one call");
}

#[test]
fn a_death_while_the_group_is_made_is_answered_too() {
    rig::require_root!();
    let pair = quiet_pair(1);
    let mut opened = open(&pair, &steered(5));
    drop(opened.receivers.remove(1));
    thread::sleep(GRACE);
    let mut collector = Collector::default();
    pair.in_b(|| opened.receivers[0].receive(&mut collector).unwrap());
    // Members 0, 2, 3, 4 are being made.
    drop(opened.receivers.remove(1));
    let start = Instant::now();
    loop {
        send(&pair, 30);
        let collector = pair.in_b(|| drain(&mut opened, 30));
        assert_eq!(collector.got.len(), 30);
        if start.elapsed() > GRACE && in_order(&collector, &[0, 3, 4]) {
            break;
        }
        assert!(start.elapsed() < TIMEOUT, "never in order again");
    }
    assert!(opened.receivers.iter_mut().all(|r| rebuilds(r) >= 1));
}

/// Policy, of all threads of this process with that name and in this network namespace (proc_pid_stat(5), field 41). 1 is
/// SCHED_FIFO.
fn policies(name: &str) -> Vec<u32> {
    let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let stats = std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        // One that ends meanwhile.
        let task = task.ok()?.path();
        let is_here = std::fs::read_link(task.join("ns/net")).ok()? == here;
        is_here.then(|| std::fs::read_to_string(task.join("stat")).ok())?
    });
    let of_name = |stat: String| {
        let (front, fields) = stat.rsplit_once(')')?;
        front.ends_with(&format!("({name}")).then(|| fields.split_whitespace().nth(38)?.parse().ok())?
    };
    stats.filter_map(of_name).collect()
}

#[test]
fn the_thread_that_makes_a_group_has_no_real_time_priority() {
    rig::require_root!();
    rig::require_real_time!();
    let pair = quiet_pair(1);
    let mut opened = open(&pair, &steered(3));
    drop(opened.receivers.remove(1));
    assert_members(&pair, 2);
    thread::sleep(GRACE);
    pair.in_b(|| {
        scheduling::set_fifo(1).unwrap();
        let start = Instant::now();
        // The thread waits for stamped frames, of which there are none, 100 ms long.
        opened.receivers[0].receive(&mut Collector::default()).unwrap();
        let mut seen = Vec::new();
        while start.elapsed() < TIMEOUT {
            let now = policies("millrace-regrou");
            if now.is_empty() && !seen.is_empty() {
                break;
            }
            seen = now;
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!seen.is_empty() && seen.iter().all(|policy| *policy == 0), "{seen:?}");
        scheduling::set_other().unwrap();
        assert_eq!(scheduling::fifo_priority(), None);
    });
}

/// Members 0 to 2 get everything, with four members as with three; the fourth dies.
#[test]
fn under_traffic_the_switch_loses_and_doubles_nothing() {
    rig::require_root!();
    for round in 0..4 {
        let tpacket = if round % 2 == 0 { Tpacket::V3 } else { Tpacket::V2 };
        let pair = quiet_pair(1);
        // V3 uses up a block each millisecond: two seconds for a reader that gets no CPU.
        let rings = EngineConfig { packet_block_bytes: 1 << 14, packet_blocks: 2048, ..steered(4) };
        let mut opened = open(&pair, &EngineConfig { tpacket, packet_slot_bytes: 2048, ..rings });
        let (enough, all_sent, moved) = Default::default();
        let (sent, collectors) = thread::scope(|s| {
            let sender = s.spawn(|| pair.in_a(|| send_until(&enough, &all_sent)));
            drop(opened.receivers.remove(3));
            let collectors = pair.in_b(|| read_all(&mut opened.receivers, &enough, &all_sent, &moved));
            (sender.join().unwrap(), collectors)
        });
        assert_eq!(lost(&mut opened), 0, "{tpacket:?}");
        let mut got: Vec<usize> =
            collectors.iter().flat_map(|k| &k.got).map(|g| number(&g.payload)).collect();
        got.sort_unstable();
        let twice = got.windows(2).filter(|w| w[0] == w[1]).count();
        got.dedup();
        assert_eq!((got.len(), twice), (sent, 0), "{tpacket:?}: of {sent} sent");
        for collector in &collectors {
            let order: Vec<usize> = collector.got.iter().map(|g| number(&g.payload)).collect();
            assert!(order.is_sorted(), "{tpacket:?}: a flow comes in order");
        }
    }
}

/// The number behind the first byte, which steers.
fn number(payload: &[u8]) -> usize {
    u32::from_be_bytes(payload[1..5].try_into().unwrap()) as usize
}

/// Sends numbered datagrams at a steady pace until there are `enough`, and says when all are sent; returns how many.
fn send_until(enough: &AtomicBool, all_sent: &AtomicBool) -> usize {
    send_from(0, enough, all_sent)
}

/// Like [`send_until`], beginning with a number; returns the number behind the last.
fn send_from(first: usize, enough: &AtomicBool, all_sent: &AtomicBool) -> usize {
    let raw = RawSender::new("va");
    let mut sent = first;
    while !enough.load(Ordering::Relaxed) {
        for _ in 0..10 {
            let mut payload = vec![(sent % 3) as u8];
            payload.extend((sent as u32).to_be_bytes());
            raw.send(&Pair::v4(1000, 9000).bytes(&payload));
            sent += 1;
        }
        thread::sleep(Duration::from_micros(300));
    }
    all_sent.store(true, Ordering::Relaxed);
    sent
}

/// Tells a reader when it has read all: everything is sent, and nothing came for a while since then. A busy machine may
/// stop the sender for longer than that while.
struct End<'a> {
    all_sent: &'a AtomicBool,
    start: Instant,
    /// Since when nothing came, once everything is sent.
    quiet_since: Option<Instant>,
}

impl<'a> End<'a> {
    fn new(all_sent: &'a AtomicBool) -> Self {
        End { all_sent, start: Instant::now(), quiet_since: None }
    }

    /// `came`: datagrams came since the last call.
    fn is_reached(&mut self, came: bool) -> bool {
        if came || self.quiet_since.is_none() {
            self.quiet_since = self.all_sent.load(Ordering::Relaxed).then(Instant::now);
        }
        self.quiet_since.is_some_and(|since| since.elapsed() > 4 * QUIET) || self.start.elapsed() >= TIMEOUT
    }
}

/// Every receiver on a thread of its own, until all have moved, a little more was sent, and all of it was read.
fn read_all(
    receivers: &mut [PacketReceiver],
    enough: &AtomicBool,
    all_sent: &AtomicBool,
    moved: &AtomicUsize,
) -> Vec<Collector> {
    let members = receivers.len();
    thread::scope(|s| {
        let read = |r: &mut PacketReceiver| {
            let (mut end, mut collector, mut counted) = (End::new(all_sent), Collector::default(), false);
            let mut came = true;
            while !end.is_reached(came) {
                came = r.receive(&mut collector).unwrap() > 0;
                if !came {
                    r.wait(Duration::from_millis(1)).unwrap();
                }
                if !counted && rebuilds(r) > 0 {
                    counted = true;
                    moved.fetch_add(1, Ordering::Relaxed);
                }
            }
            assert!(counted, "no new group");
            collector
        };
        let threads: Vec<_> = receivers.iter_mut().map(|r| s.spawn(move || read(r))).collect();
        let start = Instant::now();
        while moved.load(Ordering::Relaxed) < members && start.elapsed() < TIMEOUT {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(QUIET);
        enough.store(true, Ordering::Relaxed);
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// Rings so small, and readers so slow, that the sender is faster.
fn overloaded(tpacket: Tpacket) -> EngineConfig {
    // 4 blocks, or 16 slots.
    EngineConfig { tpacket, packet_blocks: 4, packet_slot_bytes: 32_768, ..steered(4) }
}

/// Frames lost before any ring saw them.
fn backlog(pair: &Pair) -> u64 {
    pair.in_b(|| Interface::by_name("vb").unwrap().link().unwrap().statistics.rx_dropped)
}

/// Reads slowly, until so many groups were moved to, or so many datagrams were lost, and then all there is.
fn overflow(
    pair: &Pair,
    opened: &mut Opened<PacketReceiver>,
    first: usize,
    groups: u64,
) -> (usize, Vec<Collector>) {
    const ENOUGH: u64 = 500;
    const READ_EVERY: Duration = Duration::from_millis(300);
    let (enough, all_sent, ready): (AtomicBool, AtomicBool, AtomicUsize) = Default::default();
    let before = opened.receivers.iter_mut().map(|r| r.counters().lost[0].1).collect::<Vec<_>>();
    let members = opened.receivers.len();
    let (enough, all_sent, ready) = (&enough, &all_sent, &ready);
    thread::scope(|s| {
        let sender = s.spawn(move || pair.in_a(|| send_from(first, enough, all_sent)));
        let read = move |r: &mut PacketReceiver, before: u64| {
            let (mut end, mut collector, mut came) = (End::new(all_sent), Collector::default(), true);
            let (mut counted, mut last_read) = (false, Instant::now());
            while !end.is_reached(came) {
                came = r.receive(&mut collector).unwrap() > 0;
                thread::sleep(Duration::from_millis(3));
                // This happens seldom, because reading clears the kernel's counters of the ring that is left.
                if counted || last_read.elapsed() < READ_EVERY {
                    continue;
                }
                last_read = Instant::now();
                // The one that dies gets nothing.
                let idle = r.rx_queue() == 3;
                if rebuilds(r) >= groups && (idle || r.counters().lost[0].1 >= before + ENOUGH) {
                    counted = true;
                    ready.fetch_add(1, Ordering::Relaxed);
                }
            }
            assert!(counted, "no new group, or no loss");
            collector
        };
        let collectors: Vec<Collector> = pair.in_b(|| {
            thread::scope(|s| {
                let threads: Vec<_> = opened
                    .receivers
                    .iter_mut()
                    .zip(before)
                    .map(|(r, n)| s.spawn(move || read(r, n)))
                    .collect();
                let start = Instant::now();
                while ready.load(Ordering::Relaxed) < members && start.elapsed() < TIMEOUT {
                    thread::sleep(Duration::from_millis(1));
                }
                enough.store(true, Ordering::Relaxed);
                threads.into_iter().map(|t| t.join().unwrap()).collect()
            })
        });
        (sender.join().unwrap(), collectors)
    })
}

/// The last of four members dies, which gets nothing; the others get more than their rings hold, before, meanwhile and
/// afterwards.
#[test]
fn while_rings_overflow_the_switch_hides_no_loss_and_doubles_nothing() {
    rig::require_root!();
    for tpacket in [Tpacket::V3, Tpacket::V2] {
        let pair = quiet_pair(1);
        let mut opened = open(&pair, &overloaded(tpacket));
        let mut so_far = [0, 0];
        let mut sent = 0;
        for (phase, groups) in [("before", 0), ("switch", 1), ("after", 1)] {
            if phase == "switch" {
                drop(opened.receivers.remove(3));
            }
            let first = sent;
            let (next, collectors) = overflow(&pair, &mut opened, first, groups);
            sent = next;
            let mut got: Vec<usize> =
                collectors.iter().flat_map(|k| &k.got).map(|g| number(&g.payload)).collect();
            for collector in &collectors {
                let order: Vec<usize> = collector.got.iter().map(|g| number(&g.payload)).collect();
                assert!(order.is_sorted(), "{tpacket:?} {phase}: a flow comes in order");
            }
            let alive: &[u16] = if phase == "before" { &[0, 1, 2, 3] } else { &[0, 1, 2] };
            assert!(collectors.iter().all(|k| in_order(k, alive)), "{tpacket:?} {phase}");
            got.sort_unstable();
            let twice = got.windows(2).filter(|w| w[0] == w[1]).count();
            assert_eq!(twice, 0, "{tpacket:?} {phase}");
            assert!(got.iter().all(|n| (first..sent).contains(n)), "{tpacket:?} {phase}");
            let now = [lost(&mut opened), backlog(&pair)];
            let gone: u64 = now.iter().zip(so_far).map(|(now, before)| now - before).sum();
            so_far = now;
            let (books, sent) = (got.len() as u64 + gone, (sent - first) as u64);
            if phase == "switch" {
                assert!(books >= sent, "{tpacket:?}: {} of {sent}, {gone} lost", got.len());
            } else {
                assert_eq!(books, sent, "{tpacket:?} {phase}: {} and {gone} lost", got.len());
            }
        }
    }
}
