//! One language, one meaning: random rules on random datagrams give the same queue wherever they run.
//!
//! The evaluator is the truth. Against it: classic BPF on a machine in this process and in the kernel, in a fanout group
//! on a veth pair (VLAN, QinQ, padding, IPv4 options) and in a reuseport group on loopback; eBPF by BPF_PROG_TEST_RUN
//! and on a machine in this process (rbpf). `MILLRACE_RULE_TRIPLES` sets how many (rules, datagram, queue count).

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use millrace_core::{
    bpf::Program,
    packet::build::Frame,
    rule::{CbpfTarget, RuleSet},
};

use crate::{
    rig::{self, Pair, RawSender},
    support::{
        Packet, QUEUES, Random, Rules, Sample, evaluate, run_cbpf,
        sockets::{Group, send},
    },
};

/// Datagrams for each rule set: the kernel takes some ten milliseconds to change the program of a fanout group.
const BATCH: usize = 60;

thread_local! {
    /// What the helper of the eBPF machine reads.
    static PACKET: RefCell<Option<Packet>> = const { RefCell::new(None) };
}

/// `bpf_skb_load_bytes_relative`, from the network header.
fn load_relative(_skb: u64, offset: u64, to: u64, length: u64, start: u64) -> u64 {
    PACKET.with_borrow(|packet| {
        let packet = packet.as_ref().expect("a packet");
        assert_eq!(start, 1);
        let at = packet.network + offset as usize;
        match packet.bytes.get(at..at + length as usize) {
            Some(bytes) => {
                // SAFETY: the program passes a buffer on its stack with room for `length` bytes, which the kernel's
                // verifier has checked on the same program.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
                0
            }
            None => u64::MAX,
        }
    })
}

/// The beginning of `__sk_buff`, as far as the program reads it.
fn context(packet: &Packet) -> [u8; 32] {
    let mut out = [0; 32];
    out[16..18].copy_from_slice(&packet.protocol.to_be_bytes());
    out
}

