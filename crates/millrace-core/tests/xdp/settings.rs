//! Settings of the interface in /sys, for preferred busy-polling: made when asked for, put back, refused in words.

use std::fs;

use millrace_core::{
    config::{BackendChoice, EngineConfig},
    engine::Engine,
    rx::{Opened, Receiver, xdp},
};

use crate::{
    rig::{self, Pair, mount_own_sysfs},
    xdp_support::{Collector, TIMEOUT, assert_detached, config},
};

fn value(name: &str) -> String {
    fs::read_to_string(format!("/sys/class/net/vb/{name}")).unwrap().trim().to_owned()
}

fn values() -> (String, String) {
    (value("napi_defer_hard_irqs"), value("gro_flush_timeout"))
}

fn pair_of(a: &str, b: &str) -> (String, String) {
    (a.into(), b.into())
}

fn asking(irqs: Option<u32>, timeout: Option<u32>) -> EngineConfig {
    EngineConfig {
        napi_defer_hard_irqs: irqs,
        gro_flush_timeout: timeout,
        rules: "queue(0)".into(),
        ..config("native", 512, r#"{"port":9000}"#)
    }
}

fn granted<R: Receiver>(opened: &Opened<R>, what: &str) -> Option<String> {
    opened.info.granted.iter().find(|(k, _)| k == what).map(|(_, v)| v.clone())
}

#[test]
fn settings_are_made_and_put_back() {
    rig::require_root!();
    let pair = Pair::new(1);
    pair.in_b(|| {
        mount_own_sysfs(0);
        fs::write("/sys/class/net/vb/gro_flush_timeout", "1234").unwrap();
        let opened =
            xdp::open(&asking(Some(7), Some(20_000)), &millrace_core::rx::RulePrograms::default()).unwrap();
        assert_eq!(values(), pair_of("7", "20000"));
        assert!(granted(&opened, "gro_flush_timeout").unwrap().starts_with("20000 (was 1234;"));
        assert!(opened.info.degraded.is_empty(), "{:?}", opened.info.degraded);
        drop(opened);
        assert_eq!(values(), pair_of("0", "1234"));
        assert_detached(&pair);

        // One setting is configured alone, and the other is not read.
        let opened = xdp::open(&asking(None, Some(5)), &millrace_core::rx::RulePrograms::default()).unwrap();
        assert_eq!((values(), granted(&opened, "napi_defer_hard_irqs")), (pair_of("0", "5"), None));
        // A value that another process has set since then stays.
        fs::write("/sys/class/net/vb/gro_flush_timeout", "99").unwrap();
        drop(opened);
        assert_eq!(values(), pair_of("0", "99"));
        assert_detached(&pair);

        // The engine puts back when it is stopped, while it can still be asked for its stats.
        let mut engine = Engine::open(asking(Some(3), None)).unwrap();
        assert_eq!(values(), pair_of("3", "99"));
        engine.stop();
        assert_eq!(values(), pair_of("0", "99"));
        assert_eq!(engine.stats().backend.backend, "xdp");
    });
}

#[test]
fn an_interface_that_comes_again_gets_the_settings_too() {
    rig::require_root!();
    let pair = Pair::new(1);
    pair.in_b(|| {
        mount_own_sysfs(0);
        let mut receivers =
            xdp::open(&asking(Some(7), None), &millrace_core::rx::RulePrograms::default()).unwrap().receivers;
        pair.delete_link();
        let start = std::time::Instant::now();
        let mut until = |done: &dyn Fn(&xdp::XdpReceiver) -> bool| {
            while !done(&receivers[0]) {
                assert!(start.elapsed() < TIMEOUT, "{:?}", receivers[0].away());
                receivers[0].wait(std::time::Duration::from_millis(5)).unwrap();
                receivers[0].receive(&mut Collector::default()).unwrap();
                receivers[0].counters();
            }
        };
        until(&|r| r.away().is_some());
        pair.create_link(1, rig::MAC_B);
        assert_eq!(value("napi_defer_hard_irqs"), "0");
        until(&|r| r.serves() == [0]);
        assert_eq!(value("napi_defer_hard_irqs"), "7");
        drop(receivers);
        assert_eq!(value("napi_defer_hard_irqs"), "0");
    });
}

#[test]
fn a_read_only_sys_is_said_and_harmless() {
    rig::require_root!();
    let pair = Pair::new(1);
    pair.in_b(|| {
        mount_own_sysfs(libc::MS_RDONLY);
        let opened =
            xdp::open(&asking(Some(7), Some(20_000)), &millrace_core::rx::RulePrograms::default()).unwrap();
        let said = &opened.info.degraded;
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].contains("/sys is read-only") && said[0].contains("napi_defer_hard_irqs"),
            "{said:?}"
        );
        assert!(said[1].contains("echo 20000 > /sys/class/net/vb/gro_flush_timeout"), "{said:?}");
        assert_eq!((values(), granted(&opened, "gro_flush_timeout")), (pair_of("0", "0"), None));
    });
    assert_detached(&pair);
    // A /sys that shows other interfaces than there are: this process's own.
    pair.in_b(|| {
        let opened = xdp::open(&asking(Some(7), None), &millrace_core::rx::RulePrograms::default()).unwrap();
        assert!(opened.info.degraded[0].contains("was left alone"), "{:?}", opened.info.degraded);
    });
}

#[test]
fn other_backends_say_that_they_have_no_use_for_them() {
    rig::require_root!();
    let pair = Pair::new(1);
    pair.in_b(|| {
        mount_own_sysfs(0);
        for backend in [BackendChoice::Packet, BackendChoice::Socket] {
            let engine = Engine::open(EngineConfig { backend, ..asking(Some(7), Some(20_000)) });
            let degraded = engine.unwrap().stats().backend.degraded;
            let both = "MILLRACE_NAPI_DEFER_HARD_IRQS and MILLRACE_GRO_FLUSH_TIMEOUT: for xdp alone";
            assert!(degraded.iter().any(|d| d.starts_with(both)), "{degraded:?}");
            assert_eq!(values(), pair_of("0", "0"));
        }
    });
}
