//! The XDP program, run by the kernel (BPF_PROG_TEST_RUN) on frames, against the user-space parser and listen set.

use std::net::{IpAddr, Ipv4Addr};

use millrace_core::{
    bpf::{
        Program, XskMap, action,
        xdp_program::{self, Spec},
    },
    config::{Listen, ListenSet},
    error::Code,
    packet::FrameDrop,
    packet::{build::Frame, parse_ethernet},
    protocol::{ETH_P_8021AD, ETH_P_8021Q},
};

use crate::rig;

/// Actions of a program whose map is empty and whose empty slots drop: "ours" shows as DROP, without any socket.
const OURS: u32 = action::DROP;

struct Case {
    listen: Vec<Listen>,
    set: ListenSet,
    program: Program,
    _map: XskMap,
}

fn generate(listen: &[Listen], map: &XskMap) -> Vec<u64> {
    let spec = Spec { listen, map_fd: map.raw_fd(), empty_slot: OURS, max_frame: 1792 };
    xdp_program::generate(&spec).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn case(entries: &[(&str, u16)]) -> Case {
    let listen: Vec<Listen> = entries
        .iter()
        .map(|(a, port)| Listen { address: (!a.is_empty()).then(|| ip(a)), port: *port, scope: None })
        .collect();
    let map = XskMap::new(4).unwrap();
    let code = generate(&listen, &map);
    let program = Program::load("test", &code, 0).unwrap_or_else(|e| panic!("{entries:?}: {e}"));
    Case { set: ListenSet::new(&listen), listen, program, _map: map }
}

/// What the documentation of `xdp_program` promises.
fn expected(set: &ListenSet, frame: &[u8]) -> Option<u32> {
    match parse_ethernet(frame) {
        Ok(u) => {
            let ether_type = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
            let mut at = 12;
            while [ETH_P_8021Q, ETH_P_8021AD].contains(&ether_type(at)) {
                at += 4;
            }
            let mapped = ether_type(at) == 0x86dd && (u.src.is_v4() || u.dst.is_v4());
            let ours = set.accepts(u.dst, u.dst_port) && !u.options && !mapped;
            Some(if ours { OURS } else { action::PASS })
        }
        Err(FrameDrop::Malformed) => None,
        Err(_) => Some(action::PASS),
    }
}

fn check(case: &Case, frame: &[u8]) -> u32 {
    let got = case.program.test_run(frame).unwrap();
    assert!(got == OURS || got == action::PASS, "verdict {got}");
    if let Some(want) = expected(&case.set, frame) {
        assert_eq!(
            got,
            want,
            "listen {:?}\nframe {frame:02x?}\nparser {:?}",
            case.listen,
            parse_ethernet(frame)
        );
    }
    got
}

fn cases() -> Vec<Case> {
    vec![
        case(&[("", 9000)]),
        case(&[("0.0.0.0", 9000), ("::", 9001)]),
        case(&[
            ("192.0.2.2", 9000),
            ("192.0.2.3", 9000),
            ("2001:db8::2", 9000),
            ("", 9002),
            ("200.1.2.3", 9001),
        ]),
        case(&[("::ffff:192.0.2.2", 9000), ("2001:db8::3", 9001)]),
        case(&(0..40).map(|i| ("", 8980 + i)).chain([("192.0.2.2", 1), ("", 65_535)]).collect::<Vec<_>>()),
    ]
}

fn frames() -> Vec<Frame> {
    let mut all = Vec::new();
    for (src, dst) in [
        ("192.0.2.1", "192.0.2.2"),
        ("192.0.2.1", "192.0.2.3"),
        ("192.0.2.1", "200.1.2.3"),
        ("2001:db8::1", "2001:db8::2"),
        ("2001:db8::1", "2001:db8::3"),
        ("::1", "::2"),
        ("::ffff:192.0.2.1", "2001:db8::2"),
        ("2001:db8::1", "::ffff:192.0.2.2"),
    ] {
        for port in [9000, 9001, 9002, 9000 ^ 0xff, 0x2823, 1, 65_535, 8980] {
            let plain = Frame::new((ip(src), 1000), (ip(dst), port));
            for vlan in [vec![], vec![(ETH_P_8021Q, 5)], vec![(ETH_P_8021AD, 5), (ETH_P_8021Q, 6)]] {
                all.push(Frame { vlan, ..plain.clone() });
            }
            all.push(Frame { vlan: vec![(ETH_P_8021Q, 5); 3], ..plain.clone() });
            // Options that read as port 9000, if they were taken for the UDP header.
            all.push(Frame { ipv4_options: vec![1, 1, 0x23, 0x28], ..plain.clone() });
            for header in [0, 43, 60, 44] {
                let ipv6_extensions = vec![(header, vec![0, 0, 0, 0, 0, 0, 0, 0])];
                all.push(Frame { ipv6_extensions, ..plain.clone() });
            }
        }
    }
    all
}

#[test]
fn redirects_exactly_what_the_parser_takes_without_options() {
    rig::require_root!();
    let frames = frames();
    for case in cases() {
        let (mut ours, mut passed) = (0, 0);
        for frame in &frames {
            match check(&case, &frame.bytes(b"payload")) {
                OURS => ours += 1,
                _ => passed += 1,
            }
        }
        assert!(ours > 0 && passed > 0, "{:?}: {ours} ours, {passed} passed", case.listen);
    }
}

#[test]
fn every_truncation_and_fragment_passes_or_is_malformed() {
    rig::require_root!();
    let case = case(&[("", 9000)]);
    for (frame, shortest) in [
        (Frame::new((ip("192.0.2.1"), 1), (ip("192.0.2.2"), 9000)), 14 + 28),
        (Frame::new((ip("2001:db8::1"), 1), (ip("2001:db8::2"), 9000)), 14 + 48),
    ] {
        for tags in 0..3 {
            let bytes = Frame { vlan: vec![(ETH_P_8021Q, 1); tags], ..frame.clone() }.bytes(b"0123456789");
            for n in 14..=bytes.len() {
                let verdict = check(&case, &bytes[..n]);
                let want = if n < shortest + 4 * tags { action::PASS } else { OURS };
                assert_eq!(verdict, want, "{n} of {} bytes, {tags} tags", bytes.len());
            }
        }
    }
    let long = |n: usize| Frame::new((ip("192.0.2.1"), 1), (ip("192.0.2.2"), 9000)).bytes(&vec![0; n - 42]);
    assert_eq!(check(&case, &long(1792)), OURS);
    assert_eq!(case.program.test_run(&long(1793)).unwrap(), action::PASS, "longer than a UMEM frame");
    let mut v4 = Frame::new((ip("192.0.2.1"), 1), (ip("192.0.2.2"), 9000)).bytes(b"0123456789");
    for (flags, verdict) in [
        (0x4000u16, OURS),
        (0x8000, OURS),
        (0x2000, action::PASS),
        (0x0001, action::PASS),
        (0x1fff, action::PASS),
    ] {
        v4[20..22].copy_from_slice(&flags.to_be_bytes());
        assert_eq!(check(&case, &v4), verdict, "flags {flags:#06x}");
    }
}

/// xorshift64*: enough to mutate frames, the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % n
    }
}

