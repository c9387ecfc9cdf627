//! Rules that can never match: what the checker says is true, and where it should find one it does.

use super::super::diagnostics::Diagnostics;
use super::reference::{Memory, decide};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Rules that the checker says can never match, by index. They are called `rule1`, `rule2`, …
fn flagged(text: &str) -> BTreeSet<usize> {
    let Err(e) = RuleSet::compile(text, 8) else { return BTreeSet::new() };
    let said = |line: &str| {
        let (_, rest) = line.split_once(": rule `rule")?;
        let (number, rest) = rest.split_once('`')?;
        rest.starts_with(" can never match").then(|| number.parse::<usize>().unwrap() - 1)
    };
    e.message.lines().filter_map(said).collect()
}

#[track_caller]
fn never(text: &str, because: &str) {
    let message = errors(text, 8);
    assert!(message.starts_with("1 error in"), "{message}");
    assert!(message.contains("can never match") && message.contains(because), "{message}");
}

#[test]
fn hidden_by_one_rule() {
    let one = "rule `rule1` (line 1) takes all that it could";
    for (first, second) in [
        ("u8[0] in 1..9", "u8[0] == 3"),
        ("u8[0] in 1..9", "u8[0] in {2, 5..9}"),
        ("u8[0] != 4", "u8[0] > 4"),
        ("u8[0] > 3", "u16[8] == 1 and u8[0] == 4"),
        ("u8[0] >= 0", "u32[0] == 7"),
        ("len >= 4", "u32[0] == 1"),
        ("len < 100", "len == 3 and src == 10.1.1.1"),
        ("src in 10.0.0.0/8", "src == 10.1.1.1"),
        ("src in {10.0.0.0/8, ::/64}", "src in {10.2.0.0/16, ::1}"),
        ("sport < 1024", "sport == 53 and u8[0] == 1"),
        ("bytes[0..4] == 'TEST'", "u32[0] == 0x54455354"),
        ("bytes[0..3] in {'abc', 'abd'}", "bytes[0..3] == 'abd'"),
        ("u8[0] == 1 or u8[0] == 2", "u8[0] == 2"),
        ("u8[0] == 1 and len < 20", "len == 10 and u8[0] == 1"),
        ("not (u8[0] == 1 and u8[1] == 2)", "u8[0] == 3 and u8[1] == 1"),
        ("u8[0] in 1..9 and u16[4] < 10", "u8[0] == 2 and u16[4] == 4 and u8[9] == 1"),
        ("u8[0] & 15 < 3", "u8[0] & 15 == 2 and len > 3"),
        ("src == dst", "src == dst and len > 3"),
        ("u8[0] < u8[1]", "len > 7 and u8[0] < u8[1]"),
    ] {
        never(&format!("{first} => queue(0)\n{second} => queue(1)"), one);
    }
    // The action counts too: what has the key does not come by.
    never("u8[0] == 1 => mod(u32[0])\nu8[0] == 1 and len > 8 => queue(1)", one);
    never("mod(u32[0])\nu32[0] == 1 => queue(1)", one);
    never("hash(bytes[2..8], src)\nu8[0] == 1 => mod(u64[0])", one);
    never("len > 3 => drop\nlen > 7 => sample(2)", one);
}

#[test]
fn hidden_by_several_together() {
    let all = "rules `rule1` (line 1) and `rule2` (line 2) together take all that it could";
    for (first, second, third) in [
        ("u8[0] < 5", "u8[0] >= 5", "u8[0] == 7 or u8[0] == 2"),
        ("u8[0] < 5", "u8[0] >= 5", "u16[0] == 7"),
        ("u8[0] in 0..7", "u8[0] in 8..9", "u8[0] in 5..9"),
        ("len < 8", "len > 7", "src == dst"),
        ("src in 10.0.0.0/9", "src in 10.128.0.0/9", "src in 10.0.0.0/8"),
        ("sport < 1000", "sport >= 1000", "dport == 1"),
        (
            "u8[0] == 1 and u8[1] == 1",
            "u8[0] == 2",
            "u8[0] in 1..2 and u8[1] == 1 and u8[0] != 2 or u8[0] == 2",
        ),
    ] {
        never(&format!("{first} => drop\n{second} => queue(0)\n{third} => queue(1)"), all);
    }
    never("len < 8 => drop\nlen > 7 => queue(0)\nelse => queue(1)", all);
    let many: String = (0..256).map(|i| format!("u8[0] == {i} => queue({})\n", i % 8)).collect();
    never(&(many + "len > 0 => drop"), "(line 1), `rule2` (line 2), `rule3` (line 3) and 253 more together");
}

