//! `millrace check`: verdicts on hosts that lack one thing each.

mod rig;
#[path = "socket_support/mod.rs"]
mod support;

use std::net::UdpSocket;

use millrace_core::{
    check::{self, Report, State},
    config::{BackendChoice, EngineConfig, FanoutMode},
};
use rig::Pair;
use support::{ONE_PORT, settled, with_capabilities};

const NET_RAW: u32 = 1 << 13;

/// The test configuration, steered by rules as the service is by default.
fn config(listen: &str, dev: &str, threads: u16) -> EngineConfig {
    EngineConfig {
        rules: "else => hash(flow)".into(),
        fanout: FanoutMode::Rules,
        ..support::config(listen, dev, threads)
    }
}

fn state(report: &Report, name: &str) -> State {
    report.findings.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("{name}: {report:#?}")).state
}

fn why(report: &Report, name: &str) -> String {
    report.findings.iter().filter(|f| f.name == name).map(|f| format!("{} {}\n", f.why, f.cure)).collect()
}

#[test]
fn with_everything_auto_takes_xdp_and_nothing_stays() {
    if !rig::privileged("with_everything_auto_takes_xdp_and_nothing_stays") {
        return;
    }
    let pair = Pair::new(2);
    let config = config(ONE_PORT, "vb", 2);
    for _ in 0..2 {
        let report = pair.in_b(|| check::run(&config));
        assert_eq!(report.backend, Some("xdp"), "{report:#?}");
        for name in [
            "CAP_NET_RAW",
            "CAP_BPF",
            "socket",
            "packet",
            "xdp",
            "interface",
            "foreign xdp",
            "rss",
            "backend",
        ] {
            assert_eq!(state(&report, name), State::Ok, "{name}: {report:#?}");
        }
        assert!(why(&report, "packet").contains("opens: tpacket_v3 fanout rules"), "{report:#?}");
        assert!(why(&report, "interface").contains("driver veth, 2 rx queues, MTU 1500, up"));
    }
    // The port is free again, and no program was attached.
    settled(|| {
        pair.in_b(|| UdpSocket::bind("0.0.0.0:9000"))
            .map_err(|e| millrace_core::error::Error::os(millrace_core::error::Code::Port, "bind", e))
    });
    assert!(!rig::run(&format!("ip -n {} link show dev vb", pair.b)).contains("xdp"));
}

#[test]
fn capabilities_decide_the_rung_and_are_named() {
    if !rig::privileged("capabilities_decide_the_rung_and_are_named") {
        return;
    }
    let pair = Pair::new(1);
    let config = config(ONE_PORT, "vb", 1);
    let report = pair.in_b(|| with_capabilities(NET_RAW, || check::run(&config)));
    assert_eq!(report.backend, Some("packet"), "{report:#?}");
    assert_eq!((state(&report, "CAP_BPF"), state(&report, "xdp")), (State::Missing, State::Missing));
    assert!(why(&report, "xdp").contains("CAP_BPF"), "{report:#?}");
    let report = pair.in_b(|| with_capabilities(0, || check::run(&config)));
    assert_eq!(report.backend, Some("socket"), "{report:#?}");
    assert!(why(&report, "packet").contains("CAP_NET_RAW"), "{report:#?}");
    let named = EngineConfig { backend: BackendChoice::Packet, ..config.clone() };
    let report = pair.in_b(|| with_capabilities(0, || check::run(&named)));
    assert_eq!((report.backend, state(&report, "backend")), (None, State::Missing));
}

#[test]
fn a_taken_port_a_missing_interface_and_a_foreign_program_are_seen() {
    if !rig::privileged("a_taken_port_a_missing_interface_and_a_foreign_program_are_seen") {
        return;
    }
    let pair = Pair::new(1);
    let wrong = EngineConfig { rules: "else => queue(9)".into(), ..config(ONE_PORT, "vb", 1) };
    let report = pair.in_b(|| check::run(&wrong));
    assert_eq!((report.backend, state(&report, "rules")), (None, State::Missing));
    let report = pair.in_b(|| check::run(&config(ONE_PORT, "eth7", 1)));
    assert_eq!((report.backend, state(&report, "interface")), (Some("socket"), State::Missing));

    let taken = pair.in_b(|| UdpSocket::bind("0.0.0.0:9000")).unwrap();
    let report = pair.in_b(|| check::run(&config(ONE_PORT, "vb", 1)));
    assert_eq!(report.backend, None, "{report:#?}");
    assert!(why(&report, "socket").contains(&format!("pid {}", std::process::id())), "{report:#?}");
    drop(taken);

    // Another Millrace's program, on another port.
    let foreign = EngineConfig { backend: BackendChoice::Xdp, ..config(r#"{"port":9005}"#, "vb", 1) };
    let other = pair.in_b(|| millrace_core::rx::xdp::open(&foreign)).unwrap();
    let report = pair.in_b(|| check::run(&config(ONE_PORT, "vb", 1)));
    assert_eq!(
        (report.backend, state(&report, "foreign xdp")),
        (Some("packet"), State::Degraded),
        "{report:#?}"
    );
    assert!(rig::run(&format!("ip -n {} link show dev vb", pair.b)).contains("xdp"), "untouched");
    drop(other);
}
