//! Any text compiles or is refused with a message of bounded length, and what compiles means what its canonical text
//! means.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_core::rule::RuleSet;

fuzz_target!(|input: (u8, &str)| {
    let (queues, text) = (u16::from(input.0), input.1);
    match RuleSet::compile(text, queues) {
        Err(e) => assert!(!e.message.is_empty() && e.message.len() < 20_000, "{} bytes", e.message.len()),
        Ok(set) => {
            let rules = set.describe();
            let canonical: Vec<String> =
                rules.iter().filter(|(name, _)| name != "default").map(|(_, text)| text.clone()).collect();
            let again = RuleSet::compile(&canonical.join("\n"), queues).expect("canonical text compiles");
            let texts = |set: &RuleSet| set.describe().into_iter().map(|(_, text)| text).collect::<Vec<_>>();
            if canonical.len() == rules.len() || rules.last().is_some_and(|(name, _)| name == "default") {
                assert_eq!(texts(&set), texts(&again));
            }
        }
    }
});
