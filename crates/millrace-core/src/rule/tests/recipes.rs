//! `docs/rules.md` is executed: every rule set in it compiles, its hash vectors hold, and its recipes decide as they
//! say. `MILLRACE_BLESS=1 cargo test` writes the results anew; read the difference before you commit it.

use super::*;

const DOC: &str = include_str!("../../../../../docs/rules.md");

/// The blocks of the page fenced as `kind`.
fn blocks(kind: &str) -> impl Iterator<Item = &'static str> {
    DOC.split(&format!("\n```{kind}\n"))
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect::<Vec<_>>()
        .into_iter()
}

fn outcome(set: &RuleSet, verdict: Verdict) -> String {
    let (rule, what) = match verdict {
        Verdict::Queue { queue, rule, .. } => (rule, format!("queue {queue}")),
        Verdict::Drop { rule } => (rule, "drop".to_owned()),
    };
    format!("{}: {what}", set.names()[usize::from(rule)])
}

/// The words of a line: hex digits, `name=value`, and text in double quotes with `\r` and `\n`.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match (c, words.last_mut()) {
            ('"', Some(word)) => {
                quoted = !quoted;
                word.push(c);
            }
            (' ', _) if !quoted => words.push(String::new()),
            (_, Some(word)) => word.push(c),
            (_, None) => unreachable!(),
        }
    }
    assert!(!quoted, "{line}");
    words.retain(|word| !word.is_empty());
    words
}

/// `[src=…] [sport=…] [dport=…] hex "text" …  -> …` without the part behind the arrow.
fn run(set: &RuleSet, state: &mut RuleState, line: &str) -> String {
    let mut payload = Vec::new();
    let mut f = facts(&[]);
    for word in words(line) {
        if let Some(text) = word.strip_prefix('"') {
            let text = text.strip_suffix('"').unwrap();
            payload.extend(text.replace("\\r", "\r").replace("\\n", "\n").bytes());
            continue;
        }
        match word.split_once('=') {
            Some(("src", addr)) => f.src = v4(addr.parse::<std::net::Ipv4Addr>().unwrap().octets()),
            Some(("sport", port)) => f.src_port = port.parse().unwrap(),
            Some(("dport", port)) => f.dst_port = port.parse().unwrap(),
            Some(_) => panic!("{line}"),
            None => payload
                .extend((0..word.len()).step_by(2).map(|i| u8::from_str_radix(&word[i..i + 2], 16).unwrap())),
        }
    }
    outcome(set, set.evaluate(&Facts { payload: &payload, ..f }, state))
}

fn bless(old: &str, new: &str) {
    if old == new {
        return;
    }
    assert!(std::env::var_os("MILLRACE_BLESS").is_some(), "docs/rules.md says\n{old}\nbut it is\n{new}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rules.md");
    let page = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, page.replace(old, new)).unwrap();
}

/// This is one function, so that no two tests write the page at the same time.
#[test]
fn the_page_holds() {
    for rules in blocks("rules") {
        compile(rules, 8);
    }
    let mut tried = 0;
    for recipe in DOC.split("\n### ").skip(1) {
        let part =
            |kind: &str| recipe.split(&format!("```{kind}\n")).nth(1).unwrap().split("```").next().unwrap();
        let set = compile(part("rules"), 8);
        let mut state = set.state(0);
        let mut rules_used = std::collections::BTreeSet::new();
        let old = part("try");
        let lines: Vec<&str> =
            old.lines().map(|line| line.split(" -> ").next().unwrap().trim_end()).collect();
        let width = lines.iter().map(|l| l.len()).max().unwrap();
        let new: String = lines
            .iter()
            .map(|line| {
                let decided = run(&set, &mut state, line);
                rules_used.insert(decided.split(':').next().unwrap().to_owned());
                format!("{line:width$} -> {decided}\n")
            })
            .collect();
        bless(old, &new);
        assert!(rules_used.len() > 1 || set.len() == 1, "{recipe}");
        tried += 1;
    }
    assert!(tried >= 12, "{tried} recipes");

    let ramp: Vec<u8> = (0..16).collect();
    for old in blocks("vectors") {
        let mut new = String::new();
        for line in old.lines() {
            let key = line.split(" = ").next().unwrap().trim_end();
            let set = compile(key, 8);
            match set.evaluate(&facts(&ramp), &mut set.state(0)) {
                Verdict::Queue { key: hash, .. } => new += &format!("{key:24} = 0x{hash:08x}\n"),
                other => panic!("{other:?}"),
            }
        }
        bless(old, &new);
    }
}

