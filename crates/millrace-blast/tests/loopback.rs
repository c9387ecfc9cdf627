//! The socket path over loopback, and the command line.

mod receiver;

use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

use millrace_blast::{Code, Gso, Payload, RunConfig, RunReport, Sizes, payload::Fill, run};
use receiver::{Receiver, assert_payloads, assert_report, blast, ports};

/// Slow enough for a reader with a small buffer on a busy machine.
const RATE: u64 = 20_000;

fn config(target: &Receiver, count: u64) -> RunConfig {
    RunConfig { rate: RATE, count: Some(count), ..RunConfig::to(target.address.to_string()) }
}

fn command(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millrace-blast")).args(args).output().unwrap()
}

#[test]
fn every_number_arrives_v4_and_v6() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let receiver = Receiver::bind(address);
        let config = RunConfig { start: 77, ..config(&receiver, 3000) };
        let report = blast(&config);
        let got = receiver.finish();
        assert_report(&config, &report, 3000);
        assert_payloads(&config, 3000, &got);
        assert!(report.gso > 1, "loopback segments by default");
    }
}

#[test]
fn sizes_from_nothing_to_large() {
    let receiver = Receiver::bind("127.0.0.1:0");
    let config = RunConfig { sizes: Some(Sizes { first: 0, last: 1472 }), ..config(&receiver, 3001) };
    let report = blast(&config);
    let got = receiver.finish();
    assert_report(&config, &report, 3001);
    assert_payloads(&config, 3001, &got);
    assert_eq!(report.gso, 1);
}

#[test]
fn segments_and_batches_of_odd_counts() {
    for (gso, batch, size, count) in [
        (Gso::Segments(7), 5, 100, 1003),
        (Gso::Off, 1, 1, 50),
        (Gso::Auto, 64, 0, 129),
        (Gso::Auto, 3, 1472, 501),
    ] {
        let receiver = Receiver::bind("127.0.0.1:0");
        let config =
            RunConfig { gso, batch, sizes: Some(Sizes::fixed(size)), rate: RATE, ..config(&receiver, count) };
        let report = blast(&config);
        assert_report(&config, &report, count);
        assert_payloads(&config, count, &receiver.finish());
    }
}

#[test]
fn threads_and_flows_share_one_range() {
    let receiver = Receiver::bind("127.0.0.1:0");
    let config = RunConfig {
        threads: 3,
        flows: Some(10),
        gso: Gso::Off,
        start: u64::from(u32::MAX) - 500,
        ..config(&receiver, 3000)
    };
    let report = blast(&config);
    let got = receiver.finish();
    assert_report(&config, &report, 3000);
    assert_payloads(&config, 3000, &got);
    assert_eq!(report.flows, 10);
    assert!(ports(&got) > 1 && ports(&got) <= 10);
}

#[test]
fn several_ports_each_get_their_flows() {
    let (a, b) = (Receiver::bind("127.0.0.1:0"), Receiver::bind("127.0.0.1:0"));
    let config = RunConfig { ports: vec![a.address.port(), b.address.port()], ..config(&a, 1000) };
    assert_report(&config, &blast(&config), 1000);
    let (a, b) = (a.finish(), b.finish());
    assert!(!a.is_empty() && !b.is_empty());
    assert_payloads(&config, 1000, &[a, b].concat());
}

#[test]
fn a_paced_second_is_the_rate() {
    // 0.5 s of 1000/s are 500, on however slow a machine: the schedule decides, not the clock of each send.
    let receiver = Receiver::bind("127.0.0.1:0");
    let config = RunConfig { rate: 1000, seconds: Some(0.5), ..RunConfig::to(receiver.address.to_string()) };
    let report = blast(&config);
    let got = receiver.finish();
    assert!(report.sent <= 500, "{report:?}");
    assert_payloads(&config, report.sent, &got);
}

#[test]
fn refused_datagrams_are_retried_and_the_numbers_stay_gapless() {
    // No socket is bound: loopback answers each datagram with ICMP port unreachable.
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = RunConfig { count: Some(500), gso: Gso::Off, batch: 1, ..RunConfig::to(closed.to_string()) };
    let report = blast(&config);
    assert_report(&config, &report, 500);
    assert!(report.retries.refused > 0);
}