#[test]
fn mutated_frames_never_disagree() {
    rig::require_root!();
    let (cases, frames) = (cases(), frames());
    let mut random = Random(0x4d69_6c6c_7261_6365);
    let (mut ours, mut passed) = (0, 0);
    for round in 0..20_000 {
        let mut bytes = frames[random.below(frames.len())].bytes(b"some payload");
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len().min(80));
            bytes[at] = match random.below(3) {
                0 => bytes[at] ^ 1 << random.below(8),
                1 => [0, 1, 0x11, 0x2c, 0x45, 0x60, 0x81, 0xff][random.below(8)],
                _ => random.below(256) as u8,
            };
        }
        if random.below(8) == 0 {
            bytes.truncate(14 + random.below(bytes.len() - 14));
        }
        match check(&cases[round % cases.len()], &bytes) {
            OURS => ours += 1,
            _ => passed += 1,
        }
    }
    assert!(ours > 1000 && passed > 1000, "{ours} ours, {passed} passed: the mutations are lopsided");
}

#[test]
fn long_listen_lists_load_and_a_refused_program_shows_the_verifiers_words() {
    rig::require_root!();
    let map = XskMap::new(1).unwrap();
    // Every port there is, then thousands of exact addresses on one port.
    let ports: Vec<Listen> = (1..=4096).map(|p| Listen { port: p * 15, ..Listen::default() }).collect();
    let addresses: Vec<Listen> = (0..2000u32)
        .map(|i| Listen { address: Some(Ipv4Addr::from(0x0a00_0000 + i).into()), port: 9000, scope: None })
        .collect();
    for (listen, hit) in [(ports, ip("192.0.2.9")), (addresses, ip("10.0.7.207"))] {
        let code = generate(&listen, &map);
        let program = Program::load("long", &code, 0).unwrap();
        let frame = Frame::new((ip("192.0.2.1"), 1), (hit, 9000)).bytes(b"x");
        assert_eq!(program.test_run(&frame).unwrap(), OURS);
        let other = Frame::new((ip("192.0.2.1"), 1), (hit, 9001)).bytes(b"x");
        assert_eq!(program.test_run(&other).unwrap(), action::PASS);
    }
    // `exit` without a result in R0.
    let e = Program::load("bad", &[0x95], 0).unwrap_err();
    assert_eq!(e.code, Code::Kernel);
    assert!(e.message.contains("R0 !read_ok"), "{e}");
}
