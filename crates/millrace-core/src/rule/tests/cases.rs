//! One line for every field, operator and action, and for short datagrams on every path.

use super::*;
use std::net::Ipv6Addr;

/// Does `condition` hold for this payload?
#[track_caller]
fn holds(condition: &str, facts: &Facts<'_>) -> bool {
    let text = format!("yes: {condition} => queue(8)");
    let set = match RuleSet::compile(&text, 9) {
        Ok(set) => set,
        // It holds for no datagram at all, and the checker saw it.
        Err(e) if e.message.contains("rule `yes` can never match") => return false,
        Err(e) => panic!("{text}\n{}", e.message),
    };
    match set.evaluate(facts, &mut set.state(0)) {
        Verdict::Queue { queue: 8, rule: 0, .. } => true,
        Verdict::Queue { rule: 1, .. } => false,
        other => panic!("{condition}: {other:?}"),
    }
}

/// 00 01 02 … 0f
fn ramp() -> Vec<u8> {
    (0..16).collect()
}

#[test]
fn conditions_that_hold() {
    for condition in [
        "u8[0] == 0",
        "u8[15] == 15",
        "u16[1] == 0x0102",
        "u32[4] == 0x04050607",
        "u64[8] == 0x08090a0b0c0d0e0f",
        "u16le[1] == 0x0201",
        "u32le[4] == 0x07060504",
        "u64le[8] == 0x0f0e0d0c0b0a0908",
        "u8[1 + 2] == 3",
        "u8[0b11] == 0o3",
        "u16[0] == 1_0 / 10",
        "len == 16",
        "sport == 5000 and dport == 6000",
        "rxq == 3 and cpu == 5",
        "bytes[0..4] == x\"00010203\"",
        "x'00 01 02' == bytes[0..3]",
        "bytes[0..3] != \"abc\"",
        "bytes[9..14] == '\\t\\n\\x0b\\x0c\\r'",
        "bytes[0..3] in {'abc', x'000102'}",
        "bytes[0..2] in {'ab', x'0001', 'cd'}",
        "bytes[0..3] not in {'abc', 'def'}",
        // arithmetic
        "u8[2] + u8[3] == 5",
        "u8[2] - u8[3] == 0xffff_ffff_ffff_ffff",
        "u8[2] * u8[3] * 2 == 12",
        "u64[8] * u64[8] == 0x08090a0b0c0d0e0f * 0x08090a0b0c0d0e0f",
        "u8[7] / u8[2] == 3",
        "u8[7] % u8[4] == 3",
        "u8[7] & 6 == 6",
        "u8[4] | u8[3] == 7",
        "u8[5] ^ u8[6] == 3",
        "u8[1] << 8 == 0x100",
        "u8[1] << u8[8] == 256",
        "u8[1] << (u8[1] * 64) == 0",
        "u8[1] << 63 >> 63 == 1",
        "u64[8] >> 64 == 0",
        "u64[8] >> 0xffff_ffff_ffff == 0",
        "1 + 2 * u8[3] == 7",
        "(1 + 2) * u8[3] == 9",
        "10 - u8[3] - u8[2] == 5",
        "10 - (u8[3] - u8[2]) == 9",
        "u8[3] + (u8[4] * (u8[5] + (u8[6] ^ u8[1]))) == 51",
        "u8[1] | u8[2] ^ u8[3] & u8[6] << 1 == 1 | 2 ^ 3 & 6 << 1",
        // comparisons
        "u8[3] != 4",
        "u8[3] < 4",
        "u8[3] <= 3",
        "u8[3] > 2",
        "u8[3] >= 3",
        "3 == u8[3]",
        "4 != u8[3]",
        "2 < u8[3]",
        "3 <= u8[3]",
        "4 > u8[3]",
        "3 >= u8[3]",
        "u8[3] < u8[4]",
        "u8[3] <= u8[3]",
        "u8[4] > u8[3]",
        "u8[4] >= u8[3]",
        "u8[4] != u8[3]",
        "u8[3] + 1 == u8[4]",
        "u8[0] >= 0",
        "u8[0] <= 255",
        "u64[0] >= 0",
        "u64[0] <= 0xffff_ffff_ffff_ffff",
        // sets, ranges, prefixes
        "u8[3] in 3..5",
        "u8[5] in 3..5",
        "u8[6] not in 3..5",
        "u8[3] in {1, 3, 7..9}",
        "u8[8] in {1, 3, 7..9,}",
        "not u8[6] in {1, 3, 7..9}",
        "u8[3] in 3",
        "u8[3] + 1 in {4}",
        "src == 10.1.2.3",
        "10.1.2.3 == src",
        "src != 10.1.2.4",
        "src != dst",
        "src in 10.0.0.0/8",
        "src in 10.1.2.3",
        "src in 10.1.2.3/32",
        "src in 0.0.0.0/0",
        "src in ::/0",
        "src in ::ffff:0:0/96",
        "src in ::ffff:10.1.2.3",
        "dst in {10.0.0.0/8, 192.0.2.0/24, 2001:db8::/32}",
        "dst not in {10.0.0.0/8, 192.0.3.0/24}",
        "src not in 2001:db8::/32",
        // logic
        "u8[0] == 0 and u8[1] == 1",
        "u8[0] == 1 or u8[1] == 1",
        "not u8[0] == 1",
        "not not u8[0] == 0",
        "not (u8[0] == 1 or u8[1] == 2)",
        "not (u8[0] == 0 and u8[1] == 2)",
        "u8[0] == 1 and u8[1] == 1 or u8[2] == 2",
        "u8[0] == 0 and (u8[1] == 9 or u8[2] == 2)",
        "(u8[0] == 0 or u8[99] == 1) and not (u8[1] == 0 and u8[99] == 1)",
        "1 == 1 and u8[0] == 0",
        "1 == 2 or u8[0] == 0",
        "len >= 100 and u8[99] == 0 or len == 16",
        "len < 100 or u8[99] == 0",
    ] {
        assert!(holds(condition, &facts(&ramp())), "{condition}");
    }
}