#[test]
fn a_stop_flag_ends_the_run_at_a_gapless_range() {
    let receiver = Receiver::bind("127.0.0.1:0");
    let config = RunConfig {
        rate: RATE,
        seconds: Some(600.0),
        threads: 2,
        ..RunConfig::to(receiver.address.to_string())
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let report = std::thread::scope(|s| {
        s.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        run(&config, &stop, |_| ()).unwrap()
    });
    let sent = report.sent;
    assert!(sent > 0);
    assert_report(&config, &report, sent);
    assert_payloads(&config, sent, &receiver.finish());
}

#[test]
fn other_payloads() {
    let receiver = Receiver::bind("127.0.0.1:0");
    let fill = Fill::Bytes(b"tick".to_vec());
    let config = RunConfig { payload: Payload { counter: None, fill }, ..config(&receiver, 10) };
    blast(&config);
    assert!(receiver.finish().iter().all(|(_, p)| p == b"tick"));
}

#[test]
fn the_json_report_equals_what_arrived() {
    let receiver = Receiver::bind("127.0.0.1:0");
    let target = receiver.address.to_string();
    let args = [
        &target, "--count", "1000", "--rate", "20k", "--size", "64..100", "--start", "5", "--json", "--quiet",
    ];
    let out = command(&args);
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    let report: RunReport = serde_json::from_slice(&out.stdout).unwrap();
    let got = receiver.finish();
    assert_eq!(report.sent, got.len() as u64);
    assert_eq!(report.bytes, got.iter().map(|(_, p)| p.len() as u64).sum::<u64>());
    let config =
        RunConfig { start: 5, sizes: Some(Sizes { first: 64, last: 100 }), ..RunConfig::to(&target) };
    assert_report(&config, &report, 1000);
    assert_payloads(&config, 1000, &got);
}

#[test]
fn sigint_ends_with_the_report() {
    let receiver = Receiver::bind("127.0.0.1:0");
    let child = Command::new(env!("CARGO_BIN_EXE_millrace-blast"))
        .args([&receiver.address.to_string(), "--rate", "1k", "--seconds", "600", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1300));
    // SAFETY: kill(2) with the id of a child that was not waited for yet, so the id is still its own.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let report: RunReport = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report.sent, receiver.finish().len() as u64);
    assert!(String::from_utf8_lossy(&out.stderr).contains("sent"), "a progress line after a second");
}

#[test]
fn bad_usage_is_one_line_with_a_code_and_status_2() {
    for args in [
        &["127.0.0.1:9", "--rate", "fast"][..],
        &["127.0.0.1:9", "--count", "0"],
        &["no-such-host.invalid:9"],
        &["127.0.0.1"],
        &["127.0.0.1:9", "--payload", "hex:0"],
        &["127.0.0.1:9", "--threads", "2", "--flows", "1"],
        &["[::1]:9", "--via", "packet", "--size", "65500"],
        &["127.0.0.1:9", "--src-ip", "::1"],
    ] {
        let out = command(args);
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.starts_with("MILLRACE_E_CONFIG: ") && text.lines().count() == 1, "{args:?}: {text}");
        assert!(text.contains("expected"), "{args:?}: {text}");
    }
    let out = command(&["127.0.0.1:9", "--interface", "no-such-if"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(out.stderr.starts_with(b"MILLRACE_E_INTERFACE: "), "{out:?}");
}

#[test]
fn a_raw_path_without_the_capability_says_so() {
    let binary = env!("CARGO_BIN_EXE_millrace-blast");
    // SAFETY: geteuid has no preconditions and cannot fail.
    let mut command = if unsafe { libc::geteuid() } == 0 {
        // The command runs as the user nobody, without capabilities.
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", binary]);
        setpriv
    } else {
        Command::new(binary)
    };
    let out = command.args(["[::1]:9", "--via", "packet", "--count", "1"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    // The user nobody may not be allowed to read the build directory; then nothing can be tested.
    if out.status.code() != Some(126) && out.status.code() != Some(127) {
        assert_eq!(out.status.code(), Some(1), "{text}");
        assert!(text.starts_with("MILLRACE_E_PERMISSION: ") && text.contains("CAP_NET_RAW"), "{text}");
    }
}

#[test]
fn the_librarys_errors_carry_codes() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    let e = run(&RunConfig { batch: 0, ..RunConfig::to("127.0.0.1:9") }, &stop, |_| ()).unwrap_err();
    assert_eq!(e.code, Code::Config);
}
