//! The eBPF compiler against the evaluator, run by the kernel (BPF_PROG_TEST_RUN).

use std::net::Ipv4Addr;

use millrace_core::{
    bpf::{
        CounterMap, Program, XskMap, action,
        xdp_program::{self, Spec},
    },
    config::Listen,
    packet::build::Frame,
    rule::{RuleSet, Verdict},
    rx::early::EarlyCode,
};

use crate::{
    rig,
    support::{QUEUES, Random, Rules, Sample, evaluate},
};

fn compile(text: &str, queues: u16) -> RuleSet {
    RuleSet::compile(text, queues).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

#[test]
fn what_belongs_to_the_receive_thread_is_refused() {
    for (text, rule) in [
        ("a: u8[0] == 1 => queue(0)\nb: round_robin", "b"),
        ("a: rxq == 1 => queue(1)", "a"),
        ("a: cpu in {1, 2} and u8[0] == 1 => queue(1)", "a"),
        ("mod(u8[0] + cpu)", "rule1"),
        ("hash(rxq)", "rule1"),
    ] {
        assert_eq!(compile(text, 3).to_ebpf().expect_err(text).rule, rule);
    }
    assert!(compile("u64[0] * u64[8] % 1000 > u32[3] => mod(u64[0] << 3 | 1)", 3).to_ebpf().is_ok());
}

#[test]
fn a_program_too_long_for_its_jumps_is_refused() {
    let rules: Vec<String> =
        (0..4000).map(|i| format!("u8[{i}] == 1 and u8[{}] in {{2, 9}} => hash(flow)", i + 1)).collect();
    let e = compile(&rules.join("\n"), 2).to_ebpf().unwrap_err();
    assert!(e.reason.contains("too long"), "{e}");
}

#[test]
fn random_rules_give_the_same_queue() {
    rig::require_root!();
    let mut random = Random(0x5eed_0002);
    let (mut compared, mut unsupported, mut sets) = (0u32, 0u32, 0u32);
    while compared < 20_000 {
        let queues = random.pick(&QUEUES);
        let narrow = random.one_in(2);
        let text = Rules { random: &mut random, narrow, queues }.text();
        let Ok(set) = RuleSet::compile(&text, queues) else { continue };
        sets += 1;
        let Ok(code) = set.to_ebpf() else {
            unsupported += 1;
            continue;
        };
        let program = Program::load_socket_filter("test", &code).unwrap_or_else(|e| panic!("{text}\n{e}"));
        let mut state = set.state(0);
        for _ in 0..20 {
            let sample = Sample::random(&mut random);
            // A test run does not move a VLAN tag to metadata: with one tag it sees what QinQ leaves.
            let sample = Sample { vlan: sample.vlan.into_iter().take(1).collect(), ..sample };
            let got = program.test_run(&sample.frame(&Frame::new((sample.src, 0), (sample.dst, 0)))).unwrap();
            let want = evaluate(&set, &mut state, &sample).map(u32::from);
            // What is dropped may go to any member.
            assert_eq!(want.map(|_| got), want, "{queues} queues, {sample:?}\n{text}");
            compared += 1;
        }
    }
    println!("{compared} datagrams, {sets} rule sets, {unsupported} of them not for eBPF");
}

#[test]
fn a_large_rule_set_passes_the_verifier() {
    rig::require_root!();
    let rules: Vec<String> = (0..600)
        .map(|i| format!("u8[{}] == {} and u16[{}] < 7 => queue({})", i % 60, i % 250, i % 90, i % 5))
        .collect();
    let set = compile(&rules.join("\n"), 5);
    let program = Program::load_socket_filter("large", &set.to_ebpf().unwrap()).unwrap();
    let mut random = Random(3);
    let mut state = set.state(0);
    for _ in 0..500 {
        let sample = Sample { vlan: vec![], ..Sample::random(&mut random) };
        let got = program.test_run(&sample.frame(&Frame::new((sample.src, 0), (sample.dst, 0)))).unwrap();
        assert_eq!(Some(got as u16), evaluate(&set, &mut state, &sample));
    }
}

/// The XDP program with an early drop; "ours" shows as ABORTED (0), which nothing else returns.
struct Early1 {
    program: Program,
    counters: CounterMap,
    rules: u16,
    _map: XskMap,
}

fn early(set: &RuleSet) -> Option<Early1> {
    let rules = set.early_drop()?;
    let (map, counters) = (XskMap::new(1).unwrap(), CounterMap::new(rules.rules().into()).unwrap());
    let listen = [6000, 6001].map(|port| Listen { port, ..Listen::default() });
    let spec = Spec { listen: &listen, map_fd: map.raw_fd(), empty_slot: 0, max_frame: 1792 };
    let code = xdp_program::generate_with(&spec, Some(&EarlyCode { rules, counters_fd: counters.raw_fd() }))
        .unwrap();
    let program = Program::load("early", &code, 0).unwrap_or_else(|e| panic!("{:?}\n{e}", set.describe()));
    Some(Early1 { program, counters, rules: rules.rules(), _map: map })
}

#[test]
fn only_leading_drops_are_early() {
    for (text, rules) in [
        ("u8[0] == 1 => drop\nlen < 4 => drop\nu8[0] == 2 => queue(0)\nu8[0] == 3 => drop", Some(2)),
        ("u8[0] == 2 => queue(0)\nu8[0] == 3 => drop", None),
        ("u8[0] == 2 => sample(3)\nu8[0] == 3 => drop", None),
        ("u8[0] == 1 => drop\ncpu == 1 => drop\nu8[0] == 3 => drop", Some(1)),
        ("rxq == 1 => drop\nu8[0] == 3 => drop", None),
        ("hash(flow)", None),
        ("drop", Some(1)),
    ] {
        assert_eq!(compile(text, 3).early_drop().map(|e| e.rules()), rules, "{text}");
    }
}

#[test]
fn early_drop_takes_what_the_rules_would_drop_and_counts_it() {
    rig::require_root!();
    let mut random = Random(0x5eed_0003);
    let (mut dropped, mut kept, mut lied) = (0u32, 0u32, 0u32);
    for _ in 0..300 {
        let mut rules = Rules { random: &mut random, narrow: false, queues: 3 };
        let text = rules.text();
        // Drops first, then whatever it was.
        let leading: Vec<String> = (0..3)
            .map(|_| rules.text())
            .filter_map(|t| Some(format!("{} => drop", t.split_once(" => ")?.0)))
            .collect();
        let Ok(set) = RuleSet::compile(&format!("{}\n{text}", leading.join("\n")), 3) else { continue };
        let Some(early) = early(&set) else { continue };
        let mut want = vec![0u64; early.rules.into()];
        for _ in 0..60 {
            let mut sample = Sample::random(&mut random);
            sample.options.clear();
            let mut frame = sample.frame(&Frame::new((sample.src, 0), (sample.dst, 0)));
            let lies = random.one_in(10);
            if lies {
                // Lengths that claim more than there is: no rule may see it.
                let at = 14 + 4 * sample.vlan.len() + if sample.src.is_ipv4() { 24 } else { 44 };
                frame[at..at + 2].copy_from_slice(&random.pick(&[1u16, 7, 2000]).to_be_bytes());
                lied += 1;
            }
            // A fresh state: only rules without a state are compared.
            let verdict = set.evaluate(&sample.facts(), &mut set.state(0));
            let taken = match verdict {
                Verdict::Drop { rule } if rule < early.rules && !lies => {
                    want[usize::from(rule)] += 1;
                    dropped += 1;
                    true
                }
                _ => {
                    kept += 1;
                    false
                }
            };
            let got = early.program.test_run(&frame).unwrap();
            assert_eq!(got, if taken { action::DROP } else { 0 }, "{sample:?}\n{:?}", set.describe());
        }
        assert_eq!(early.counters.read(want.len() as u32).unwrap(), want, "{:?}", set.describe());
    }
    println!("{dropped} dropped, {kept} kept, {lied} of them malformed");
    assert!(dropped > 1000 && kept > 1000 && lied > 500);
    // What is not ours passes, whatever the rules say.
    let set = compile("drop", 1);
    let foreign = Frame::new((Ipv4Addr::new(10, 0, 0, 1).into(), 1), (Ipv4Addr::new(10, 0, 0, 2).into(), 7))
        .bytes(b"x");
    assert_eq!(early(&set).unwrap().program.test_run(&foreign).unwrap(), action::PASS);
}
