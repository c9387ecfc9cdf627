//! Opening on an interface: what is asked of it, what it refuses, and what was granted.

use millrace_core::{
    config::{EngineConfig, ZeroCopy},
    error::Code,
    net::Interface,
    rx::{
        Receiver,
        xdp::{self},
    },
};

use crate::{
    rig::{self, Pair, V4, run},
    xdp_support::{Collector, assert_detached, config, drain_until, granted, open, send},
};

#[test]
fn interface_facts_come_from_the_threads_namespace() {
    rig::require_root!();
    let pair = Pair::new(4);
    run(&format!("ip -n {} route add default via {} dev vb", pair.b, V4.0));
    pair.in_b(|| {
        let vb = Interface::of_default_route().unwrap();
        assert_eq!((vb.name.as_str(), vb.rx_queues(), vb.driver().as_deref()), ("vb", 4, Some("veth")));
        assert_eq!(vb, Interface::by_name("vb").unwrap());
        let link = vb.link().unwrap();
        assert_eq!((link.mtu, link.operstate, link.xdp), (1500, "up", None));
    });
    pair.in_a(|| assert_eq!(Interface::of_default_route().unwrap_err().code, Code::Interface));
    let before = pair.in_b(|| Interface::by_name("vb").unwrap().link().unwrap().statistics.rx_packets);
    send(&pair, 0..10);
    let after = pair.in_b(|| Interface::by_name("vb").unwrap().link().unwrap().statistics.rx_packets);
    assert!(after >= before + 10, "{before} {after}");
}

#[test]
fn an_unknown_interface_is_an_error_that_names_the_known_ones() {
    rig::require_root!();
    let pair = Pair::new(1);
    let wrong = EngineConfig { interface: Some("eth77".into()), ..config("auto", 512, r#"{"port":9000}"#) };
    let e = pair.in_b(|| xdp::open(&wrong, &millrace_core::rx::RulePrograms::default())).err().unwrap();
    assert_eq!(e.code, Code::Interface);
    assert!(e.message.contains("eth77") && e.message.contains("lo, vb"), "{e}");
}

#[test]
fn zero_copy_that_the_driver_lacks_is_refused_or_not_tried() {
    rig::require_root!();
    let pair = Pair::new(1);
    let asked = |xdp_zerocopy| EngineConfig { xdp_zerocopy, ..config("native", 512, r#"{"port":9000}"#) };
    let e = pair
        .in_b(|| xdp::open(&asked(ZeroCopy::On), &millrace_core::rx::RulePrograms::default()))
        .err()
        .expect("veth has no zero-copy");
    assert_eq!(e.code, Code::Unsupported);
    assert!(e.message.contains("veth") && e.message.contains("MILLRACE_XDP_ZEROCOPY=off"), "{e}");
    assert_detached(&pair);
    let opened =
        pair.in_b(|| xdp::open(&asked(ZeroCopy::Auto), &millrace_core::rx::RulePrograms::default())).unwrap();
    assert_eq!(opened.info.mode, "native copy");
    assert!(opened.info.degraded.is_empty(), "{:?}", opened.info.degraded);
    let why = &opened.info.granted.iter().find(|(k, _)| k == "zero-copy asked for").unwrap().1;
    assert!(why.contains("veth") && why.contains("not in the list"), "{why}");
}

#[test]
fn busy_polling_is_called_active_only_when_the_kernel_knows_the_queue() {
    rig::require_root!();
    let pair = Pair::new(1);
    let asked = EngineConfig { xdp_prefer_busy_poll: true, ..config("native", 512, r#"{"port":9000}"#) };
    let mut opened = pair.in_b(|| xdp::open(&asked, &millrace_core::rx::RulePrograms::default())).unwrap();
    // veth takes the options and has no NAPI to offer.
    assert_eq!(granted(&opened, "preferred busy-poll"), "not active");
    assert!(
        opened.info.degraded.iter().any(|d| d.contains("SO_INCOMING_NAPI_ID")),
        "{:?}",
        opened.info.degraded
    );
    send(&pair, 0..100);
    let mut sink = Collector::default();
    drain_until(&mut opened.receivers, &mut sink, |_, s| s.datagrams == 100);
    assert!(opened.receivers[0].counters().notes.contains(&("busy_poll_napi_id", 0)));
}

#[test]
fn packet_memory_is_on_huge_pages_when_the_host_has_some() {
    rig::require_root!();
    let knob = "/proc/sys/vm/nr_hugepages";
    let pair = Pair::new(1);
    let before = std::fs::read_to_string(knob).unwrap_or_default();
    let pages = |n: &str| std::fs::write(knob, n).is_ok();
    if before.trim() != "0" || !pages("8") {
        return rig::skip("huge pages of this host are in use, or cannot be reserved");
    }
    let free = std::fs::read_to_string("/proc/meminfo").unwrap();
    let enough = free.lines().any(|l| l.starts_with("HugePages_Free") && l.trim().ends_with(" 8"));
    // 1024 frames are one page of 2 MiB.
    let opened = pair.in_b(|| open("native", 1024));
    let _ = pages("0");
    let mut opened = opened.unwrap();
    if enough {
        assert_eq!(granted(&opened, "packet memory"), "2 MiB pages");
    }
    send(&pair, 0..200);
    let mut sink = Collector::default();
    drain_until(&mut opened.receivers, &mut sink, |_, s| s.datagrams == 200);
    drop(opened);
    assert_detached(&pair);
    let opened = pair.in_b(|| open("native", 1024)).unwrap();
    assert_eq!(granted(&opened, "packet memory"), "ordinary pages");
}
