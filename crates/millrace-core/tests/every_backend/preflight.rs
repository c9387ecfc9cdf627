//! `millrace check`: verdicts on hosts that lack one thing each.

use std::net::UdpSocket;

use millrace_core::{
    config::{BackendChoice, BusyPoll, EngineConfig, FanoutMode, Multicast, ZeroCopy},
    engine::preflight::{self, CheckStatus, PreflightReport},
};

use crate::{
    rig::{self, Pair},
    support::{ONE_PORT, with_capabilities},
};

const NET_RAW: u32 = 1 << 13;

/// The test configuration, steered by rules as the service is by default.
fn config(listen: &str, dev: &str, threads: u16) -> EngineConfig {
    EngineConfig {
        rules: "else => hash(flow)".into(),
        fanout: FanoutMode::Rules,
        ..crate::support::config(listen, dev, threads)
    }
}

fn state(report: &PreflightReport, name: &str) -> CheckStatus {
    report.findings.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("{name}: {report:#?}")).state
}

fn why(report: &PreflightReport, name: &str) -> String {
    report.findings.iter().filter(|f| f.name == name).map(|f| format!("{} {}\n", f.why, f.cure)).collect()
}

#[test]
fn with_everything_auto_takes_xdp_and_nothing_stays() {
    rig::require_root!();
    let pair = Pair::new(2);
    let config = config(ONE_PORT, "vb", 2);
    for _ in 0..2 {
        let report = pair.in_b(|| preflight::run(&config));
        assert_eq!(report.backend, Some("xdp"), "{report:#?}");
        for name in [
            "CAP_NET_RAW",
            "CAP_BPF",
            "socket",
            "packet",
            "xdp",
            "interface",
            "foreign xdp",
            "guard",
            "rss",
            "backend",
        ] {
            assert_eq!(state(&report, name), CheckStatus::Ok, "{name}: {report:#?}");
        }
        assert!(why(&report, "packet").contains("opens: tpacket_v3 fanout rules"), "{report:#?}");
        assert!(why(&report, "interface").contains("driver veth, 2 rx queues, MTU 1500, up"));
    }
    // The port is free again, and no program was attached.
    drop(pair.in_b(|| UdpSocket::bind("0.0.0.0:9000")).unwrap());
    assert!(!rig::run(&format!("ip -n {} link show dev vb", pair.b)).contains("xdp"));
}

#[test]
fn capabilities_decide_the_rung_and_are_named() {
    rig::require_root!();
    let pair = Pair::new(1);
    let config = config(ONE_PORT, "vb", 1);
    let report = pair.in_b(|| with_capabilities(NET_RAW, || preflight::run(&config)));
    assert_eq!(report.backend, Some("packet"), "{report:#?}");
    assert_eq!(
        (state(&report, "CAP_BPF"), state(&report, "xdp")),
        (CheckStatus::Missing, CheckStatus::Missing)
    );
    assert!(why(&report, "xdp").contains("CAP_BPF"), "{report:#?}");
    let report = pair.in_b(|| with_capabilities(0, || preflight::run(&config)));
    assert_eq!(report.backend, Some("socket"), "{report:#?}");
    assert!(why(&report, "packet").contains("CAP_NET_RAW"), "{report:#?}");
    let named = EngineConfig { backend: BackendChoice::Packet, ..config.clone() };
    let report = pair.in_b(|| with_capabilities(0, || preflight::run(&named)));
    assert_eq!((report.backend, state(&report, "backend")), (None, CheckStatus::Missing));
}

