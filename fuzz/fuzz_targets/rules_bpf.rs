//! Whatever compiles to BPF decides as the evaluator does. Input: queue count, IPv4 option words, rule text, NUL, payload.
#![no_main]

#[path = "../../crates/millrace-core/tests/rule/support/mod.rs"]
mod rule_support;

use libfuzzer_sys::fuzz_target;
use millrace_core::rule::{CbpfTarget, RuleSet};
use rule_support::{Sample, evaluate, run_cbpf};

fuzz_target!(|data: &[u8]| {
    let [queues, options, rest @ ..] = data else { return };
    let mut parts = rest.splitn(2, |b| *b == 0);
    let (Some(text), payload) = (parts.next(), parts.next().unwrap_or_default()) else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(set) = RuleSet::compile(text, u16::from(*queues)) else { return };
    let _ = (set.to_ebpf(), set.early_drop());
    let sample = Sample {
        payload: payload.iter().copied().take(1400).collect(),
        src: [10, 0, 0, 1].into(),
        dst: [127, 0, 0, 1].into(),
        ports: (5000, 6000),
        options: vec![1; 4 * usize::from(options % 11)],
        vlan: vec![],
        padding: 0,
    };
    let want = evaluate(&set, &mut set.state(0), &sample).map(u32::from);
    if let Ok(program) = set.to_cbpf(CbpfTarget::Fanout) {
        let got = run_cbpf(&program, &sample.at_fanout());
        assert_eq!(want.map(|_| got), want);
    }
    let sockets = 1 + u16::from(*options);
    if let Ok(program) = set.to_cbpf(CbpfTarget::Reuseport { sockets }) {
        let want = want.map_or(u32::MAX, |q| q % u32::from(sockets));
        assert_eq!(run_cbpf(&program, &sample.at_reuseport()), want);
    }
});
