//! The host's addresses: which of them the ring knows, and whether the guard's program has room for all.

use std::{net::IpAddr, time::Duration};

use millrace_core::{
    config::{EngineConfig, FanoutFlag},
    datagram::flags,
    packet::build::Frame,
    rx::{Opened, Receiver, packet::PacketReceiver},
};

use crate::{
    rig::{self, Pair, RawSender, V4, V6},
    setup::{numbers, open, without_defrag},
    support::*,
};

/// The stack takes more for the host's than the addresses it had at the start: what came after, and local routes.
#[test]
fn what_is_for_an_address_the_ring_does_not_know_comes_by_the_guard() {
    rig::require_root!();
    for fanout_flags in [vec![FanoutFlag::Uniqueid, FanoutFlag::Defrag], vec![FanoutFlag::Uniqueid]] {
        let pair = Pair::new(1);
        let b = &pair.b;
        rig::run(&format!("ip -n {b} route add local 203.0.113.0/24 dev lo"));
        let mut opened = open(&pair, &EngineConfig { fanout_flags, ..without_defrag(9000, 2) });
        rig::run(&format!("ip -n {b} addr add 198.18.0.1/24 dev vb"));
        rig::add_address(b, "2001:db8::77/64", "vb");
        pair.in_a(|| {
            let raw = RawSender::new("va");
            // The first two are the ring's.
            for (k, dst) in [V4.1, V6.1, "203.0.113.7", "198.18.0.1", "198.18.0.255", "2001:db8::77"]
                .into_iter()
                .enumerate()
            {
                let dst: IpAddr = dst.parse().unwrap();
                let mut frame =
                    Frame { dst, ..if dst.is_ipv6() { Pair::v6(1, 9000) } else { Pair::v4(1, 9000) } };
                if k == 4 {
                    frame.dst_mac = [0xff; 6];
                }
                (k * 10..k * 10 + 10).for_each(|i| raw.send(&frame.bytes(&payload(i, 1400))));
            }
        });
        let collector = drain(&mut opened, 60);
        assert_eq!(numbers(&collector), (0..60).collect::<Vec<_>>());
        assert!(collector.got.iter().all(|g| (g.flags & flags::SLOW_PATH == 0) == (g.payload[0] < 20)));
        assert_eq!(lost(&mut opened), 0);
    }
}