/// The vectors again, by the definition as written on the page.
#[test]
fn hash_vectors_by_hand() {
    use super::reference::hash_words;
    assert_eq!(hash_words(&[]), hash::finish(hash::SEED));
    assert_eq!(hash_words(&[0, 7]), hash::finish(hash::number(hash::SEED, 7)));
    assert_eq!(
        hash_words(&[0x0102_0304, 0x0500_0000]),
        hash::finish(hash::bytes(hash::SEED, &[1, 2, 3, 4, 5]))
    );
    let (src, dst) = (v4([10, 1, 2, 3]), v4([192, 0, 2, 1]));
    let flow = [0, 0, 0, 0, 0xffff, 0xffff, 0x0a01_0203, 0xc000_0201, 5000 << 16 | 6000];
    assert_eq!(hash_words(&flow), hash::finish(hash::flow(hash::SEED, &src, &dst, 5000, 6000)));
}

/// One bit of the key changes half the bits of the hash, whichever it is.
#[test]
fn hash_avalanche() {
    let mut rng = 1u64;
    let mut next = move || {
        rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (rng >> 32) as u32
    };
    let rounds = 400;
    for bit in 0..36 * 8 {
        let mut changed = 0;
        for _ in 0..rounds {
            let mut words: Vec<u32> = (0..9).map(|_| next()).collect();
            let before = words.iter().fold(hash::SEED, |h, w| hash::step(h, *w));
            words[bit / 32] ^= 1 << (bit % 32);
            let after = words.iter().fold(hash::SEED, |h, w| hash::step(h, *w));
            changed += (hash::finish(before) ^ hash::finish(after)).count_ones();
        }
        let mean = f64::from(changed) / f64::from(rounds);
        assert!((14.5..17.5).contains(&mean), "bit {bit}: {mean}");
    }
}

/// Keys as they occur: counting up, in steps, ports, neighbours.
#[test]
fn hash_is_even() {
    type Keys = Box<dyn Fn(u32) -> u32>;
    let families: Vec<(&str, Keys)> = vec![
        ("numbers", Box::new(|i| hash::number(hash::SEED, i.into()))),
        ("steps of 2^16", Box::new(|i| hash::number(hash::SEED, u64::from(i) << 16))),
        ("steps of 2^40", Box::new(|i| hash::number(hash::SEED, u64::from(i) << 40))),
        (
            "source ports",
            Box::new(|i| {
                hash::flow(
                    hash::SEED,
                    &v4([10, 0, 0, (i >> 14) as u8]),
                    &v4([10, 0, 1, 1]),
                    i as u16 & 0x3fff,
                    53,
                )
            }),
        ),
        (
            "hosts",
            Box::new(|i| {
                hash::flow(hash::SEED, &v4((0x0a00_0000 + i).to_be_bytes()), &v4([10, 0, 1, 1]), 5000, 53)
            }),
        ),
        (
            "both",
            Box::new(|i| {
                hash::flow(
                    hash::SEED,
                    &v4([10, 0, 0, i as u8]),
                    &v4([10, 0, (i >> 8) as u8, 1]),
                    5000,
                    (i >> 16) as u16,
                )
            }),
        ),
    ];
    for (name, key) in families {
        for queues in [2, 3, 7, 8, 64] {
            let n = 64_000;
            let mut counts = vec![0u32; queues];
            for i in 0..n {
                counts[hash::finish(key(i)) as usize % queues] += 1;
            }
            let even = f64::from(n) / queues as f64;
            // Chance alone spreads by √even; five times that has odds of one in a million.
            let worst = counts.iter().map(|c| (f64::from(*c) - even).abs()).fold(0.0, f64::max);
            assert!(worst < 5.0 * even.sqrt(), "{name}, {queues} queues: {worst} of {even}");
        }
    }
}