#[test]
fn contradictions() {
    for condition in [
        "u8[0] == 1 and u8[0] == 2",
        "u8[0] > 4 and u8[0] < 3",
        "len < 4 and u32[0] == 1",
        "len == 3 and not u32[0] == 1",
        "not (len > 3 or u32[0] == 1)",
        "src in 10.0.0.0/8 and src == 192.0.2.1",
        "bytes[0..3] == 'abc' and bytes[0..3] == 'abd'",
        "bytes[0..20] == 'aaaaaaaaaaaaaaaaaaaa' and bytes[0..20] != 'aaaaaaaaaaaaaaaaaaaa'",
        "u16[0] in 1..5 and u16[0] not in 0..9",
        "u8[0] >= 0 and len == 0",
        "src == dst and src != dst",
        "u8[0] & 1 == 0 and u8[0] & 1 == 1",
        "not u8[5] >= 0",
    ] {
        never(&format!("{condition} => drop"), "no datagram meets all of this");
    }
    never("len < 4 => mod(u32[0])", "no datagram that meets this has the 4 bytes that the key needs");
}

/// Rules that resemble those above, and can match.
#[test]
fn no_alarm() {
    for text in [
        // The first needs more bytes than the second.
        "u32[0] > 0 => drop\nu8[0] == 1 => queue(0)",
        "u8[0] in 1..9 and u8[9] >= 0 => drop\nu8[0] == 3 => queue(0)",
        "u8[0] == 1 => mod(u32[0])\nu8[0] == 1 and u8[1] == 2 => queue(1)",
        // `or` that reads beyond first.
        "u8[9] == 1 or u8[0] == 1 => drop\nu8[0] == 1 => queue(1)",
        "u8[0] in 1..9 => drop\nu8[0] in 9..10 => queue(0)",
        "u8[0] in 1..9 => sample(2)\nu8[0] == 3 => queue(0)",
        "len > 3 and u8[0] / u8[1] == 1 => drop\nlen > 3 => queue(0)",
        "u8[0] / u8[1] >= 0 => drop\nlen > 1 => queue(0)",
        "len > 1 => mod(u8[0] / u8[1])\nlen > 1 => queue(0)",
        "src in 10.0.0.0/8 => drop\ndst in 10.0.0.0/8 => queue(0)",
        "u16[0] == 1 => drop\nu16le[0] == 1 => queue(0)",
        "u8[0] < 5 => drop\nu8[0] > 5 => queue(0)\nu8[0] == 5 => queue(1)",
        "u8[0] >= 0 => drop\nelse => queue(0)",
        "src == dst => drop\nsrc != dst and len > 3 => queue(0)",
    ] {
        compile(text, 8);
    }
}