/// The kernel bounds the program that sorts for the guard (net.core.optmem_max; this was its default before Linux 6.8).
#[test]
fn a_host_with_many_addresses_is_served_with_little_optmem() {
    rig::require_root!();
    const LATER: &str = "2001:db8::77";
    for (addresses, fits) in [(300, true), (1500, false)] {
        let pair = Pair::new(1);
        let b = &pair.b;
        rig::run(&format!("ip netns exec {b} sysctl -qw net.core.optmem_max=20480"));
        let batch: String = (1..=addresses)
            .flat_map(|i| {
                let (v4, v6) =
                    (format!("10.9.{}.{}/32", i >> 8, i & 255), format!("fd00::{i:x}:fe00:{i:x}/128"));
                [format!("addr add {v4} dev lo\n"), format!("addr add {v6} dev lo nodad\n")]
            })
            .collect();
        let path = std::env::temp_dir().join(format!("{b}.batch"));
        std::fs::write(&path, batch).unwrap();
        rig::run(&format!("ip -n {b} -batch {}", path.display()));
        std::fs::remove_file(&path).unwrap();

        let mut opened = open(&pair, &config(ONE_PORT, "vb", 2));
        let says = opened.info.degraded.iter().filter(|d| d.contains("net.core.optmem_max")).count();
        assert_eq!(says, usize::from(!fits), "{addresses}: {:?}", opened.info.degraded);
        rig::add_address(b, &format!("{LATER}/64"), "vb");
        let last = format!("fd00::{addresses:x}:fe00:{addresses:x}");
        rig::await_local_route(b, &last);
        pair.in_a(|| {
            let raw = RawSender::new("va");
            for (k, dst) in [V4.1, V6.1, "10.9.0.1", &last, LATER].into_iter().enumerate() {
                let dst: IpAddr = dst.parse().unwrap();
                let frame =
                    Frame { dst, ..if dst.is_ipv6() { Pair::v6(1, 9000) } else { Pair::v4(1, 9000) } };
                (k * 10..k * 10 + 10).for_each(|i| raw.send(&frame.bytes(&payload(i, 1400))));
            }
        });
        // The ring's once each, whatever was left out; the guard's where it knows what the ring has.
        let expected = if fits { 50 } else { 40 };
        let collector = drain(&mut opened, expected);
        assert_eq!(numbers(&collector), (0..expected).collect::<Vec<_>>(), "{addresses}");
        assert!(collector.got.iter().all(|g| (g.flags & flags::SLOW_PATH == 0) == (g.payload[0] < 40)));
        // What came by loopback the ring never has.
        pair.in_b(|| sender(true).send_to(&payload(1, 30), (V6.1, 9000)).unwrap());
        assert_eq!(numbers(&drain(&mut opened, 1)), [1]);
        assert_eq!((lost(&mut opened), program_cut(&mut opened)), (0, 0));

        // No room for what there is now: said while running, and the ring's still come once.
        rig::run(&format!("ip netns exec {b} sysctl -qw net.core.optmem_max=4096"));
        rig::run(&format!("ip -n {b} link add link vb name up0 type macvlan mode bridge"));
        rig::run(&format!("ip -n {b} link set up0 up"));
        pair.in_b(|| opened.guard.as_mut().unwrap().wait(Duration::from_millis(1)).unwrap());
        // IPv6's program got shorter, where it had been whole; IPv4's needs much less room for an address.
        assert_eq!(program_cut(&mut opened), u64::from(fits));
        pair.in_a(|| {
            (0..10).for_each(|i| assert!(sender(true).send_to(&payload(i, 60), to(true, 9000)).is_ok()))
        });
        assert_eq!(numbers(&drain(&mut opened, 10)), (0..10).collect::<Vec<_>>());
    }
}

/// Link-local addresses of other interfaces take no room: the stack takes nothing for them by the ring's.
#[test]
fn link_local_addresses_of_other_interfaces_need_no_optmem() {
    rig::require_root!();
    for (dev, fits) in [("vb", false), ("other", true)] {
        let pair = Pair::new(1);
        let b = &pair.b;
        rig::run(&format!("ip netns exec {b} sysctl -qw net.core.optmem_max=20480"));
        rig::run(&format!("ip -n {b} link add other type veth peer name beyond"));
        rig::run(&format!("ip -n {b} link set other up"));
        let own = "fe80::b:1";
        rig::add_address(b, &format!("{own}/64"), "vb");
        let batch: String =
            (1..=700).map(|i| format!("addr add fe80::{i:x}:fe00:{i:x}/64 dev {dev} nodad\n")).collect();
        let path = std::env::temp_dir().join(format!("{b}.batch"));
        std::fs::write(&path, batch).unwrap();
        rig::run(&format!("ip -n {b} -batch {}", path.display()));
        std::fs::remove_file(&path).unwrap();

        let mut opened = open(&pair, &config(ONE_PORT, "vb", 1));
        let says = opened.info.degraded.iter().any(|d| d.contains("net.core.optmem_max"));
        assert_eq!(says, !fits, "{dev}: {:?}", opened.info.degraded);
        pair.in_a(|| {
            let raw = RawSender::new("va");
            for (k, dst) in [V6.1, own].into_iter().enumerate() {
                let frame = Frame { dst: dst.parse().unwrap(), ..Pair::v6(1, 9000) };
                (k * 10..k * 10 + 10).for_each(|i| raw.send(&frame.bytes(&payload(i, 60))));
            }
        });
        let collector = drain(&mut opened, 20);
        assert_eq!(numbers(&collector), (0..20).collect::<Vec<_>>(), "{dev}");
        assert!(collector.got.iter().all(|g| g.flags & flags::SLOW_PATH == 0), "{dev}");
    }
}

/// Number of times that the guard's programs had to be shortened after the start.
fn program_cut(opened: &mut Opened<PacketReceiver>) -> u64 {
    let notes = opened.guard.as_mut().unwrap().counters().notes;
    notes.iter().find(|n| n.0 == "guard_program_cut").unwrap().1
}
