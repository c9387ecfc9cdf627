//! What a decision costs, in one run, as JSON: many rules on one field against few, and `mod(u32[4])` against the bare
//! load of that field. `npm run bench -- rules` runs and judges it.

use std::{hint::black_box, time::Instant};

use millrace_core::rule::{Facts, RuleSet, Verdict};

/// Decisions between two readings of the clock.
const ROUNDS: u32 = 10_000;
/// Rule counts on one field.
const COUNTS: [usize; 5] = [1, 4, 16, 64, 256];

/// One of the things compared.
struct Case<'f> {
    name: String,
    best: f64,
    run: Box<dyn FnMut() + 'f>,
}

fn facts(payload: &[u8]) -> Facts<'_> {
    Facts { payload, src: [1; 16], dst: [2; 16], src_port: 5000, dst_port: 6000, rx_queue: 0, cpu: 0 }
}

fn decide<'f>(all: &'f [Facts<'f>], text: &str) -> Box<dyn FnMut() + 'f> {
    let set = RuleSet::compile(text, 8).expect("the benchmark's own rules");
    let mut state = set.state_seeded(0, 1);
    Box::new(move || {
        let mut sum = 0u64;
        for facts in all.iter().cycle().take(ROUNDS as usize) {
            if let Verdict::Queue { queue, key, .. } = set.evaluate(black_box(facts), &mut state) {
                sum = sum.wrapping_add(u64::from(queue) + u64::from(key));
            }
        }
        black_box(sum);
    })
}

fn main() {
    // The number at offset 4 takes 256 values in no order, so that no branch can be learnt by heart.
    let payloads: Vec<Vec<u8>> = (0..1024u32)
        .map(|i| {
            let mut p = vec![7u8; 64];
            p[4..8].copy_from_slice(&(i.wrapping_mul(2_654_435_761) >> 7 & 0xff).to_be_bytes());
            p
        })
        .collect();
    let all: Vec<Facts<'_>> = payloads.iter().map(|p| facts(p)).collect();
    let bare = || {
        let mut sum = 0u64;
        for facts in all.iter().cycle().take(ROUNDS as usize) {
            if let Some(word) = black_box(facts).payload.get(4..).and_then(|p| p.first_chunk::<4>()) {
                sum = sum.wrapping_add(u64::from(u32::from_be_bytes(*word)));
            }
        }
        black_box(sum);
    };
    let mut cases = vec![Case { name: "bare".into(), best: f64::MAX, run: Box::new(bare) }];
    cases.push(Case { name: "mod".into(), best: f64::MAX, run: decide(&all, "mod(u32[4])") });
    for n in COUNTS {
        let rules: Vec<String> = (0..n).map(|i| format!("u32[4] == {i} => queue({})", i % 8)).collect();
        let text = rules.join("\n") + "\nqueue(0)";
        cases.push(Case { name: format!("rules{n}"), best: f64::MAX, run: decide(&all, &text) });
    }
    // In turn, and the best of many short runs each: what is left when other programs want the CPU too.
    for _ in 0..300 {
        for case in &mut cases {
            let start = Instant::now();
            (case.run)();
            case.best = case.best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS));
        }
    }
    let nanos: serde_json::Map<String, serde_json::Value> =
        cases.iter().map(|c| (c.name.clone(), c.best.into())).collect();
    let ns = |name: &str| cases.iter().find(|c| c.name == name).map_or(f64::NAN, |c| c.best);
    println!(
        "{}",
        serde_json::json!({
            "nanos": nanos,
            "ratios": { "rules256to4": ns("rules256") / ns("rules4"), "modToBare": ns("mod") / ns("bare") },
        })
    );
}