fn test() -> impl Strategy<Value = String> {
    let set = || {
        prop_oneof![
            (0u8..8).prop_map(|n| format!("== {n}")),
            (0u8..8).prop_map(|n| format!("!= {n}")),
            (1u8..8).prop_map(|n| format!("< {n}")),
            (0u8..8).prop_map(|n| format!(">= {n}")),
            (0u8..8, 0u8..4).prop_map(|(a, n)| format!("in {a}..{}", a + n)),
            (0u8..4, 4u8..8).prop_map(|(a, b)| format!("not in {{{a}, {b}}}")),
        ]
    };
    let field = prop_oneof![
        4 => Just("u8[0]".to_owned()),
        2 => (1u8..5).prop_map(|at| format!("u8[{at}]")),
        2 => Just("len".to_owned()),
        1 => (0u8..5, prop_oneof!["u16", "u32", "u16le"]).prop_map(|(at, w)| format!("{w}[{at}]")),
        1 => prop_oneof!["sport", "rxq"],
        1 => prop_oneof![Just("u8[0] & 3"), Just("u8[1] + u8[2]"), Just("u8[0] / u8[1]"), Just("len - 1")]
            .prop_map(str::to_owned),
    ];
    prop_oneof![
        8 => (field, set()).prop_map(|(f, s)| format!("{f} {s}")),
        1 => prop_oneof!["src", "dst"].prop_flat_map(|w| prop_oneof![
            Just("== 10.1.1.1"), Just("in 10.0.0.0/8"), Just("in {10.0.0.0/9, ::1}"), Just("!= 10.1.1.1"), Just("in ::/1"),
        ].prop_map(move |s| format!("{w} {s}"))),
        1 => prop_oneof![
            Just("bytes[0..3] in {x'000000', x'000001'}"), Just("bytes[1..3] == x'0001'"), Just("src == dst"),
            Just("u8[0] < u8[1]"), Just("bytes[0..17] != x'0000000000000000000000000000000000'"), Just("1 == 1"),
        ].prop_map(str::to_owned),
    ]
}

fn rules() -> impl Strategy<Value = String> {
    let condition = test().prop_recursive(3, 6, 3, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 2..4).prop_map(|c| format!("({})", c.join(" and "))),
            2 => prop::collection::vec(inner.clone(), 2..4).prop_map(|c| format!("({})", c.join(" or "))),
            1 => inner.prop_map(|c| format!("not ({c})")),
        ]
    });
    let action = prop_oneof![
        4 => Just("queue(0)"), 1 => Just("mod(u8[1])"), 1 => Just("hash(u32[0], src)"), 1 => Just("sample(2)"),
        1 => Just("mod(u8[2] / u8[0])"),
    ];
    prop::collection::vec((condition, action).prop_map(|(c, a)| format!("{c} => {a}")), 1..6)
        .prop_map(|rules| rules.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    /// There is no false alarm: no datagram matches a rule of which the analysis says that it never matches.
    #[test]
    fn what_is_said_never_to_match_never_does(text in rules(), seed in any::<u64>()) {
        let flagged = flagged(&text);
        if flagged.is_empty() {
            return Ok(());
        }
        let tree = parse::parse(&text, &mut Diagnostics::default());
        let mut memory = Memory::default();
        let mut state = seed;
        let mut draw = |from: &[u8]| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            from[(state >> 33) as usize % from.len()]
        };
        for _ in 0..200 {
            let len = draw(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 18]);
            let payload: Vec<u8> = (0..len).map(|_| draw(&[0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 255])).collect();
            let mut addr = || v4([draw(&[9, 10, 11, 130]), draw(&[0, 1, 128]), 1, 1]);
            let f = Facts { src: addr(), dst: addr(), ..facts(&payload) };
            let f = Facts { src_port: draw(&[0, 1, 3, 7, 8, 200]).into(), rx_queue: draw(&[0, 1, 2, 4, 7, 9]).into(), ..f };
            let (rule, _) = decide(&tree, 8, &f, &mut memory);
            prop_assert!(!flagged.contains(&rule), "rule {} of\n{text}\ntakes {payload:?}, {f:?}", rule + 1);
        }
    }

    /// On one field nothing is missed either.
    #[test]
    fn on_one_field_it_says_exactly_what_is_true(
        rules in prop::collection::vec((0u8..40, 1u8..40, 0u8..3), 2..12),
    ) {
        let rules: Vec<String> = rules
            .into_iter()
            .map(|(low, n, kind)| match kind {
                0 => format!("u8[0] in {{{low}..{}, 250}} => queue(0)", low + n),
                1 => format!("u8[0] < {} => mod(u8[0])", low + 1),
                _ => format!("u8[0] == {low} or u8[0] == {} => drop", low + n),
            })
            .collect();
        let text = rules.join("\n");
        let tree = parse::parse(&text, &mut Diagnostics::default());
        let reached: BTreeSet<usize> =
            (0..=255).map(|b| decide(&tree, 8, &facts(&[b]), &mut Memory::default()).0).collect();
        let never: BTreeSet<usize> = (0..rules.len()).filter(|rule| !reached.contains(rule)).collect();
        prop_assert_eq!(flagged(&text), never, "{}", text);
    }
}