#[test]
fn conditions_that_do_not_hold() {
    for condition in [
        "u8[0] == 1",
        "u8[0] != 0",
        "u8[0] > 0",
        "u8[3] in 4..5",
        "u8[3] in {1, 2, 4}",
        "u8[3] not in {1, 3}",
        "bytes[0..4] == 'TEST'",
        "bytes[0..3] == 'abc'",
        "bytes[0..3] in {'abc', 'def'}",
        "src == dst",
        "src in 11.0.0.0/8",
        "src in 2001:db8::/32",
        "u8[0] == 0 and u8[1] == 2",
        "u8[0] == 1 or u8[1] == 2",
        "not (u8[0] == 0 or u8[99] == 1)",
        // a divisor of zero makes the rule not match, whatever stands around it
        "8 / u8[0] == 1",
        "8 % u8[0] != 1",
        "not 8 / u8[0] == 1",
        "8 / (u8[1] - 1) == 1 or len == 16",
    ] {
        assert!(!holds(condition, &facts(&ramp())), "{condition}");
    }
}

/// Sixteen bytes are too short for each of these, and nothing around the read turns that into a match.
#[test]
fn short_datagrams_do_not_match() {
    for read in [
        "u8[16] == 0",
        "u16[15] == 0",
        "u32[13] == 0",
        "u64[9] == 0",
        "u16le[15] == 0",
        "u32le[13] == 0",
        "u64le[9] == 0",
        "u8[65526] == 0",
        "bytes[14..17] == 'abc'",
        "bytes[13..17] == 'abcd'",
        "bytes[16..17] in {'a', 'b'}",
        "u8[16] in {1, 3}",
        "u8[16] in 0..255",
        "u8[16] >= 0",
        "u8[16] < u8[0]",
        "u8[0] < u8[16]",
        "u8[16] + 1 == 1",
        "1 + u8[16] == 1",
        "u8[16] * 0 == 0",
        "1 + (2 * (u8[16] + 1)) == 1",
    ] {
        for condition in [
            read.to_owned(),
            format!("not {read}"),
            format!("not not ({read})"),
            format!("{read} or len == 16"),
            format!("not ({read}) or len == 16"),
            format!("{read} or not {read}"),
            format!("len == 16 and {read}"),
            format!("not (len == 16 and {read})"),
            format!("not (len == 1 or {read})"),
            format!("({read} and 1 == 2) or len == 16"),
        ] {
            assert!(!holds(&condition, &facts(&ramp())), "{condition}");
        }
        // What is not evaluated does not matter.
        for condition in [
            format!("len == 16 or {read}"),
            format!("not (len == 1 and {read})"),
            format!("len != 16 and {read} or len == 16"),
        ] {
            assert!(holds(&condition, &facts(&ramp())), "{condition}");
        }
    }
}

