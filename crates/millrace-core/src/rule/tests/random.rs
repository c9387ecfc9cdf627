//! Random rules on random datagrams: the compiled program against the naive evaluator.

use super::super::diagnostics::Diagnostics;
use super::reference::{Decision, Memory, decide};
use super::*;
use proptest::prelude::*;

fn number() -> impl Strategy<Value = String> {
    // Small values and offsets, so that tests often hold, and reads are often just in or just out.
    let leaf = prop_oneof![
        4 => (0u8..12).prop_map(|o| format!("u8[{o}]")),
        2 => (prop_oneof!["u16", "u32", "u64", "u16le", "u32le", "u64le"], 0u8..8).prop_map(|(w, o)| format!("{w}[{o}]")),
        1 => prop_oneof!["len", "sport", "dport", "rxq", "cpu"],
    ];
    let constant =
        prop_oneof![(0u64..5).prop_map(|n| n.to_string()), Just("64".to_owned()), Just("0xff".to_owned())];
    leaf.prop_recursive(3, 8, 3, move |inner| {
        let op = prop_oneof!["\\+", "-", "\\*", "/", "%", "&", "\\|", "\\^", "<<", ">>"];
        let arg = prop_oneof![inner.clone(), constant.clone(), inner.clone().prop_map(|e| format!("({e})"))];
        (inner, prop::collection::vec((op, arg), 1..3))
            .prop_map(|(first, rest)| rest.iter().fold(first, |s, (op, e)| format!("{s} {op} {e}")))
    })
}

fn test() -> impl Strategy<Value = String> {
    let cmp = || prop_oneof!["==", "!=", "<", "<=", ">", ">="];
    let small = || 0u8..5;
    prop_oneof![
        4 => (number(), cmp(), small()).prop_map(|(e, op, n)| format!("{e} {op} {n}")),
        1 => (small(), cmp(), number()).prop_map(|(n, op, e)| format!("{n} {op} {e}")),
        2 => (number(), cmp(), number()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        1 => (number(), small(), small()).prop_map(|(e, a, b)| format!("{e} in {}..{}", a.min(b), a.max(b))),
        1 => (number(), small(), small(), 2u8..6).prop_map(|(e, a, b, c)| format!("{e} in {{{a}, {b}, {c}..9}}")),
        2 => (0u8..10, prop::collection::vec(0u8..3, 1..10), prop_oneof!["==", "!="]).prop_map(|(o, b, op)| {
            let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
            format!("bytes[{o}..{}] {op} x\"{hex}\"", usize::from(o) + b.len())
        }),
        1 => (0u8..10, 0u8..3, 0u8..3).prop_map(|(o, a, b)| format!("bytes[{o}..{}] in {{x'00000{a}', x'00000{b}'}}", o + 3)),
        1 => (prop_oneof!["src", "dst"], 0u8..33).prop_map(|(w, n)| {
            let net = u32::from_be_bytes([10, 0, 0, 1]) & u32::MAX.checked_shl(32 - u32::from(n)).unwrap_or(0);
            format!("{w} in {{{}/{n}, fe80::/10}}", std::net::Ipv4Addr::from(net))
        }),
        1 => prop_oneof![Just("src == dst".to_owned()), Just("src != 10.0.0.1".to_owned()), Just("dst == ::1".to_owned())],
        1 => (2u8..12).prop_map(|n| format!("len >= {n}")),
        1 => prop_oneof![Just("1 == 1".to_owned()), Just("1 == 2".to_owned())],
    ]
}

fn condition() -> impl Strategy<Value = String> {
    test().prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(|c| format!("({})", c.join(" and "))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|c| format!("({})", c.join(" or "))),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} and {b} or {c})")),
            inner.prop_map(|c| format!("not ({c})")),
        ]
    })
}

fn action() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        number(),
        Just("flow".to_owned()),
        Just("src".to_owned()),
        Just("dst".to_owned()),
        (0u8..8, 1u8..9).prop_map(|(o, n)| format!("bytes[{o}..{}]", o + n)),
    ];
    let spread = prop_oneof![
        3 => number().prop_map(|e| format!("mod({e})")),
        3 => prop::collection::vec(key, 1..4).prop_map(|k| format!("hash({})", k.join(", "))),
        1 => prop_oneof!["round_robin", "random", "cpu", "rxq"],
    ];
    let modifiers = prop_oneof![Just(""), Just(" spill"), Just(" on 0..0"), Just(" on 0..0 spill")];
    prop_oneof![
        6 => (spread, modifiers).prop_map(|(a, m)| format!("{a}{m}")),
        1 => prop_oneof!["queue\\(0\\)", "queue\\(0\\) spill", "drop"],
        1 => (1u8..4).prop_map(|n| format!("sample({n})")),
    ]
}

