//! Fanout modes: each spreads frames as its definition demands (packet(7)), and none loses or doubles one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use millrace_core::{
    config::{EngineConfig, FanoutFlag, FanoutMode},
    datagram::flags,
    net::Interface,
    packet::FrameDrop,
    rule::{Facts, RuleSet, Verdict},
    rx::{Opened, Receiver, RulePrograms, packet},
    sys::scheduling,
};

use crate::{
    rig::{self, Pair, RawSender},
    support::*,
};

const MEMBERS: u16 = 4;

fn with_mode(mode: FanoutMode) -> EngineConfig {
    EngineConfig { fanout: mode, ..config(ONE_PORT, "vb", MEMBERS) }
}

fn open(pair: &Pair, config: &EngineConfig) -> Opened<packet::PacketReceiver> {
    let opened = open_in_b(pair, config, open_rings).unwrap();
    let mode = format!("tpacket_v3 fanout {}", config.fanout.as_str());
    assert_eq!(opened.info.mode, mode, "{:?}", opened.info.degraded);
    opened
}

/// Sends `count` frames, source port 1000 + `i` modulo `flows`, and returns how many each member got.
fn spread(
    pair: &Pair,
    opened: &mut Opened<packet::PacketReceiver>,
    count: usize,
    flows: usize,
) -> [usize; 4] {
    pair.in_a(|| send(count, flows));
    by_member(&drain(opened, count), count)
}

fn send(count: usize, flows: usize) {
    let raw = RawSender::new("va");
    (0..count).for_each(|i| raw.send(&Pair::v4(1000 + (i % flows) as u16, 9000).bytes(&payload(i, 100))));
}

fn by_member(collector: &Collector, count: usize) -> [usize; 4] {
    assert_eq!((collector.got.len(), collector.dropped.len()), (count, 0));
    let mut members = [0; 4];
    collector.got.iter().for_each(|g| members[usize::from(g.rx_queue)] += 1);
    members
}

#[test]
fn hash_keeps_a_flow_together() {
    rig::require_root!();
    let pair = quiet_pair(1);
    let mut opened = open(&pair, &with_mode(FanoutMode::Hash));
    let one = spread(&pair, &mut opened, 40, 1);
    assert_eq!(one.iter().filter(|n| **n > 0).count(), 1, "{one:?}");
    pair.in_a(|| send(400, 100));
    let collector = drain(&mut opened, 400);
    assert!(by_member(&collector, 400).iter().all(|n| *n > 0));
    let mut member_of: HashMap<u16, u16> = HashMap::new();
    for g in &collector.got {
        assert_eq!(*member_of.entry(g.src_port).or_insert(g.rx_queue), g.rx_queue, "flow {}", g.src_port);
    }
}

#[test]
fn lb_is_round_robin() {
    rig::require_root!();
    let pair = quiet_pair(1);
    let mut opened = open(&pair, &with_mode(FanoutMode::Lb));
    for flows in [1, 7] {
        assert_eq!(spread(&pair, &mut opened, 40, flows), [10; 4]);
    }
}

#[test]
fn rnd_reaches_every_member() {
    rig::require_root!();
    let pair = quiet_pair(1);
    let mut opened = open(&pair, &with_mode(FanoutMode::Rnd));
    let members = spread(&pair, &mut opened, 400, 1);
    // 100 each expected; further off than 60 once in 10^11 runs.
    assert!(members.iter().all(|n| (40..160).contains(n)), "{members:?}");
}

#[test]
fn cpu_and_qm_follow_the_cpu_and_the_rx_queue() {
    rig::require_root!();
    for mode in [FanoutMode::Cpu, FanoutMode::Qm] {
        let pair = quiet_pair(4);
        let mut opened = open(&pair, &with_mode(mode));
        for cpu in scheduling::allowed_cpus().unwrap() {
            // Past the qdisc, veth's tx queue is the sender's CPU, its peer's rx queue the same, and the frame is
            // received on that CPU.
            pair.in_a(|| {
                scheduling::pin_to(cpu).unwrap();
                let raw = RawSender::new("va");
                raw.bypass_qdisc();
                (0..40).for_each(|i| raw.send(&Pair::v4(1000 + i, 9000).bytes(b"x")));
            });
            let members = by_member(&drain(&mut opened, 40), 40);
            assert_eq!(members[cpu % 4], 40, "{mode:?}, CPU {cpu}: {members:?}");
        }
    }
}

