//! Hostile text: it always gets an answer, soon, and the message has a readable size.

use super::*;
use proptest::prelude::*;

/// Compiles on a small stack, and says whether that worked. The bound is one of CPU time, so that a busy machine does not
/// decide: no text here takes a tenth of it.
fn verdict(text: String) -> std::result::Result<RuleSet, String> {
    let run = move || {
        let result = RuleSet::compile(&text, 8).map_err(|e| e.message);
        (result, cpu_time())
    };
    let (result, took) = std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap();
    assert!(took.as_secs() < 20, "took {took:?}");
    if let Err(message) = &result {
        assert!(message.len() < 20_000, "{} bytes", message.len());
    }
    result
}

#[track_caller]
fn refused(text: String, part: &str) {
    match verdict(text) {
        Ok(_) => panic!("compiles"),
        Err(message) => assert!(message.contains(part), "{message}"),
    }
}

#[test]
fn nesting() {
    let n = 10_000;
    let deep = "nested too deeply";
    refused(format!("{}u8[0] == 1{} => drop", "(".repeat(n), ")".repeat(n)), deep);
    refused(format!("{}u8[0] == 1 => drop", "not ".repeat(n)), deep);
    refused(format!("{}1{} == 1 => drop", "u8[".repeat(n), "]".repeat(n)), deep);
    refused(format!("mod({}u8[0]{})", "(1 + ".repeat(n), ")".repeat(n)), deep);
    refused(format!("mod({}u8[0]{})", "1 + (".repeat(20), ")".repeat(20)), deep);
    refused("(".repeat(n), deep);
    refused("[".repeat(n), "unexpected");
    refused("{".repeat(n), "unexpected");
    // The deepest that is allowed, in every stage.
    assert!(verdict(format!("{}u8[0] == 1{} => drop", "(".repeat(63), ")".repeat(63))).is_ok());
    assert!(verdict(format!("{}u8[0] == 1 => drop", "not ".repeat(63))).is_ok());
    assert!(verdict(format!("{}u8[0] == 1{} => drop", "(len > 1 and ".repeat(63), ")".repeat(63))).is_ok());
    assert!(verdict(format!("mod({}u8[0]{})", "(".repeat(60), " + 1)".repeat(60))).is_ok());
    // The nesting is on the left side, in turns: nothing may be visited twice for each level.
    let turns: String =
        (1..=63).map(|i| [" or ", " and "][i % 2].to_owned() + &format!("u8[{i}] == 1)")).collect();
    assert!(verdict(format!("{}u8[0] == 1{turns} => drop", "(".repeat(63))).is_ok());
}

#[test]
fn long_lines() {
    let n = 10_000;
    assert!(verdict(format!("len > 1{} => drop", " and len > 1".repeat(n))).is_ok());
    assert!(verdict(format!("len > 1{} => drop", " or u8[1] == 1".repeat(n))).is_ok());
    assert!(verdict(format!("mod(u8[0]{})", " + u8[1]".repeat(n))).is_ok());
    assert!(verdict(format!("mod(1{} + u8[0])", " + 1".repeat(n))).is_ok());
    assert!(verdict(format!("u8[0] in {{1{}}} => drop", ", 1".repeat(n))).is_ok());
    assert!(verdict(format!("# {}\nmod(u8[0])", "x".repeat(100_000))).is_ok());
    assert!(verdict(format!("{}mod(u8[0])", " ".repeat(100_000))).is_ok());
    refused(format!("len > 1{} => drop", " and len > q".repeat(n)), "unknown field `q`");
    refused("x".repeat(100_000), "unknown field");
    refused("a:".repeat(50_000), "unknown field `a`");
    refused("9".repeat(100_000), "too large");
    refused(format!("bytes[0..4] == \"{}\" => drop", "x".repeat(100_000)), "100000 bytes long");
    refused(format!("{} => drop", "\"".repeat(99_999)), "does not end");
    refused(format!("{} => drop", "\"\\".repeat(50_000)), "escape");
    refused("a".repeat(5 << 20), "bytes long");
}

