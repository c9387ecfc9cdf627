//! The classic BPF compiler against the evaluator, on a classic BPF machine in this process.

use millrace_core::rule::{CbpfTarget, RuleSet};

use crate::support::{QUEUES, Random, Rules, Sample, evaluate, run_cbpf};

fn compile(text: &str, queues: u16) -> RuleSet {
    RuleSet::compile(text, queues).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

fn refused(text: &str, queues: u16) -> String {
    compile(text, queues).to_cbpf(CbpfTarget::Fanout).expect_err(text).to_string()
}

#[test]
fn random_rules_give_the_same_queue() {
    let mut random = Random(0x5eed_0001);
    let (mut compared, mut unsupported, mut sets) = (0u32, 0u32, 0u32);
    while compared < 60_000 {
        let queues = random.pick(&QUEUES);
        let narrow = !random.one_in(5);
        let text = Rules { random: &mut random, narrow, queues }.text();
        let Ok(set) = RuleSet::compile(&text, queues) else { continue };
        sets += 1;
        let mut state = set.state(0);
        // As many sockets as queues, or fewer: then the program takes the remainder.
        let sockets = random.pick(&[queues, queues, 1, 2, 3]);
        let reuseport = set.to_cbpf(CbpfTarget::Reuseport { sockets });
        let fanout = set.to_cbpf(CbpfTarget::Fanout);
        let (Ok(fanout), Ok(reuseport)) = (fanout, reuseport) else {
            unsupported += 1;
            continue;
        };
        for _ in 0..24 {
            let sample = Sample::random(&mut random);
            let want = evaluate(&set, &mut state, &sample).map(u32::from);
            let got = run_cbpf(&fanout, &sample.at_fanout());
            // What is dropped may go to any member.
            assert_eq!(want.map(|_| got), want, "fanout, {queues} queues, {sample:?}\n{text}");
            let got = run_cbpf(&reuseport, &sample.at_reuseport());
            let want = want.map_or(u32::MAX, |q| q % u32::from(sockets));
            assert_eq!(got, want, "reuseport, {sockets} sockets, {queues} queues, {sample:?}\n{text}");
            compared += 1;
        }
    }
    println!("{compared} datagrams, {sets} rule sets, {unsupported} of them not for classic BPF");
    assert!(unsupported * 2 < sets, "{unsupported} of {sets} rule sets cannot be compared");
}

#[test]
fn what_cannot_be_expressed_is_named_with_its_rule() {
    for (text, rule, why) in [
        ("a: u8[0] == 1 => queue(0)\nb: round_robin", "b", "takes turns"),
        ("random", "rule1", "draw"),
        ("sample(3)", "rule1", "counts"),
        ("cpu", "rule1", "receive thread"),
        ("a: rxq == 1 => queue(1)", "a", "receive thread"),
        ("a: u32[0] + u32[4] > 7 => queue(1)", "a", "32 bits"),
        ("a: u64[0] / 3 == 7 => queue(1)", "a", "32 bits"),
        ("a: len - 8 == 7 => queue(1)", "a", "32 bits"),
        ("a: hash(u32[0] * 3)", "a", "32 bits"),
        ("a: mod(u32[0] * 3)", "a", "power of two"),
    ] {
        let said = refused(text, 3);
        assert!(said.starts_with(&format!("rule `{rule}`: ")) && said.contains(why), "{text}: {said}");
    }
    let deep = (0..9).fold("u8[0]".to_owned(), |e, i| format!("(u8[{i}] & {e})"));
    assert!(refused(&format!("a: {deep} == 1 => hash(flow)"), 3).contains("scratch memory"));
    // A rule that is never reached may be anything.
    let set = compile("1 == 1 => queue(1)", 3);
    assert_eq!(set.to_cbpf(CbpfTarget::Reuseport { sockets: 3 }).unwrap().len(), 1);
}

#[test]
fn lower_bits_are_enough_for_a_power_of_two() {
    for text in [
        "mod(u32[0] * 3)",
        "mod(u64[0] + u64[1])",
        "mod(len - 9)",
        "mod(u64[0] % 16 + 1)",
        "mod((u32[0] << 7) ^ u64[2])",
    ] {
        assert!(compile(text, 8).to_cbpf(CbpfTarget::Fanout).is_ok(), "{text}");
    }
}

#[test]
fn long_rule_sets_jump_far_and_too_long_ones_are_refused() {
    let set = |n: usize| {
        let rules: Vec<String> = (0..n)
            .map(|i| {
                format!(
                    "u8[{}] == 1 and u16[{}] in {{2, {}}} => queue({})",
                    i % 40,
                    i % 7 + 40,
                    i + 514,
                    i % 5
                )
            })
            .collect();
        compile(&(rules.join("\n") + "\nmod(u64[40])"), 5)
    };
    let (many, one_field) = (set(250), {
        let rules: Vec<String> =
            (0..800).map(|i| format!("u32[0] == {} => queue({})", i * 3, i % 5)).collect();
        compile(&rules.join("\n"), 5)
    });
    let mut random = Random(7);
    for set in [many, one_field] {
        let program = set.to_cbpf(CbpfTarget::Fanout).unwrap();
        assert!(program.len() > 2000);
        let mut state = set.state(0);
        for i in 0..3000u64 {
            let mut sample = Sample::random(&mut random);
            sample.payload = (0..random.below(60)).map(|_| random.below(3) as u8).collect();
            if let Some(head) = sample.payload.first_chunk_mut() {
                *head = if i % 2 == 0 { ((random.below(2500)) as u32).to_be_bytes() } else { *head };
            }
            assert_eq!(
                Some(run_cbpf(&program, &sample.at_fanout()) as u16),
                evaluate(&set, &mut state, &sample)
            );
        }
    }
    let too_long = set(2000).to_cbpf(CbpfTarget::Fanout).unwrap_err();
    assert!(too_long.reason.contains("4096"), "{too_long}");
}