#[test]
fn short_keys_do_not_match() {
    for key in [
        "mod(u32[13])",
        "mod(u8[0] + u8[16])",
        "hash(u8[16])",
        "hash(src, bytes[12..17])",
        "hash(u8[0] / u8[16])",
    ] {
        for condition in ["else", "len >= 16"] {
            let set = compile(&format!("a: {condition} => {key}; b: else => queue(3)"), 4);
            let verdict = set.evaluate(&facts(&ramp()), &mut set.state(0));
            assert_eq!(verdict, Verdict::Queue { queue: 3, spill: None, key: 0, rule: 1 }, "{key}");
        }
    }
}

#[test]
fn empty_datagrams_reach_default() {
    let set = compile("u8[0] == 1 => drop; mod(u32[0])", 4);
    assert_eq!(set.names(), ["rule1", "rule2", "default"]);
    let verdict = set.evaluate(&facts(&[]), &mut set.state(0));
    assert!(matches!(verdict, Verdict::Queue { rule: 2, .. }), "{verdict:?}");
}

#[test]
fn every_action() {
    let first = |text: &str| {
        let set = compile(text, 8);
        set.evaluate(&facts(&ramp()), &mut set.state(0))
    };
    let queue = |queue, spill, key| Verdict::Queue { queue, spill, key, rule: 0 };
    assert_eq!(first("queue(5)"), queue(5, None, 0));
    assert_eq!(first("queue(2 + 3)"), queue(5, None, 0));
    assert_eq!(first("queue(5) spill"), queue(5, Some((0, 7)), 0));
    assert_eq!(first("queue(5) on 4..6 spill"), queue(5, Some((4, 6)), 0));
    assert_eq!(first("mod(u32[4])"), queue((0x0405_0607 % 8) as u16, None, 0x0405_0607));
    assert_eq!(first("mod(u64[8]) on 2..4"), {
        let n = 0x0809_0a0b_0c0d_0e0fu64;
        queue(2 + (n % 3) as u16, None, n as u32)
    });
    assert_eq!(first("mod(u8[6] * 2 + 1) spill"), queue(5, Some((0, 7)), 13));
    assert_eq!(first("cpu"), queue(5, None, 0));
    assert_eq!(first("cpu on 1..2"), queue(2, None, 0));
    assert_eq!(first("rxq"), queue(3, None, 0));
    assert_eq!(first("rxq on 0..1 spill"), queue(1, Some((0, 1)), 0));
    assert_eq!(first("drop"), Verdict::Drop { rule: 0 });
    for key in ["flow", "src", "src, dst", "u8[0]", "bytes[0..5]", "u16[3] ^ 7", "u64[1], flow, cpu"] {
        let Verdict::Queue { queue, key: h, .. } = first(&format!("hash({key})")) else { panic!() };
        assert_eq!(u32::from(queue), h % 8, "{key}");
    }
}

#[test]
fn hash_covers_its_key_only() {
    let key = |text: &str, f: &Facts<'_>| {
        let set = compile(text, 8);
        match set.evaluate(f, &mut set.state(0)) {
            Verdict::Queue { key, .. } => key,
            other => panic!("{other:?}"),
        }
    };
    let (a, b) = (ramp(), vec![9; 16]);
    let mut far = facts(&a);
    far.src_port += 1;
    assert_eq!(key("hash(flow)", &facts(&a)), key("hash(flow)", &facts(&b)));
    assert_ne!(key("hash(flow)", &facts(&a)), key("hash(flow)", &far));
    assert_ne!(key("hash(u8[0])", &facts(&a)), key("hash(u8[0])", &facts(&b)));
    assert_eq!(key("hash(src, dst)", &facts(&a)), key("hash(src, dst)", &far));
}

#[test]
fn round_robin_takes_turns() {
    let set = compile("len > 3 => round_robin on 1..3; else => round_robin", 5);
    let turns = |thread| {
        let mut state = set.state(thread);
        let mut take = |payload: &[u8]| match set.evaluate(&facts(payload), &mut state) {
            Verdict::Queue { queue, .. } => queue,
            other => panic!("{other:?}"),
        };
        let long: Vec<u16> = (0..4).map(|_| take(&[0; 9])).collect();
        let short: Vec<u16> = (0..6).map(|_| take(&[])).collect();
        (long, short)
    };
    assert_eq!(turns(0), (vec![1, 2, 3, 1], vec![0, 1, 2, 3, 4, 0]));
    assert_eq!(turns(1), (vec![2, 3, 1, 2], vec![1, 2, 3, 4, 0, 1]));
    assert_eq!(turns(7), (vec![2, 3, 1, 2], vec![2, 3, 4, 0, 1, 2]));
}