/// The checks above see enough of both: sets with and without such rules.
#[test]
fn the_generator_makes_both() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut some = 0;
    for _ in 0..300 {
        let text = proptest::strategy::ValueTree::current(&rules().new_tree(&mut runner).unwrap());
        some += usize::from(!flagged(&text).is_empty());
    }
    assert!((60..240).contains(&some), "{some} of 300 sets have a rule that can never match");
}

/// Compiling stays bounded where every rule has several fields, or many alternatives: eight times the rules take at most
/// 24 times the CPU time. Where it is proportional to the rules, or to n log n, that is 8 to 11 times; where each rule were
/// compared with each other one, 64 times.
#[test]
fn many_rules_of_many_fields() {
    const MANY: usize = 10_000;
    let set = |n: usize, f: &dyn Fn(usize) -> String| (0..n).map(f).collect::<Vec<_>>().join("\n");
    let two = |n: usize| {
        set(n, &|i| format!("u16[0] == {} and u8[2] == {} and sport > 9 => queue(0)", i % 4096, i / 4096))
    };
    let or = |n: usize| {
        set(n, &|i| format!("u16[0] == {i} and (u8[2] == 1 or u8[3] == 2 or u8[4] == 3) => queue(0)"))
    };
    let sets = |n: usize| {
        set(n, &|i| format!("u32[0] in {{{i}, {}, {}}} or len == {i} => queue(0)", i + 20_000, i + 40_000))
    };
    let hidden = |n: usize| set(n, &|i| format!("u32[0] == {} => queue({})", i / 2, i % 8));
    let ands = |n: usize| {
        let tests: Vec<_> = (0..n).map(|i| format!("u32[0] != {i}")).collect();
        format!("{} => queue(0)", tests.join(" and "))
    };
    let ors = |n: usize| {
        let tests: Vec<_> = (0..n).map(|i| format!("u32[{i}] == {i}")).collect();
        format!("{} => queue(0)", tests.join(" or "))
    };
    type Text<'a> = &'a dyn Fn(usize) -> String;
    let texts: [(&str, Text<'_>, std::result::Result<usize, &str>); 6] = [
        ("two fields", &two, Ok(MANY + 1)),
        ("or", &or, Ok(MANY + 1)),
        ("sets", &sets, Ok(MANY + 1)),
        ("hidden", &hidden, Err("5000 errors")),
        ("one rule with many tests, and", &ands, Ok(2)),
        ("one rule with many tests, or", &ors, Ok(2)),
    ];
    for (name, text, expected) in texts {
        let timed = |n: usize| {
            let text = text(n);
            let start = cpu_time();
            let result = RuleSet::compile(&text, 8);
            (result, cpu_time() - start)
        };
        let ((_, few), (result, many)) = (timed(MANY / 8), timed(MANY));
        match (result, expected) {
            (Ok(set), Ok(rules)) => assert_eq!(set.len(), rules, "{name}"),
            (Err(e), Err(start)) => assert!(e.message.starts_with(start), "{name}: {}", e.message),
            (Ok(_), Err(_)) => panic!("{name}: compiles, but should not"),
            (Err(e), Ok(_)) => panic!("{name}: {}", e.message),
        }
        assert!(many < 24 * few, "{name}: {few:?} for an eighth of the rules, {many:?} for all");
    }
}