#[test]
fn many_rules() {
    let many = |f: &dyn Fn(usize) -> String| (0..10_000).map(f).collect::<Vec<_>>().join("\n");
    assert_eq!(verdict(many(&|i| format!("r{i}: u32[0] == {i} => queue({})", i % 8))).unwrap().len(), 10_001);
    assert_eq!(verdict(many(&|i| format!("u16[{i}] > 7 and len > 3 => hash(src)"))).unwrap().len(), 10_001);
    let message = verdict(many(&|i| format!("u33[{i}] == 1 => drp"))).unwrap_err();
    assert!(
        message.starts_with("10000 errors in the rules\n") && message.ends_with("\n… and 9980 more"),
        "{message}"
    );
    // Many tests of one field that all lead to the same long chain of others.
    let into = format!("{}src in 10.0.0.0/8 => queue(1)\n", "u16[0] != 1 and ".repeat(5000));
    assert!(verdict(into + &many(&|i| format!("u16[0] == {i} => queue(1)"))).is_ok());
    refused("len > 1 => sample(2);".repeat(70_000), "too many rules");
    refused("drop;".repeat(10_000), "can never match");
    refused(";".repeat(100_000), "there are no rules");
}

#[test]
fn strange_characters() {
    refused("\0".into(), "U+0000");
    refused("len == 1\0 => drop".into(), "U+0000");
    refused("\u{1b}[31m".into(), "U+001B");
    refused("len == 1 => \u{202e}drop".into(), "unexpected");
    refused("ünïcödé => drop".into(), "unexpected character `ü`");
    refused("\u{feff}drop".into(), "unexpected");
    for text in ["\0", "\u{1b}[31mlen", "len == 1 \u{7} => drop"] {
        let message = verdict(text.into()).unwrap_err();
        assert!(!message.chars().any(|c| c.is_control() && c != '\n'), "{message:?}");
    }
    assert!(verdict("bytes[0..2] == 'ü' => drop".into()).is_ok());
}

#[test]
fn nothing() {
    for text in ["", " ", "\n\n", ";", "# only a comment"] {
        assert!(
            errors(text, 8).starts_with("there are no rules; expected at least one, such as"),
            "{text:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn any_text_has_an_answer(text in "\\PC{0,80}|[ -~\n\t\0]{0,120}") {
        let _ = RuleSet::compile(&text, 8);
    }

    #[test]
    fn any_tokens_have_an_answer(words in prop::collection::vec(prop_oneof![
        Just("u8"), Just("u32le"), Just("["), Just("]"), Just("("), Just(")"), Just("{"), Just("}"), Just("0"), Just("7"),
        Just("65535"), Just("0xffffffffffffffff"), Just("=="), Just("<"), Just("in"), Just("and"), Just("or"), Just("not"),
        Just("=>"), Just("else"), Just("hash"), Just("mod"), Just("queue"), Just("flow"), Just("src"), Just("10.0.0.0/8"),
        Just("fe80::/10"), Just(".."), Just(","), Just(";"), Just("\n"), Just(":"), Just("bytes"), Just("\"ab\""), Just("x'00'"),
        Just("+"), Just("<<"), Just("/"), Just("%"), Just("on"), Just("spill"), Just("cpu"), Just("drop"), Just("sample"),
        Just("len"), Just("#"), Just("-"), Just("u8[0]"), Just("u8[0] == 1"), Just("=> drop\n"),
    ], 0..24)) {
        let text = words.join(" ");
        if let Ok(set) = RuleSet::compile(&text, 8) {
            let mut state = set.state(0);
            for payload in [&[][..], &[0], &[7; 70]] {
                match set.evaluate(&facts(payload), &mut state) {
                    Verdict::Queue { queue, rule, .. } => prop_assert!(queue < 8 && usize::from(rule) < set.len()),
                    Verdict::Drop { rule } => prop_assert!(usize::from(rule) < set.len()),
                }
            }
        }
    }
}
