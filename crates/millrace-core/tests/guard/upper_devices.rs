//! Devices that stand on the ring's interface (bridge, macvlan, VXLAN): which of their datagrams the ring has.

use std::time::Duration;

use millrace_core::{datagram::flags, packet::build::Frame, rx::Receiver};

use crate::{
    rig::{self, Pair, RawSender, V4},
    setup::{numbers, open},
    support::*,
};

/// A bridge; VLAN devices and their like are told from others by the same list.
#[test]
fn what_stands_on_the_rings_interface_is_not_delivered_twice() {
    rig::require_root!();
    // Made before opening, and after it.
    for later in [false, true] {
        let pair = Pair::new(1);
        let stand = || {
            let b = &pair.b;
            rig::run(&format!("ip -n {b} link add br0 type bridge"));
            rig::run(&format!("ip -n {b} link set vb master br0"));
            rig::run(&format!("ip -n {b} addr add 203.0.113.2/24 dev br0"));
            rig::run(&format!("ip -n {b} link set br0 up"));
        };
        if !later {
            stand();
        }
        let mut opened = open(&pair, &config(ONE_PORT, "vb", 2));
        let says = opened.info.degraded.iter().any(|d| d.contains("MILLRACE_INTERFACE=br0"));
        assert_eq!(says, !later, "{:?}", opened.info.degraded);
        if later {
            stand();
            // The guard reads the change in `wait`, as in its thread.
            pair.in_b(|| opened.guard.as_mut().unwrap().wait(Duration::from_millis(1)).unwrap());
        }
        pair.in_a(|| {
            let raw = RawSender::new("va");
            (0..50).for_each(|i| raw.send(&Pair::v4(1, 9000).bytes(&payload(i, 40))));
        });
        let collector = drain(&mut opened, 50);
        assert_eq!(numbers(&collector), (0..50).collect::<Vec<_>>(), "later {later}");
        assert_eq!(received_by_the_stack(&pair), 50, "later {later}: a second copy went up");
        assert_eq!(lost(&mut opened), 0);
    }
}

/// Datagrams that the namespace's UDP delivered to, or dropped at, a socket (`InDatagrams` and `InErrors`).
fn received_by_the_stack(pair: &Pair) -> u64 {
    let text = pair.in_b(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    let mut udp =
        text.lines().filter(|l| l.starts_with("Udp:")).map(|l| l.split_whitespace().collect::<Vec<_>>());
    let (names, values) = (udp.next().unwrap(), udp.next().unwrap());
    let of = |name| values[names.iter().position(|n| *n == name).unwrap()].parse::<u64>().unwrap();
    of("InDatagrams") + of("InErrors")
}

/// A frame for a MAC that is not the ring's is another host's to the ring, while the stack takes it.
#[test]
fn what_is_for_the_mac_of_something_on_the_rings_interface_comes_once() {
    rig::require_root!();
    const OWN: [u8; 6] = [2, 0, 0, 0, 0x0c, 0x99];
    // With the ring on the bridge itself, which takes frames for its ports' addresses too, the ring has them all.
    for (kind, ring, by_guard) in [("bridge", "vb", 20), ("bridge", "up0", 0), ("macvlan", "vb", 20)] {
        let pair = Pair::new(1);
        let b = &pair.b;
        let link = if kind == "bridge" { "" } else { "link vb" };
        let mode = if kind == "bridge" { "" } else { "mode bridge" };
        rig::run(&format!("ip -n {b} link add {link} name up0 address 02:00:00:00:0c:99 type {kind} {mode}"));
        if kind == "bridge" {
            rig::run(&format!("ip -n {b} link set vb master up0"));
        }
        rig::run(&format!("ip -n {b} addr add 203.0.113.2/24 dev up0"));
        rig::run(&format!("ip -n {b} link set up0 up"));
        let mut opened = open(&pair, &config(ONE_PORT, ring, 2));
        pair.in_a(|| {
            let raw = RawSender::new("va");
            for i in 0..60 {
                let dst_mac = [OWN, Pair::v4(1, 1).dst_mac, [0xff; 6]][i / 20];
                raw.send(&Frame { dst_mac, ..Pair::v4(1, 9000) }.bytes(&payload(i, 40)));
            }
        });
        let collector = drain(&mut opened, 60);
        assert_eq!(numbers(&collector), (0..60).collect::<Vec<_>>(), "{kind} {ring}");
        let slow = |g: &Collected| g.flags & flags::SLOW_PATH != 0;
        assert!(collector.got.iter().all(|g| slow(g) == (g.payload[0] < by_guard)), "{kind} {ring}");
        assert_eq!(lost(&mut opened), 0);
    }
}

/// The ring has only the tunnel's own datagrams, for another port.
#[test]
fn what_comes_out_of_a_tunnel_over_the_rings_interface_is_delivered() {
    rig::require_root!();
    let pair = Pair::new(1);
    let b = &pair.b;
    rig::run(&format!("ip -n {b} link add vx type vxlan id 3 dev vb remote {} dstport 4789", V4.0));
    rig::run(&format!("ip -n {b} link set vx address 02:00:00:00:0b:01"));
    rig::run(&format!("ip -n {b} addr add 203.0.113.2/24 dev vx"));
    rig::run(&format!("ip -n {b} link set vx up"));
    let mut opened = open(&pair, &config(ONE_PORT, "vb", 1));
    pair.in_a(|| {
        let raw = RawSender::new("va");
        for i in 0..20 {
            let inner = Frame {
                src: "203.0.113.1".parse().unwrap(),
                dst: "203.0.113.2".parse().unwrap(),
                ..Pair::v4(1, 9000)
            };
            let tunnelled = [&[8, 0, 0, 0, 0, 0, 3, 0][..], &inner.bytes(&payload(i, 40))].concat();
            raw.send(&Pair::v4(4000, 4789).bytes(&tunnelled));
        }
    });
    let collector = drain(&mut opened, 20);
    assert_eq!(numbers(&collector), (0..20).collect::<Vec<_>>());
    assert!(collector.got.iter().all(|g| g.flags & flags::SLOW_PATH != 0));
}
