//! Not a test: prints what a decision costs, in one run, so that the lines can be compared.
//! `cargo test --release -p millrace-core --lib rule::tests::speed -- --ignored --nocapture`

use super::*;
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: u32 = 10_000;

/// The best of many short runs, which is what is left when other programs want the CPU too.
fn time(mut f: impl FnMut(u32)) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..200 {
        let start = Instant::now();
        for i in 0..ROUNDS {
            f(i);
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS));
    }
    best
}

#[test]
#[ignore = "prints a table"]
fn table() {
    // 256 datagrams, the number at offset 0 differs.
    let payloads: Vec<Vec<u8>> = (0..256u32)
        .map(|i| {
            let mut p = vec![7u8; 64];
            p[..4].copy_from_slice(&(i.wrapping_mul(2_654_435_761) % 256).to_be_bytes());
            p
        })
        .collect();
    let all: Vec<Facts<'_>> = payloads.iter().map(|p| facts(p)).collect();
    let mut sink = 0u64;
    let load = time(|i| {
        let p = black_box(&all)[i as usize % 256].payload;
        sink = sink.wrapping_add(u64::from(u32::from_be_bytes(*p.first_chunk().unwrap())));
    });
    println!("{:60} {load:7.2} ns", "bare load of a field");
    let one_field = |n: usize| {
        (0..n).map(|i| format!("u32[0] == {i} => queue({})", i % 8)).collect::<Vec<_>>().join("\n")
    };
    let many_fields = |n: usize| {
        (0..n).map(|i| format!("u8[{}] == 99 => queue({})", i + 4, i % 8)).collect::<Vec<_>>().join("\n")
    };
    let mut sets: Vec<(String, String)> = [
        "queue(0)",
        "mod(u32[0])",
        "mod(u32[0] >> 3 & 0xff)",
        "hash(u32[0])",
        "hash(flow)",
        "hash(bytes[0..8], src)",
        "round_robin",
        "random",
        "src in {10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16} => mod(u32[0])",
        "bytes[0..6] == \"STREAM\" => drop; mod(u32[0])",
        "heartbeat: u8[0] == 0x01 and len >= 8 => queue(0); noise: len < 8 or bytes[0..4] == \"TEST\" => drop; \
         tick: u16[0] in 0x10..0x1f => mod(u64[8]); \
         tenant: sport in {5000, 5001} and src in 10.0.0.0/8 => hash(bytes[4..12], src)",
    ]
    .iter()
    .map(|t| ((*t).to_owned(), (*t).to_owned()))
    .collect();
    for n in [1, 4, 16, 64, 256] {
        sets.push((format!("{n} rules on one field"), one_field(n) + "\nqueue(0)"));
    }
    for n in [1, 4, 16, 32] {
        sets.push((format!("{n} rules on different fields"), many_fields(n) + "\nqueue(0)"));
    }
    for (name, text) in sets {
        let set = compile(&text, 8);
        let mut state = set.state(0);
        let mut sink = 0u64;
        let ns = time(|i| {
            if let Verdict::Queue { queue, key, .. } =
                set.evaluate(&black_box(&all)[i as usize % 256], &mut state)
            {
                sink = sink.wrapping_add(u64::from(queue) + u64::from(key));
            }
        });
        black_box(sink);
        println!(
            "{name:.60} {:1$} {ns:7.2} ns  {2:5.1} x",
            "",
            60usize.saturating_sub(name.len().min(60)),
            ns / load
        );
    }
    black_box(sink);
}