/// Rings of 4 × 128 KiB, each full after some 500 of these frames, or sooner: a block is closed every millisecond.
fn small_rings(mode: FanoutMode) -> EngineConfig {
    EngineConfig { packet_block_bytes: 131_072, packet_blocks: 4, ..with_mode(mode) }
}

/// One flow, more than a ring holds. Every frame is at some member, or counted by the one that had no room.
fn overfill(pair: &Pair, opened: &mut Opened<packet::PacketReceiver>) -> [usize; 4] {
    pair.in_a(|| {
        let raw = RawSender::new("va");
        (0..1000).for_each(|i| raw.send(&Pair::v4(1000, 9000).bytes(&payload(i, 800))));
    });
    std::thread::sleep(QUIET);
    let collector = drain(opened, 1);
    let backlog = pair.in_b(|| Interface::by_name("vb").unwrap().link().unwrap().statistics.rx_dropped);
    assert_eq!(collector.got.len() as u64 + lost(opened) + backlog, 1000);
    by_member(&collector, collector.got.len())
}

#[test]
fn rollover_fills_one_member_after_the_other() {
    rig::require_root!();
    let pair = quiet_pair(1);
    let mut opened = open(&pair, &small_rings(FanoutMode::Rollover));
    assert_eq!(spread(&pair, &mut opened, 40, 40), [40, 0, 0, 0], "not full: all at the first");
    let members = overfill(&pair, &mut opened);
    assert!(members[0] > 0 && members[1] > 0, "{members:?}");
    assert!(opened.info.degraded.iter().any(|d| d.contains("order")), "{:?}", opened.info.degraded);
}

#[test]
fn the_rollover_flag_sends_a_full_members_frames_elsewhere() {
    rig::require_root!();
    let pair = quiet_pair(1);
    let mut config = small_rings(FanoutMode::Hash);
    config.fanout_flags.push(FanoutFlag::Rollover);
    let mut opened = open(&pair, &config);
    let members = overfill(&pair, &mut opened);
    assert!(members.iter().filter(|n| **n > 0).count() > 1, "one flow, and yet {members:?}");
    let all: u64 = opened
        .receivers
        .iter_mut()
        .flat_map(|r| r.counters().notes)
        .filter(|(name, _)| *name == "rollover_all")
        .map(|(_, n)| n)
        .sum();
    assert!(all > 0);
}

#[test]
fn cbpf_and_ebpf_run_the_rules() {
    rig::require_root!();
    let text = "src in {198.51.100.0/28, 2001:db8::/36} => mod(u16le[0] / 3)\nelse => hash(src, u8[0])";
    let rules = Arc::new(RuleSet::compile(text, 4).unwrap());
    for mode in [FanoutMode::Cbpf, FanoutMode::Ebpf] {
        let pair = Pair::new(1);
        let config = with_mode(mode);
        let programs = RulePrograms::from_rules(&rules, &config);
        let mut opened = pair.in_b(|| packet::open(&config, &programs)).unwrap();
        let mut frames = Vec::new();
        for host in 1..=50u8 {
            for vlan in [vec![], vec![(0x8100, 5)], vec![(0x88a8, 7), (0x8100, 5)]] {
                let mut v4 = Pair::v4(u16::from(host), 9000);
                (v4.src, v4.vlan) = ([198, 51, 100, host].into(), vlan.clone());
                v4.ipv4_options = if host % 2 == 0 { vec![1, 1, 1, 0] } else { vec![] };
                frames.push(v4);
                let mut v6 = Pair::v6(u16::from(host), 9000);
                v6.vlan = vlan;
                let mut src6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host];
                src6[4] = host.wrapping_mul(37);
                v6.src = src6.into();
                frames.push(v6);
            }
        }
        pair.in_a(|| {
            let raw = RawSender::new("va");
            frames.iter().enumerate().for_each(|(i, f)| raw.send(&f.bytes(&payload(i, 50))));
        });
        let collector = drain(&mut opened, frames.len());
        assert_eq!(collector.got.len(), frames.len());
        for g in &collector.got {
            let facts = Facts {
                payload: &g.payload,
                src: g.src.0,
                dst: g.dst.0,
                src_port: g.src_port,
                dst_port: g.dst_port,
                rx_queue: 0,
                cpu: 0,
            };
            let Verdict::Queue { queue, .. } = rules.evaluate(&facts, &mut rules.state(0)) else { panic!() };
            assert_eq!(g.rx_queue, queue, "{mode:?} {g:?}");
        }
    }
}

