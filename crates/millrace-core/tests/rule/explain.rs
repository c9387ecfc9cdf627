//! Explanations agree with decisions, and captures of both formats count the same.

use std::{fs, path::PathBuf};

use millrace_core::{
    capture,
    packet::build::Frame,
    rule::{CbpfTarget, Explainer, Outcome, RuleSet, command},
};

use crate::support::{QUEUES, Random, Rules, Sample};

#[test]
fn an_explanation_ends_in_the_verdict_of_the_evaluator() {
    let mut random = Random(0x5eed_0005);
    for _ in 0..600 {
        let queues = random.pick(&QUEUES);
        let text = Rules { random: &mut random, narrow: false, queues }.text();
        let Ok(explainer) = Explainer::compile(&text, queues) else { continue };
        let set = RuleSet::compile(&text, queues).unwrap();
        let (mut a, mut b) = (set.state_seeded(0, 1), set.state_seeded(0, 1));
        for _ in 0..10 {
            let sample = Sample::random(&mut random);
            let (verdict, trials) = explainer.explain(&sample.facts(), &mut a);
            assert_eq!(verdict, set.evaluate(&sample.facts(), &mut b), "{text}\n{sample:?}");
            let (last, tried) = trials.split_last().unwrap();
            assert_eq!(last.outcome, Outcome::Matched, "{text}\n{trials:?}");
            assert!(tried.iter().all(|t| t.outcome != Outcome::Matched), "{text}\n{trials:?}");
            // Every rule before it was tried, in order.
            assert_eq!(
                trials.iter().map(|t| t.rule).collect::<Vec<_>>(),
                (0..=last.rule).collect::<Vec<_>>(),
                "{text}"
            );
        }
    }
}

#[test]
fn reasons() {
    let text = "a: u8[0] == 2 and len > 3 => queue(0)\nb: u32[2] == 1 => queue(1)\nc: bytes[0..3] == \"abc\" => drop\n\
                d: src in 10.0.0.0/8 and u8[0] + 1 > 9 => queue(0)\ne: mod(u64[0])\nf: sample(2)\ng: queue(1)";
    let explainer = Explainer::compile(text, 2).unwrap();
    let sample = Sample { payload: vec![2, 3, 4], ..Sample::random(&mut Random(1)) };
    let sample = Sample { src: "10.0.0.1".parse().unwrap(), ..sample };
    let (_, trials) = explainer.explain(&sample.facts(), &mut explainer.rules().state(0));
    let said: Vec<(Outcome, &str)> = trials.iter().map(|t| (t.outcome, t.reason.as_str())).collect();
    assert_eq!(
        said,
        [
            (Outcome::False, "len is 3"),
            (Outcome::Beyond, "u32[2] is beyond the 3 bytes"),
            (Outcome::False, "bytes[0..3] are x\"020304\""),
            (Outcome::False, "the calculation is 3"),
            (Outcome::Beyond, "its key cannot be had from 3 bytes"),
            (Outcome::Kept, "the sample keeps it, and the next rules decide"),
            (Outcome::Matched, ""),
        ]
    );
}

/// A file that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("millrace-{}-{name}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// pcap (libpcap's savefile(5)), Ethernet.
fn pcap(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut out = 0xa1b2_c3d4u32.to_le_bytes().to_vec();
    out.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]);
    for p in packets {
        out.extend([0; 8]);
        out.extend((p.len() as u32).to_le_bytes());
        out.extend((p.len() as u32).to_le_bytes());
        out.extend(p);
    }
    out
}

/// pcapng (draft-ietf-opsawg-pcapng): one section, one Ethernet interface, enhanced packet blocks.
fn pcapng(packets: &[Vec<u8>]) -> Vec<u8> {
    fn block(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
        let length = (body.len().next_multiple_of(4) + 12) as u32;
        out.extend(kind.to_le_bytes());
        out.extend(length.to_le_bytes());
        out.extend(body);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(length.to_le_bytes());
    }
    let mut out = Vec::new();
    block(
        &mut out,
        0x0a0d_0d0a,
        &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255],
    );
    block(&mut out, 1, &[1, 0, 0, 0, 0, 0, 4, 0]);
    for p in packets {
        let mut body = vec![0; 12];
        body.extend((p.len() as u32).to_le_bytes());
        body.extend((p.len() as u32).to_le_bytes());
        body.extend(p);
        block(&mut out, 6, &body);
    }
    out
}

