//! Keys stay together: a million datagrams of ten thousand keys, four receive threads, eight queues.

use std::{collections::HashMap, thread};

use millrace_core::rule::{Facts, RuleSet, Verdict};

const DATAGRAMS: u32 = 1_000_000;
const KEYS: u32 = 10_000;
const THREADS: u32 = 4;
const QUEUES: u16 = 8;

/// A receive thread's datagrams: `(key, sequence number)` by queue, in the order of arrival.
type Queues = Vec<Vec<(u32, u32)>>;

fn receive(rules: &RuleSet, thread: u32, key: impl Fn(u32) -> u32) -> Queues {
    let mut state = rules.state(thread as usize);
    let mut queues: Queues = vec![Vec::new(); QUEUES.into()];
    // Datagrams of one flow come by one thread, as RSS, fanout and reuseport have it; each carries one of its keys.
    for n in (0..DATAGRAMS).filter(|n| (n % KEYS) % THREADS == thread) {
        let mut payload = [0u8; 16];
        payload[4..8].copy_from_slice(&key(n % KEYS).to_be_bytes());
        payload[8..12].copy_from_slice(&n.to_be_bytes());
        let facts = Facts {
            payload: &payload,
            src: [(thread + 1) as u8; 16],
            dst: [9; 16],
            src_port: 1000 + (n % KEYS) as u16,
            dst_port: 9000,
            rx_queue: thread as u16,
            cpu: thread as u16,
        };
        match rules.evaluate(&facts, &mut state) {
            Verdict::Queue { queue, .. } => queues[usize::from(queue)].push((n % KEYS, n)),
            Verdict::Drop { .. } => panic!("no rule drops"),
        }
    }
    queues
}

/// Checks affinity and order, and returns how far the fullest or emptiest queue is from even.
fn spread(text: &str, key: impl Fn(u32) -> u32 + Copy + Send) -> f64 {
    let rules = RuleSet::compile(text, QUEUES).unwrap();
    let by_thread: Vec<Queues> = thread::scope(|s| {
        let threads: Vec<_> = (0..THREADS)
            .map(|t| {
                s.spawn({
                    let rules = &rules;
                    move || receive(rules, t, key)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let mut queue_of: HashMap<u32, usize> = HashMap::new();
    let mut counts = vec![0u32; QUEUES.into()];
    for queues in by_thread {
        for (queue, datagrams) in queues.into_iter().enumerate() {
            let mut last: HashMap<u32, u32> = HashMap::new();
            for (key, n) in datagrams {
                assert_eq!(
                    *queue_of.entry(key).or_insert(queue),
                    queue,
                    "{text}: key {key} is in two queues"
                );
                assert!(
                    last.insert(key, n).is_none_or(|before| before < n),
                    "{text}: key {key} out of order"
                );
                counts[queue] += 1;
            }
        }
    }
    assert_eq!(counts.iter().sum::<u32>(), DATAGRAMS);
    assert_eq!(queue_of.len(), KEYS as usize);
    let even = f64::from(DATAGRAMS) / f64::from(QUEUES);
    counts.iter().map(|n| (f64::from(*n) / even - 1.0).abs()).fold(0.0, f64::max)
}

/// What a perfect random draw of ten thousand keys stays within: four standard deviations of a queue's share. Five per
/// cent would be 1.9 of them for the worst of eight queues, which even a perfect draw misses in one case of three.
const FOUR_SIGMA: f64 = 0.106;

#[test]
fn every_key_is_in_one_queue_in_order_and_none_is_overloaded() {
    // Keys that count up, and keys that share their lower bits, which a bad hash would keep together.
    for (text, shift) in [("hash(u32[4])", 0), ("hash(bytes[4..8])", 12), ("hash(flow)", 0)] {
        let off = spread(text, |k| k << shift);
        println!("{text}: the worst queue is {:.2} % from even", 100.0 * off);
        assert!(off < FOUR_SIGMA, "{text}: {off}");
    }
    assert!(spread("mod(u32[4])", |k| k) < 1e-9);
}

#[test]
fn hash_is_within_five_per_cent_where_chance_allows_it() {
    let rules = RuleSet::compile("hash(u32[0])", QUEUES).unwrap();
    let mut state = rules.state(0);
    let mut off = |first: u32, keys: u32, shift: u32| {
        let mut counts = vec![0u32; QUEUES.into()];
        for key in first..first + keys {
            let payload = (key << shift).to_be_bytes();
            let facts = Facts {
                payload: &payload,
                src: [0; 16],
                dst: [0; 16],
                src_port: 0,
                dst_port: 0,
                rx_queue: 0,
                cpu: 0,
            };
            if let Verdict::Queue { queue, .. } = rules.evaluate(&facts, &mut state) {
                counts[usize::from(queue)] += 1;
            }
        }
        let even = f64::from(keys) / f64::from(QUEUES);
        counts.iter().map(|n| (f64::from(*n) / even - 1.0).abs()).fold(0.0, f64::max)
    };
    for shift in [0, 8, 14] {
        let worst = off(0, 100_000, shift);
        assert!(worst < 0.05, "100,000 keys, shifted by {shift}: {worst}");
    }
    // Of ten thousand keys, about as often as a perfect draw: two times of three.
    let within = (0..100).filter(|i| off(i * KEYS, KEYS, 0) < 0.05).count();
    println!("{within} of 100 sets of {KEYS} keys are within 5 %");
    assert!(within >= 50, "{within} of 100");
}