#[test]
fn a_given_program_steers() {
    rig::require_root!();
    let pair = quiet_pair(1);
    let programs = by_payload();
    let config = with_mode(FanoutMode::Rules);
    let mut opened = pair.in_b(|| packet::open(&config, &programs)).unwrap();
    assert_eq!(opened.info.mode, "tpacket_v3 fanout rules");
    pair.in_a(|| send(200, 3));
    let collector = drain(&mut opened, 200);
    assert_eq!(by_member(&collector, 200), [50; 4]);
    assert!(collector.got.iter().all(|g| u16::from(g.payload[0]) % 4 == g.rx_queue));
    drop(opened);
    // Without one: the flow's hash, and the reason.
    let opened = pair.in_b(|| open_rings(&config)).unwrap();
    assert_eq!(opened.info.mode, "tpacket_v3 fanout rules");
    let steering = opened.info.granted.iter().find(|(k, _)| k == "steering").unwrap();
    assert!(steering.1.contains("hash(flow), not rules"), "{steering:?}");
}

#[test]
fn flags_do_what_they_say() {
    rig::require_root!();
    let pair = quiet_pair(1);
    let granted = |o: &Opened<packet::PacketReceiver>, what: &str| {
        o.info.granted.iter().find(|(k, _)| k == what).unwrap().1.clone()
    };
    let opened = open(&pair, &with_mode(FanoutMode::Hash));
    assert_eq!(granted(&opened, "fanout flags"), "defrag,uniqueid,ignore_outgoing");
    drop(opened);
    let bare = EngineConfig { fanout_flags: vec![], ..with_mode(FanoutMode::Hash) };
    let mut opened = pair.in_b(|| open_rings(&bare)).unwrap();
    assert_eq!(granted(&opened, "fanout flags"), "none");
    assert!(opened.info.degraded[0].contains("second copy of every IPv4"), "{:?}", opened.info.degraded);
    // Three fragments of one datagram, none put together for the ring; outgoing ones are dropped by the filter all the
    // same.
    pair.in_a(|| assert_eq!(sender(false).send_to(&payload(1, 4000), to(false, 9000)).unwrap(), 4000));
    pair.in_b(|| assert_eq!(sender(false).send_to(b"out", (rig::V4.0, 9000)).unwrap(), 3));
    let collector = drain(&mut opened, 1);
    assert!(collector.sizes() == [4000] && collector.got[0].flags & flags::SLOW_PATH != 0, "{collector:?}");
    assert_eq!(collector.dropped(FrameDrop::Fragment), 1, "the filter drops the two without ports");
}

#[test]
fn without_cap_bpf_ebpf_becomes_cbpf_and_says_so() {
    rig::require_root!();
    let pair = quiet_pair(1);
    let config = with_mode(FanoutMode::Ebpf);
    // Unprivileged BPF would make it work.
    if std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").is_ok_and(|v| v.trim() == "0") {
        return rig::skip("this host lets anybody load socket filters");
    }
    const CAP_NET_RAW: u32 = 13;
    let opened = pair.in_b(|| with_capabilities(1 << CAP_NET_RAW, || open_rings(&config))).unwrap();
    assert_eq!(opened.info.mode, "tpacket_v3 fanout cbpf");
    assert!(opened.info.degraded.iter().any(|d| d.contains("CAP_BPF")), "{:?}", opened.info.degraded);
}

#[test]
fn a_link_flap_keeps_the_members_numbers() {
    rig::require_root!();
    let pair = quiet_pair(1);
    let mut opened = pair.in_b(|| packet::open(&with_mode(FanoutMode::Rules), &by_payload())).unwrap();
    for _ in 0..2 {
        rig::run(&format!("ip -n {} link set vb down", pair.b));
        opened.receivers.iter_mut().for_each(|r| r.wait(Duration::from_millis(5)).unwrap());
        pair.link_up();
        pair.in_a(|| send(80, 1));
        let collector = drain(&mut opened, 80);
        assert_eq!(by_member(&collector, 80), [20; 4]);
        assert!(collector.got.iter().all(|g| u16::from(g.payload[0]) % 4 == g.rx_queue));
    }
}