fn rules() -> impl Strategy<Value = String> {
    let rule = (condition(), action()).prop_map(|(c, a)| format!("{c} => {a}"));
    // Many rules on one field, as the decision structure likes them.
    let dispatch =
        (0u8..3, prop::collection::vec((prop_oneof!["==", "!=", "<", ">="], 1u8..6, action()), 2..9))
            .prop_map(|(o, tests)| {
                let rules: Vec<String> = tests
                    .into_iter()
                    .enumerate()
                    .map(|(i, (op, n, a))| match i % 3 {
                        0 => format!("u8[{o}] {op} {n} => {a}"),
                        1 => format!("u8[{o}] in {{{n}, 7..9}} => {a}"),
                        _ => format!("u8[{o}] {op} {n} and u8[{n}] < 2 => {a}"),
                    })
                    .collect();
                rules.join("\n")
            });
    prop_oneof![3 => prop::collection::vec(rule, 1..4).prop_map(|r| r.join("\n")), 1 => dispatch]
}

fn addr() -> impl Strategy<Value = [u8; 16]> {
    prop_oneof![
        (0u8..2, 0u8..3).prop_map(|(a, b)| v4([10, 0, a, b])),
        any::<[u8; 4]>().prop_map(v4),
        Just(std::net::Ipv6Addr::LOCALHOST.octets()),
        any::<[u8; 16]>(),
    ]
}

#[derive(Debug)]
struct Sample {
    payload: Vec<u8>,
    src: [u8; 16],
    dst: [u8; 16],
    ports: (u16, u16),
    cpu: u16,
}

fn sample() -> impl Strategy<Value = Sample> {
    let byte = prop_oneof![4 => 0u8..5, 1 => any::<u8>()];
    let payload = prop::collection::vec(byte, 0..24);
    (payload, addr(), addr(), any::<(u16, u16)>(), 0u16..9)
        .prop_map(|(payload, src, dst, ports, cpu)| Sample { payload, src, dst, ports, cpu })
}

fn cases(default: u32) -> u32 {
    std::env::var("MILLRACE_RULE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn program_agrees_with_the_definition() {
    let compiled = std::cell::Cell::new(0u32);
    let refused = std::cell::Cell::new(0u32);
    let strategy = (
        rules(),
        prop_oneof![Just(1u16), Just(2), Just(3), Just(5), Just(8), Just(64)],
        prop::collection::vec(sample(), 6),
    );
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases(900))
    });
    let outcome = runner.run(&strategy, |(text, queues, samples)| {
        let Ok(set) = RuleSet::compile(&text, queues) else {
            // The checker refuses what can never match; that is tested elsewhere.
            refused.set(refused.get() + 1);
            return Ok(());
        };
        compiled.set(compiled.get() + 1);
        let tree = parse::parse(&text, &mut Diagnostics::default());
        let mut memory = Memory::default();
        let mut state = set.state(0);
        for s in &samples {
            let facts = Facts {
                payload: &s.payload,
                src: s.src,
                dst: s.dst,
                src_port: s.ports.0,
                dst_port: s.ports.1,
                rx_queue: s.cpu / 2,
                cpu: s.cpu,
            };
            let verdict = set.evaluate(&facts, &mut state);
            let (rule, expected) = decide(&tree, queues, &facts, &mut memory);
            let (got, have) = match (verdict, &expected) {
                (Verdict::Drop { rule }, _) => (rule, Decision::Drop),
                (Verdict::Queue { queue, spill, key: 0, rule }, Decision::Random { first, last, .. })
                    if (*first..=*last).contains(&queue) =>
                {
                    (rule, Decision::Random { first: *first, last: *last, spill: spill.is_some() })
                }
                (Verdict::Queue { queue, spill, key, rule }, _) => {
                    (rule, Decision::Queue { queue, key, spill })
                }
            };
            prop_assert_eq!((usize::from(got), have), (rule, expected), "{} on {:?}", text, s);
        }
        // The canonical text means the same: it parses to the same text again.
        let canonical: Vec<String> = set.describe().into_iter().map(|d| d.1).collect();
        let again =
            RuleSet::compile(&canonical[..tree.len()].join("\n"), queues).expect("canonical text compiles");
        let again: Vec<String> = again.describe().into_iter().map(|d| d.1).collect();
        prop_assert_eq!(canonical, again);
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
    let (compiled, refused) = (compiled.get(), refused.get());
    assert!(
        compiled > refused,
        "the generator makes too many wrong rules: {refused} of {}",
        compiled + refused
    );
}