#[test]
fn a_taken_port_a_missing_interface_and_a_foreign_program_are_seen() {
    rig::require_root!();
    let pair = Pair::new(1);
    let wrong = EngineConfig { rules: "else => queue(9)".into(), ..config(ONE_PORT, "vb", 1) };
    let report = pair.in_b(|| preflight::run(&wrong));
    assert_eq!((report.backend, state(&report, "rules")), (None, CheckStatus::Missing));
    let report = pair.in_b(|| preflight::run(&config(ONE_PORT, "eth7", 1)));
    assert_eq!((report.backend, state(&report, "interface")), (Some("socket"), CheckStatus::Missing));

    let taken = pair.in_b(|| UdpSocket::bind("0.0.0.0:9000")).unwrap();
    let report = pair.in_b(|| preflight::run(&config(ONE_PORT, "vb", 1)));
    assert_eq!(report.backend, None, "{report:#?}");
    assert!(why(&report, "socket").contains(&format!("pid {}", std::process::id())), "{report:#?}");
    drop(taken);

    // Another Millrace's program, on another port.
    let foreign = EngineConfig { backend: BackendChoice::Xdp, ..config(r#"{"port":9005}"#, "vb", 1) };
    let other = pair
        .in_b(|| millrace_core::rx::xdp::open(&foreign, &millrace_core::rx::RulePrograms::default()))
        .unwrap();
    let report = pair.in_b(|| preflight::run(&config(ONE_PORT, "vb", 1)));
    assert_eq!(
        (report.backend, state(&report, "foreign xdp")),
        (Some("packet"), CheckStatus::Degraded),
        "{report:#?}"
    );
    assert!(rig::run(&format!("ip -n {} link show dev vb", pair.b)).contains("xdp"), "untouched");
    drop(other);
}

#[test]
fn what_is_asked_for_beyond_a_backend_gets_a_verdict_each() {
    rig::require_root!();
    let pair = Pair::new(1);
    let plain = config(ONE_PORT, "vb", 1);
    let report = pair.in_b(|| preflight::run(&plain));
    for name in ["priority", "zero-copy", "napi_defer_hard_irqs", "gro_flush_timeout"] {
        assert!(report.findings.iter().all(|f| f.name != name), "not asked for: {report:#?}");
    }
    let asked = EngineConfig {
        rx_priority: Some(3),
        xdp_zerocopy: ZeroCopy::Auto,
        napi_defer_hard_irqs: Some(7),
        gro_flush_timeout: Some(20_000),
        ..plain
    };
    // Root has all it needs, but this process's /sys is not that of the namespace.
    let report = pair.in_b(|| preflight::run(&asked));
    assert_eq!(report.backend, Some("xdp"), "{report:#?}");
    assert!(why(&report, "zero-copy").contains("auto copies: driver veth on Linux"), "{report:#?}");
    for name in ["napi_defer_hard_irqs", "gro_flush_timeout"] {
        assert_eq!(state(&report, name), CheckStatus::Degraded, "{report:#?}");
        assert!(why(&report, name).contains("was left alone"), "{report:#?}");
    }
    if millrace_core::sys::scheduling::probe_fifo(3).is_ok() {
        assert!(why(&report, "priority").contains("SCHED_FIFO 3 can be had"), "{report:#?}");
        let spinning = EngineConfig { busy_poll: BusyPoll::Always, ..asked.clone() };
        let report = pair.in_b(|| preflight::run(&spinning));
        assert_eq!(state(&report, "priority"), CheckStatus::Degraded, "{report:#?}");
    }
    let on = EngineConfig { xdp_zerocopy: ZeroCopy::On, ..asked.clone() };
    let report = pair.in_b(|| with_capabilities(0, || preflight::run(&on)));
    assert_eq!(
        (state(&report, "zero-copy"), state(&report, "priority")),
        (CheckStatus::Degraded, CheckStatus::Degraded),
        "{report:#?}"
    );
    assert!(why(&report, "priority").contains("CAP_SYS_NICE"), "{report:#?}");
    let sockets = EngineConfig { backend: BackendChoice::Socket, ..asked };
    let report = pair.in_b(|| preflight::run(&sockets));
    assert!(why(&report, "gro_flush_timeout").contains("for xdp alone"), "{report:#?}");
}

#[test]
fn settings_are_tried_without_changing_them() {
    rig::require_root!();
    let pair = Pair::new(1);
    let asked = EngineConfig { gro_flush_timeout: Some(20_000), ..config(ONE_PORT, "vb", 1) };
    for (flags, verdict, says) in [
        (0, CheckStatus::Ok, "0 now, can be set to 20000"),
        (libc::MS_RDONLY, CheckStatus::Degraded, "/sys is read-only"),
    ] {
        pair.in_b(|| {
            rig::mount_own_sysfs(flags);
            let report = preflight::run(&asked);
            assert_eq!(state(&report, "gro_flush_timeout"), verdict, "{report:#?}");
            assert!(why(&report, "gro_flush_timeout").contains(says), "{report:#?}");
            let now = std::fs::read_to_string("/sys/class/net/vb/gro_flush_timeout").unwrap();
            assert_eq!(now.trim(), "0");
        });
    }
}

#[test]
fn source_specific_groups_leave_the_socket_backend() {
    rig::require_root!();
    let pair = Pair::new(1);
    let group = |source: Option<&str>| Multicast {
        group: "232.1.1.1".parse().unwrap(),
        interface: Some("vb".into()),
        source: source.map(|s| s.parse().unwrap()),
    };
    let with = |groups| EngineConfig { multicast: groups, ..config(ONE_PORT, "vb", 1) };
    let report = pair.in_b(|| preflight::run(&with(vec![group(None)])));
    assert_eq!((report.backend, state(&report, "guard")), (Some("xdp"), CheckStatus::Ok), "{report:#?}");
    assert!(why(&report, "guard").contains("one multicast group joined"), "{report:#?}");
    let narrow = with(vec![group(Some("192.0.2.1"))]);
    let report = pair.in_b(|| preflight::run(&narrow));
    assert_eq!(
        (report.backend, state(&report, "guard")),
        (Some("socket"), CheckStatus::Missing),
        "{report:#?}"
    );
    assert!(why(&report, "guard").contains("MILLRACE_BACKEND=socket"), "{report:#?}");
    let report = pair.in_b(|| preflight::run(&EngineConfig { backend: BackendChoice::Xdp, ..narrow }));
    assert_eq!(report.backend, None, "a start would fail, so the check does: {report:#?}");
}