/// The same datagram between addresses that the loopback interface has.
fn local(sample: &Sample) -> Sample {
    let at_home = |ip: IpAddr| match ip {
        IpAddr::V4(ip) if ip.is_loopback() => IpAddr::V4(ip),
        IpAddr::V4(ip) => Ipv4Addr::new(127, 0, 0, 1 + ip.octets()[3] % 8).into(),
        IpAddr::V6(ip) if ip.segments()[..2] == [0x2001, 0xdb8] => ip.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    // 127.x.y.0 is no broadcast address, but a source of 127.0.0.0 may not be bound everywhere.
    let no_zero = |ip: IpAddr| match ip {
        IpAddr::V4(v4) if v4.octets()[3] == 0 => Ipv4Addr::from(u32::from(v4) | 1).into(),
        other => other,
    };
    Sample {
        src: no_zero(at_home(sample.src)),
        dst: no_zero(at_home(sample.dst)),
        vlan: vec![],
        padding: 0,
        // Another port than on the wire: some of those addresses are local too.
        ports: (sample.ports.0, 6100),
        ..sample.clone()
    }
}

#[derive(Default)]
struct Tally {
    sets: u32,
    all: u32,
    ebpf_only: u32,
    refused: u32,
}

struct Rig {
    queues: u16,
    fanout: Group,
    reuseport: Group,
    wire: RawSender,
    like: Frame,
}

impl Rig {
    fn set(&self, text: &str, set: &RuleSet, random: &mut Random, tally: &mut Tally) {
        let Ok(code) = set.to_ebpf() else {
            tally.refused += 1;
            return;
        };
        tally.sets += 1;
        let samples: Vec<Sample> = (0..BATCH).map(|_| Sample::random(random)).collect();
        let locals: Vec<Sample> = samples.iter().map(local).collect();
        let mut state = set.state(0);
        // `None`: dropped. Any member may get it.
        let want: Vec<Option<u16>> = samples.iter().map(|s| evaluate(set, &mut state, s)).collect();
        let want_local: Vec<Option<u16>> = locals.iter().map(|s| evaluate(set, &mut state, s)).collect();
        let wrong = |stage: &str, i: usize, got: u64, want: Option<u16>, s: &Sample| {
            let queues = self.queues;
            assert_eq!(
                want.map(|_| got),
                want.map(u64::from),
                "{stage}, {queues} queues, datagram {i} {s:?}\n{text}"
            );
        };

        let kernel = Program::load_socket_filter("same", &code).unwrap_or_else(|e| panic!("{text}\n{e}"));
        let bytes: Vec<u8> = code.iter().flat_map(|i| i.to_ne_bytes()).collect();
        let mut contexts: Vec<[u8; 32]> = samples.iter().map(|s| context(&s.at_fanout())).collect();
        let mut machine = rbpf::EbpfVmRaw::new(Some(&bytes)).unwrap_or_else(|e| panic!("{text}\n{e:?}"));
        machine.register_helper(68, load_relative).expect("helper");
        machine.register_helper(7, |_, _, _, _, _| 4).expect("helper");
        for (i, ((s, want), context)) in samples.iter().zip(&want).zip(&mut contexts).enumerate() {
            PACKET.set(Some(s.at_fanout()));
            wrong("eBPF machine", i, machine.execute_program(context).unwrap(), *want, s);
            // A test run moves no tag to metadata.
            let s = Sample { vlan: s.vlan.iter().copied().take(1).collect(), ..s.clone() };
            wrong("eBPF test run", i, kernel.test_run(&s.frame(&self.like)).unwrap().into(), *want, &s);
        }

        let fanout = set.to_cbpf(CbpfTarget::Fanout);
        let reuseport = set.to_cbpf(CbpfTarget::Reuseport { sockets: self.queues });
        assert_eq!(fanout.is_ok(), reuseport.is_ok(), "{text}");
        let (Ok(fanout), Ok(reuseport)) = (fanout, reuseport) else {
            tally.ebpf_only += BATCH as u32;
            return;
        };
        self.fanout.attach(&fanout);
        self.reuseport.attach(&reuseport);
        for i in 0..BATCH {
            let (s, want) = (&samples[i], want[i]);
            wrong("fanout machine", i, run_cbpf(&fanout, &s.at_fanout()).into(), want, s);
            self.wire.send(&s.frame(&self.like));
            let packet = s.at_fanout();
            let got = self.fanout.find(&packet.bytes[packet.network..], want);
            assert!(got.is_some(), "fanout lost datagram {i} {s:?}\n{text}");
            wrong("fanout", i, got.map_or(u64::MAX, |q| q as u64), want, s);

            let (s, want) = (&locals[i], want_local[i]);
            wrong("reuseport machine", i, run_cbpf(&reuseport, &s.at_reuseport()).into(), want, s);
            send((s.src, s.ports.0), (s.dst, s.ports.1), &s.options, &s.payload);
            let got = self.reuseport.find(&s.payload, want);
            assert!(got.is_some(), "reuseport lost datagram {i} {s:?}\n{text}");
            wrong("reuseport", i, got.map_or(u64::MAX, |q| q as u64), want, s);
        }
        tally.all += BATCH as u32;
        // Nothing was delivered twice, or to another socket. What is no UDP is the namespaces' own noise.
        let left = self
            .fanout
            .left()
            .into_iter()
            .find(|p| samples.iter().any(|s| p.ends_with(&s.payload) && p[0] == 0x45 && p[9] == 17));
        assert_eq!(left, None, "{text}");
        assert_eq!(self.reuseport.left(), Vec::<Vec<u8>>::new(), "{text}");
    }
}

#[test]
fn one_meaning_everywhere() {
    rig::require_root!();
    let triples: u32 =
        std::env::var("MILLRACE_RULE_TRIPLES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let started = std::time::Instant::now();
    let pair = Pair::new(1);
    for ip in ["2001:db8:0:7::1", "2001:db8:0:7:1::1"] {
        rig::add_address(&pair.b, &format!("{ip}/128"), "lo");
    }
    let mut random = Random(0x5eed_0004);
    let mut total = Tally::default();
    for (i, queues) in QUEUES.into_iter().enumerate() {
        let wire = pair.in_a(|| RawSender::new("va"));
        let goal = triples / QUEUES.len() as u32 * (i as u32 + 1) + if i + 1 == QUEUES.len() { 5 } else { 0 };
        pair.in_b(|| {
            let rig = Rig {
                queues,
                fanout: Group::fanout("vb", queues),
                reuseport: Group::reuseport(6100, queues),
                wire,
                like: Pair::v4(1, 1),
            };
            while total.all < goal {
                let narrow = !random.one_in(6);
                let text = Rules { random: &mut random, narrow, queues }.text();
                if let Ok(set) = RuleSet::compile(&text, queues) {
                    rig.set(&text, &set, &mut random, &mut total);
                }
            }
        });
    }
    let Tally { sets, all, ebpf_only, refused } = total;
    println!(
        "{all} triples of {sets} rule sets agree in 7 places, {ebpf_only} more in the eBPF ones; {refused} sets are for user space; {:?}",
        started.elapsed()
    );
    assert!(all >= triples);
}