#[test]
fn sample_keeps_one_in_n_for_the_rules_behind_it() {
    let set = compile("s: sample(3); queue(1)", 2);
    assert_eq!(set.names(), ["s", "rule2"]);
    let mut state = set.state(0);
    let kept: Vec<bool> = (0..7)
        .map(|_| match set.evaluate(&facts(&[]), &mut state) {
            Verdict::Queue { queue: 1, rule: 1, .. } => true,
            Verdict::Drop { rule: 0 } => false,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kept, [true, false, false, true, false, false, true]);
    // Only what matches is counted.
    let set = compile("len > 0 => sample(2); queue(1)", 2);
    let mut state = set.state(0);
    let mut dropped = |p: &[u8]| matches!(set.evaluate(&facts(p), &mut state), Verdict::Drop { .. });
    assert_eq!(
        [dropped(&[1]), dropped(&[]), dropped(&[1]), dropped(&[]), dropped(&[1])],
        [false, false, true, false, false]
    );
}

#[test]
fn random_is_even_and_can_be_repeated() {
    let set = compile("random on 1..4", 5);
    let run = |thread, seed| {
        let mut state = set.state_seeded(thread, seed);
        (0..4000)
            .map(|_| match set.evaluate(&facts(&[]), &mut state) {
                Verdict::Queue { queue, key: 0, .. } => queue,
                other => panic!("{other:?}"),
            })
            .collect::<Vec<u16>>()
    };
    assert_eq!(run(0, 1), run(0, 1));
    assert_ne!(run(0, 1), run(1, 1));
    for queue in 1..=4 {
        let n = run(0, 7).iter().filter(|q| **q == queue).count();
        assert!((850..1150).contains(&n), "queue {queue}: {n}");
    }
}

#[test]
fn foreign_state_does_no_harm() {
    let other = compile("queue(0)", 1).state(0);
    let set = compile("len == 1 => sample(3); round_robin", 4);
    let mut state = other;
    for payload in [&[][..], &[1]] {
        let verdict = set.evaluate(&facts(payload), &mut state);
        assert_eq!(verdict, Verdict::Queue { queue: 0, spill: None, key: 0, rule: 1 });
    }
}

#[test]
fn first_match_wins() {
    let set = compile("a: u8[0] == 1 => queue(1)\nb: u8[0] < 3 => queue(2)\nc: u8[0] < 9 => queue(3)", 4);
    let rule = |b: u8| match set.evaluate(&facts(&[b]), &mut set.state(0)) {
        Verdict::Queue { rule, .. } => rule,
        other => panic!("{other:?}"),
    };
    assert_eq!([rule(1), rule(0), rule(2), rule(3), rule(9)], [0, 1, 1, 2, 3]);
}

#[test]
fn layout_is_free() {
    let set = compile(
        "\r\n# comment\n\n; ;one:\n  u8[0] == 1 # here\n  and u8[1] == 2\n  or len ==\n 3\n  => # and here\n  queue(1);two: (\n len\n ==\n 4 ) => hash(\n src,\n dst ) ; cpu\n",
        2,
    );
    assert_eq!(
        set.describe(),
        [
            ("one".to_owned(), "u8[0] == 1 and u8[1] == 2 or len == 3 => queue(1)".to_owned()),
            ("two".to_owned(), "len == 4 => hash(src, dst)".to_owned()),
            ("rule3".to_owned(), "else => cpu".to_owned()),
        ]
    );
    assert_eq!(set.len(), 3);
}

#[test]
fn cpu_and_rxq_are_fields_and_actions() {
    let set = compile("cpu == 5\n => cpu spill on 1..2; rxq in {1} => rxq; rxq spill", 4);
    assert_eq!(
        set.describe().into_iter().map(|d| d.1).collect::<Vec<_>>(),
        ["cpu == 5 => cpu on 1..2 spill", "rxq in {1} => rxq", "else => rxq spill"]
    );
}

#[test]
fn words_are_free_for_names() {
    let set = compile(
        "drop: len == 1 => drop; or: len == 2 => drop\nin: len == 3 => drop; bead: ::1 == src => drop",
        1,
    );
    assert_eq!(set.names(), ["drop", "or", "in", "bead", "default"]);
    assert_eq!(compile("default: drop", 1).names(), ["default"]);
    assert_eq!(compile("hash: hash(flow)", 1).names(), ["hash"]);
}

#[test]
fn canonical_text_keeps_the_meaning() {
    for (text, canonical) in [
        ("((u8[0])) == (1) => drop", "u8[0] == 1 => drop"),
        (
            "not (len == 1 and (len == 2 or len == 3)) => drop",
            "not (len == 1 and (len == 2 or len == 3)) => drop",
        ),
        ("(u8[0] + 1) * 2 - (3 - u8[1]) == 1 => drop", "(u8[0] + 1) * 2 - (3 - u8[1]) == 1 => drop"),
        ("u8[0] not in {1,0x10} => drop", "not u8[0] in {1, 16} => drop"),
        ("bytes[0..3] == 'a\"b' => drop", "bytes[0..3] == \"a\\\"b\" => drop"),
        ("bytes[0..2] == '\\r\\n' => drop", "bytes[0..2] == x\"0d0a\" => drop"),
        ("src in {::1,10.0.0.0/8} => drop", "src in {::1, 10.0.0.0/8} => drop"),
        ("mod ( u8[0]<<2|1 ) on 0..0 spill", "else => mod(u8[0] << 2 | 1) on 0..0 spill"),
    ] {
        assert_eq!(compile(text, 1).describe()[0].1, canonical);
        assert_eq!(compile(canonical, 1).describe()[0].1, canonical);
    }
}

#[test]
fn a_set_that_drops_everything_warns() {
    assert_eq!(compile("len > 3 => drop; drop", 1).warnings(), ["these rules drop every datagram"]);
    for text in
        ["len > 3 => drop; len <= 3 => drop", "u8[0] < 9 => drop; len == 0 => drop; u8[0] >= 9 => drop"]
    {
        assert_eq!(compile(text, 1).warnings(), ["these rules drop every datagram"], "{text}");
    }
    assert!(compile("len > 3 => drop", 1).warnings().is_empty());
    assert!(compile("len > 3 => drop; len < 3 => drop", 1).warnings().is_empty());
}

#[test]
fn queue_counts() {
    for queues in [1, 2, 3, 5, 7, 8, 64, 1000, 65535] {
        let set = compile("mod(u64[0])", queues);
        let low = compile("mod(u32[4])", queues);
        for n in
            [0, 1, 2, 63, 64, 65534, 65535, 65536, 0xffff_fffe, 0xffff_ffff, 1 << 32, u64::MAX - 1, u64::MAX]
        {
            let Verdict::Queue { queue, .. } = set.evaluate(&facts(&n.to_be_bytes()), &mut set.state(0))
            else {
                panic!()
            };
            assert_eq!(u64::from(queue), n % u64::from(queues), "{n} % {queues}");
            let verdict = low.evaluate(&facts(&n.to_be_bytes()), &mut low.state(0));
            let (key, queue) = (n as u32, (u64::from(n as u32) % u64::from(queues)) as u16);
            assert_eq!(verdict, Verdict::Queue { queue, spill: None, key, rule: 0 });
        }
    }
    assert!(errors("queue(0)", 0).contains("no queues"));
}

#[test]
fn ipv6_addresses() {
    let mut f = facts(&[]);
    f.src = "2001:db8:1::42".parse::<Ipv6Addr>().unwrap().octets();
    f.dst = f.src;
    for condition in [
        "src == 2001:db8:1::42",
        "src in 2001:db8::/32",
        "src in {::1, 2001:db8:1::/48}",
        "src == dst",
        "src in ::/0",
    ] {
        assert!(holds(condition, &f), "{condition}");
    }
    for condition in
        ["src in 0.0.0.0/0", "src in 2001:db8:2::/48", "src == ::1", "src != dst", "dst in fe80::/10"]
    {
        assert!(!holds(condition, &f), "{condition}");
    }
}

#[test]
fn chains_of_tests_become_one_search() {
    let text: String = (0..300).map(|i| format!("u16[0] == {} => queue({})\n", i * 7, i % 8)).collect();
    let set = compile(&text, 8);
    assert!(matches!(set.program().nodes[0], program::Node::Switch { .. }));
    for n in 0..2200u16 {
        let rule = match set.evaluate(&facts(&n.to_be_bytes()), &mut set.state(0)) {
            Verdict::Queue { rule, .. } => rule,
            other => panic!("{other:?}"),
        };
        assert_eq!(rule, if n % 7 == 0 && n < 2100 { n / 7 } else { 300 }, "{n}");
    }
    let short = set.evaluate(&facts(&[0]), &mut set.state(0));
    assert!(matches!(short, Verdict::Queue { rule: 300, .. }), "{short:?}");
}