#[test]
fn captures_of_both_formats_count_the_same() {
    let rules = RuleSet::compile("short: len < 4 => drop\nkey: mod(u32[0])", 4).unwrap();
    let like = Frame::new(("10.0.0.1".parse().unwrap(), 1), ("10.0.0.2".parse().unwrap(), 2));
    // Large enough that the reader has to refill many times.
    let mut packets: Vec<Vec<u8>> =
        (0..20_000u32).map(|i| like.bytes(&(if i % 2 == 0 { 6 } else { i }).to_be_bytes())).collect();
    packets.push(like.bytes(b"x"));
    packets.push(vec![0; 60]);
    packets.push(like.bytes(b"xxxx")[..20].to_vec());
    for (name, bytes) in [("a.pcap", pcap(&packets)), ("b.pcapng", pcapng(&packets))] {
        let file = Scratch::new(name, &bytes);
        let report = capture::summarize(&rules, 4, &file.0).unwrap();
        assert_eq!((report.packets, report.datagrams), (20_003, 20_001), "{name}");
        assert_eq!(report.queues, [0, 5_000, 10_000, 5_000]);
        assert_eq!((report.rules[0].dropped, report.rules[1].matched), (1, 20_000));
        assert_eq!(
            (report.heaviest[0].key, report.heaviest[0].datagrams, report.heaviest[0].queue),
            (6, 10_000, 2)
        );
        assert!((report.skew - 2.0).abs() < 1e-9 && report.keys == 10_001 && !report.truncated);
        assert_eq!((report.frames["foreign"], report.frames["malformed"]), (1, 1));

        let cut = Scratch::new(&format!("cut-{name}"), &bytes[..bytes.len() - 5]);
        let report = capture::summarize(&rules, 4, &cut.0).unwrap();
        assert!(report.truncated && report.packets == 20_002, "{name}: {}", report.packets);
    }
    let garbage = Scratch::new("garbage", b"this is no capture, but a text that is long enough");
    let e = capture::summarize(&rules, 4, &garbage.0).unwrap_err().to_string();
    assert!(e.contains("neither pcap nor pcapng") && e.len() < 300, "{e}");
    assert!(
        capture::summarize(&rules, 4, "/nonexistent".as_ref()).unwrap_err().message.contains("No such file")
    );
}

#[test]
fn dumps_show_every_instruction() {
    let rules = "u8[0] == 1 and sport in 1..9 => queue(1)\nmod(u16le[2])";
    let set = RuleSet::compile(rules, 3).unwrap();
    let text = command::dump(rules, 3, "cbpf").unwrap();
    assert_eq!(text.lines().count(), set.to_cbpf(CbpfTarget::Fanout).unwrap().len());
    assert!(
        text.contains("ldxb     4*([0x0]&0xf)") && text.contains("ret      a") && !text.contains('?'),
        "{text}"
    );
    assert!(command::dump(rules, 3, "program").unwrap().contains("Range"));
}

/// Numbers go up by an instruction's length, and every jump leads to one of them.
fn numbered(text: &str, words: usize) {
    let mut next = 0;
    let mut starts = Vec::new();
    for line in text.lines() {
        let (number, what) = line.trim_start().split_once(": ").unwrap();
        assert_eq!(number.parse::<usize>().unwrap(), next, "{text}");
        starts.push(next);
        next += if what.starts_with("lddw") { 2 } else { 1 };
    }
    assert_eq!(next, words);
    let targets = text.lines().filter_map(|line| line.split_once(" goto "));
    for (_, target) in targets {
        assert!(starts.contains(&target.parse().unwrap()), "{target} in\n{text}");
    }
}

#[test]
fn ebpf_is_shown_as_mnemonics() {
    let rules = "u8[0] == 1 => queue(1)\nmod(u16le[2])";
    let set = RuleSet::compile(rules, 3).unwrap();
    let text = command::dump(rules, 3, "ebpf").unwrap();
    numbered(&text, set.to_ebpf().unwrap().len());
    assert!(text.starts_with("   0: mov64 r6, r1\n   1: ja goto "), "{text}");
    for part in ["call bpf_skb_load_bytes_relative", ", 0x1 goto ", "exit"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    // Everything the compiler can emit has a name.
    for rules in [
        "mod((u32[0] + u16[4] - 3) * u8[6] / (u8[7] + 1) % (u8[8] | 9))",
        "mod((u64[0] & u64le[8] ^ u32le[16]) << u8[20] >> (u8[21] & 63) << 3 >> 1)",
        "u64[0] < 0x123456789abcdef0 and u64[8] >= u64[16] => queue(0); hash(u64[0] * 3, bytes[0..7], src, dst, flow)",
        "src in {10.0.0.0/8, 2001:db8::/32} and dst != ::1 and src != dst => hash(src); len in {1, 5..9} => mod(len)",
        "bytes[0..20] == 'aaaaaaaaaaaaaaaaaaaa' or not u8[0] < u8[1] => queue(2); hash(sport, dport)",
        "u8[0] == 1 => queue(0); u8[0] == 2 => queue(1); u8[0] == 3 => queue(2); u8[0] in 9..12 => mod(u8[1]) on 1..2",
        "u8[0] <= u8[1] => queue(0); u8[2] > u8[3] => queue(1); u8[4] != u8[5] => queue(2)",
    ] {
        let set = RuleSet::compile(rules, 3).unwrap();
        numbered(&command::dump(rules, 3, "ebpf").unwrap(), set.to_ebpf().unwrap().len());
    }
}
