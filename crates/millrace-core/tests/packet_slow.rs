//! The packet backend's guard: what the ring cannot have is delivered, once, and nothing that the ring has.

mod rig;
#[path = "socket_support/mod.rs"]
mod support;

use std::{
    net::{IpAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    config::{EngineConfig, FanoutFlag, Multicast},
    datagram::flags,
    packet::build::Frame,
    rx::{Opened, Receiver, packet, packet::PacketReceiver, socket},
};
use rig::{Pair, RawSender, V4, V6};
use support::*;

/// A second interface of the receiving namespace, and what its other end sends from.
const SECOND: (&str, &str) = ("198.51.100.1", "198.51.100.2");

fn without_defrag(port: u16, threads: u16) -> EngineConfig {
    let listen = format!(r#"{{"port":{port}}}"#);
    EngineConfig { fanout_flags: vec![FanoutFlag::Uniqueid], ..config(&listen, "vb", threads) }
}

fn open(pair: &Pair, config: &EngineConfig) -> Opened<PacketReceiver> {
    open_in_b(pair, config, packet::open).unwrap()
}

/// The numbers in the first two bytes, sorted.
fn numbers(keep: &Keep) -> Vec<usize> {
    let mut all: Vec<usize> =
        keep.got.iter().map(|g| usize::from(g.payload[0]) | usize::from(g.payload[1]) << 8).collect();
    all.sort_unstable();
    all
}

/// A namespace `c` beyond a second veth: `dv` there, `du` in `b`. Gone with `b`'s end.
struct Second(String);

impl Second {
    fn new(pair: &Pair) -> Self {
        let (b, c) = (&pair.b, format!("{}c", pair.b));
        rig::run(&format!("ip netns add {c}"));
        rig::run(&format!("ip link add dv netns {c} type veth peer name du netns {b}"));
        for (ns, dev, own) in [(b, "du", SECOND.1), (&c, "dv", SECOND.0)] {
            rig::run(&format!("ip -n {ns} addr add {own}/24 dev {dev}"));
            rig::run(&format!("ip -n {ns} link set {dev} up"));
        }
        Second(c)
    }

    /// Sends raw frames to everybody out of `dv`: no neighbour has to be found.
    fn send(&self, to: &str, numbers: std::ops::Range<usize>) {
        let file = std::fs::File::open(format!("/run/netns/{}", self.0)).unwrap();
        thread::scope(|s| {
            s.spawn(move || {
                // SAFETY: setns takes an open namespace fd and changes only this thread.
                let rc = unsafe { libc::setns(std::os::fd::AsRawFd::as_raw_fd(&file), libc::CLONE_NEWNET) };
                assert_eq!(rc, 0);
                let raw = RawSender::new("dv");
                let frame = Frame {
                    dst_mac: [0xff; 6],
                    ..Frame::new((SECOND.0.parse().unwrap(), 7), (to.parse().unwrap(), 9000))
                };
                numbers.for_each(|i| raw.send(&frame.bytes(&payload(i, 60))));
            });
        });
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        rig::shell::try_run(&["ip", "netns", "del", &self.0]);
    }
}

#[test]
fn ipv4_fragments_come_by_the_guard_when_the_group_does_not_defragment() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open(&pair, &without_defrag(9000, 2));
    let v4 = fragmented(&pair, &mut opened, false);
    assert_ne!(v4.flags & flags::SLOW_PATH, 0);
    assert_eq!((v4.dst.to_ip().to_string().as_str(), v4.dst_port), (V4.1, 9000));
    // Whole ones and fragmented ones of every size, up to the largest, in one row; the ring has the whole ones.
    let sizes = [0, 1, 9, 1400, 1472, 1473, 1480, 3000, 65_507];
    pair.in_a(|| {
        for (i, size) in sizes.into_iter().enumerate() {
            assert_eq!(sender(false).send_to(&payload(i, size), to(false, 9000)).unwrap(), size);
        }
    });
    let keep = drain(&mut opened, sizes.len());
    let mut got: Vec<_> =
        keep.got.iter().map(|g| (g.payload.len(), g.flags & flags::SLOW_PATH != 0)).collect();
    got.sort_unstable();
    assert_eq!(got, sizes.map(|s| (s, s > 1472)));
    for g in &keep.got {
        let i = sizes.iter().position(|s| *s == g.payload.len()).unwrap();
        assert_eq!(g.payload, payload(i, g.payload.len()));
    }
    // The smallest there can be: eight bytes, which are the UDP header, and one more; "don't fragment" set on both.
    pair.in_a(|| {
        let whole = Pair::v4(7, 9000).bytes(b"!");
        for (from, upto, field) in [(0, 8, 0x6000u16), (8, 9, 0x4001)] {
            let mut part = whole[..34].to_vec();
            part.extend(&whole[34 + from..34 + upto]);
            part[16..18].copy_from_slice(&(20 + (upto - from) as u16).to_be_bytes());
            part[20..22].copy_from_slice(&field.to_be_bytes());
            part[24..26].fill(0);
            let sum = (14..34)
                .step_by(2)
                .map(|i| u32::from(u16::from_be_bytes([part[i], part[i + 1]])))
                .sum::<u32>();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            part[24..26].copy_from_slice(&sum.to_be_bytes());
            RawSender::new("va").send(&part);
        }
    });
    let keep = drain(&mut opened, 1);
    assert_eq!(keep.got.iter().map(|g| g.payload.as_slice()).collect::<Vec<_>>(), [b"!"]);
    assert_eq!(lost(&mut opened), 0);
}

#[test]
fn super_packets_come_once_when_the_group_does_not_defragment() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open(&pair, &without_defrag(9000, 1));
    for v6 in [false, true] {
        let keep = segmented(&pair, &mut opened, v6);
        assert!(keep.got.iter().all(|g| g.flags & flags::SLOW_PATH == 0));
    }
}

/// Sends `K` datagrams each by loopback (to four addresses), by the veth, and by the veth in a VLAN.
#[test]
fn datagrams_by_loopback_come_once_beside_those_of_the_ring() {
    rig::require_root!();
    const K: usize = 100;
    let defrag = vec![FanoutFlag::Uniqueid, FanoutFlag::Defrag];
    for fanout_flags in [defrag, vec![FanoutFlag::Uniqueid]] {
        let pair = Pair::new(1);
        let mut opened =
            open(&pair, &EngineConfig { fanout_flags: fanout_flags.clone(), ..without_defrag(9000, 2) });
        pair.in_b(|| {
            for (i, to) in (0..K).zip(["127.0.0.1", "::1", V4.1, V6.1].into_iter().cycle()) {
                let to: IpAddr = to.parse().unwrap();
                sender(to.is_ipv6()).send_to(&payload(i, 20 + i * 40), (to, 9000)).unwrap();
            }
        });
        let keep = drain(&mut opened, K);
        assert_eq!(numbers(&keep), (0..K).collect::<Vec<_>>(), "{fanout_flags:?}");
        assert!(keep.got.iter().all(|g| g.flags & flags::SLOW_PATH != 0 && g.dst_port == 9000));
        pair.in_a(|| {
            let raw = RawSender::new("va");
            for i in 0..K {
                let v6 = i % 2 == 0;
                sender(v6).send_to(&payload(i, 20 + i * 10), to(v6, 9000)).unwrap();
                let frame = if v6 { Pair::v6(1, 9000) } else { Pair::v4(1, 9000) };
                raw.send(&Frame { vlan: vec![(0x8100, 5)], ..frame }.bytes(&payload(K + i, 30)));
            }
        });
        let keep = drain(&mut opened, 2 * K);
        assert_eq!(numbers(&keep), (0..2 * K).collect::<Vec<_>>(), "{fanout_flags:?}");
        assert_eq!(keep.got.iter().filter(|g| g.flags & flags::SLOW_PATH != 0).count(), 0);
        assert_eq!(lost(&mut opened), 0);
    }
}

/// The kernel's control message names the bound device, not loopback, for such a sender.
#[test]
fn a_local_sender_bound_to_the_rings_interface_is_heard() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open(&pair, &config(ONE_PORT, "vb", 1));
    pair.in_b(|| {
        let socket = sender(false);
        // SAFETY: pointer and length describe the name.
        let rc = unsafe {
            libc::setsockopt(
                std::os::fd::AsRawFd::as_raw_fd(&socket),
                libc::SOL_SOCKET,
                libc::SO_BINDTODEVICE,
                c"vb".as_ptr().cast(),
                3,
            )
        };
        assert_eq!(rc, 0);
        (0..10).for_each(|i| assert!(socket.send_to(&payload(i, 30), (V4.1, 9000)).unwrap() > 0));
    });
    assert_eq!(numbers(&drain(&mut opened, 10)), (0..10).collect::<Vec<_>>());
}

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
            // The guard hears of it as its thread does.
            pair.in_b(|| opened.guard.as_mut().unwrap().wait(Duration::from_millis(1)).unwrap());
        }
        pair.in_a(|| {
            let raw = RawSender::new("va");
            (0..50).for_each(|i| raw.send(&Pair::v4(1, 9000).bytes(&payload(i, 40))));
        });
        let keep = drain(&mut opened, 50);
        assert_eq!(numbers(&keep), (0..50).collect::<Vec<_>>(), "later {later}");
        assert_eq!(received_by_the_stack(&pair), 50, "later {later}: a second copy went up");
        assert_eq!(lost(&mut opened), 0);
    }
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
        let keep = drain(&mut opened, 60);
        assert_eq!(numbers(&keep), (0..60).collect::<Vec<_>>(), "{kind} {ring}");
        let slow = |g: &Got| g.flags & flags::SLOW_PATH != 0;
        assert!(keep.got.iter().all(|g| slow(g) == (g.payload[0] < by_guard)), "{kind} {ring}");
        assert_eq!(lost(&mut opened), 0);
    }
}

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
        rig::run(&format!("ip -n {b} addr add 2001:db8::77/64 dev vb nodad"));
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
        let keep = drain(&mut opened, 60);
        assert_eq!(numbers(&keep), (0..60).collect::<Vec<_>>());
        assert!(keep.got.iter().all(|g| (g.flags & flags::SLOW_PATH == 0) == (g.payload[0] < 20)));
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
        rig::run(&format!("ip -n {b} addr add {LATER}/64 dev vb nodad"));
        pair.in_a(|| {
            let raw = RawSender::new("va");
            let last = format!("fd00::{addresses:x}:fe00:{addresses:x}");
            for (k, dst) in [V4.1, V6.1, "10.9.0.1", &last, LATER].into_iter().enumerate() {
                let dst: IpAddr = dst.parse().unwrap();
                let frame =
                    Frame { dst, ..if dst.is_ipv6() { Pair::v6(1, 9000) } else { Pair::v4(1, 9000) } };
                (k * 10..k * 10 + 10).for_each(|i| raw.send(&frame.bytes(&payload(i, 1400))));
            }
        });
        // The ring's once each, whatever was left out; the guard's where it knows what the ring has.
        let expected = if fits { 50 } else { 40 };
        let keep = drain(&mut opened, expected);
        assert_eq!(numbers(&keep), (0..expected).collect::<Vec<_>>(), "{addresses}");
        assert!(keep.got.iter().all(|g| (g.flags & flags::SLOW_PATH == 0) == (g.payload[0] < 40)));
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
        rig::run(&format!("ip -n {b} addr add {own}/64 dev vb nodad"));
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
        let keep = drain(&mut opened, 20);
        assert_eq!(numbers(&keep), (0..20).collect::<Vec<_>>(), "{dev}");
        assert!(keep.got.iter().all(|g| g.flags & flags::SLOW_PATH == 0), "{dev}");
    }
}

/// Times that the guard's programs had to be cut shorter after the start.
fn program_cut(opened: &mut Opened<PacketReceiver>) -> u64 {
    let notes = opened.guard.as_mut().unwrap().counters().notes;
    notes.iter().find(|n| n.0 == "guard_program_cut").unwrap().1
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
    let keep = drain(&mut opened, 20);
    assert_eq!(numbers(&keep), (0..20).collect::<Vec<_>>());
    assert!(keep.got.iter().all(|g| g.flags & flags::SLOW_PATH != 0));
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

#[test]
fn datagrams_by_a_second_interface_come_once() {
    rig::require_root!();
    for fanout_flags in [vec![FanoutFlag::Uniqueid, FanoutFlag::Defrag], vec![FanoutFlag::Uniqueid]] {
        let pair = Pair::new(1);
        let mut opened = open(&pair, &EngineConfig { fanout_flags, ..without_defrag(9000, 2) });
        // It did not even exist when the rings were made.
        let second = Second::new(&pair);
        pair.in_b(|| opened.guard.as_mut().unwrap().wait(Duration::from_millis(1)).unwrap());
        second.send(SECOND.1, 0..30);
        // Broadcast goes to every socket of a group, past its program.
        second.send("255.255.255.255", 30..60);
        pair.in_a(|| {
            let raw = RawSender::new("va");
            for i in 60..90 {
                let to_all = Frame {
                    dst: "255.255.255.255".parse().unwrap(),
                    dst_mac: [0xff; 6],
                    ..Pair::v4(1000, 9000)
                };
                raw.send(&to_all.bytes(&payload(i, 60)));
            }
        });
        let keep = drain(&mut opened, 90);
        assert_eq!(numbers(&keep), (0..90).collect::<Vec<_>>());
        for g in &keep.got {
            assert_eq!(g.flags & flags::SLOW_PATH != 0, g.payload[0] < 60, "{}", g.payload[0]);
        }
        assert_eq!(lost(&mut opened), 0);
    }
}

#[test]
fn groups_joined_on_a_second_interface_come_once() {
    rig::require_root!();
    let pair = Pair::new(1);
    let second = Second::new(&pair);
    let group = |interface: &str| Multicast {
        group: "239.1.2.3".parse().unwrap(),
        interface: Some(interface.into()),
        source: None,
    };
    let both = EngineConfig { multicast: vec![group("vb"), group("du")], ..config(ONE_PORT, "vb", 1) };
    let mut opened = open(&pair, &both);
    second.send("239.1.2.3", 0..20);
    pair.in_a(|| {
        let raw = RawSender::new("va");
        let frame = Frame {
            dst: "239.1.2.3".parse().unwrap(),
            dst_mac: [1, 0, 0x5e, 1, 2, 3],
            ..Pair::v4(1000, 9000)
        };
        (20..40).for_each(|i| raw.send(&frame.bytes(&payload(i, 60))));
    });
    let keep = drain(&mut opened, 40);
    assert_eq!(numbers(&keep), (0..40).collect::<Vec<_>>());
    assert!(keep.got.iter().all(|g| (g.flags & flags::SLOW_PATH != 0) == (g.payload[0] < 20)));
}

/// The limit the README names: no ring is shown such a frame, and the guard cannot tell it from one that a ring has.
#[test]
fn multicast_of_a_local_sender_out_of_the_rings_interface_does_not_come_back() {
    rig::require_root!();
    let pair = Pair::new(1);
    let group = Multicast { group: "239.1.2.3".parse().unwrap(), interface: Some("vb".into()), source: None };
    let config = EngineConfig { multicast: vec![group], ..config(ONE_PORT, "vb", 1) };
    let send = || {
        pair.in_b(|| {
            let socket = UdpSocket::bind((V4.1, 0)).unwrap();
            assert!(socket.multicast_loop_v4().unwrap());
            rig::run(&format!("ip -n {} route replace 239.1.2.3 dev vb", pair.b));
            (0..10).for_each(|i| assert!(socket.send_to(&payload(i, 30), "239.1.2.3:9000").unwrap() > 0));
        });
    };
    let mut rings = open(&pair, &config);
    send();
    assert_eq!(drain(&mut rings, 0).got.len(), 0);
    drop(rings);
    let mut sockets = open_in_b(&pair, &config, socket::open).unwrap();
    send();
    assert_eq!(drain(&mut sockets, 10).got.len(), 10, "a socket hears it");
}

/// A loss is in the books only where the datagram was surely nowhere else.
#[test]
fn what_the_guard_lost_is_a_loss_or_a_note() {
    rig::require_root!();
    let pair = Pair::new(1);
    let tiny = EngineConfig { socket_rcvbuf: 16_384, ..config(ONE_PORT, "vb", 1) };
    let mut opened = open(&pair, &tiny);
    let unsure = |opened: &mut Opened<PacketReceiver>| {
        let notes = opened.guard.as_mut().unwrap().counters().notes;
        notes.iter().find(|n| n.0 == "guard_rcvbuf_unsure").unwrap().1
    };
    // Large and whole: the ring has them all.
    let count = 200;
    pair.in_a(|| {
        (0..count).for_each(|i| assert!(sender(true).send_to(&payload(i, 1300), to(true, 9000)).unwrap() > 0))
    });
    thread::sleep(QUIET);
    let maybe = unsure(&mut opened);
    assert!(maybe > 0 && maybe < count as u64);
    let keep = drain(&mut opened, count);
    assert_eq!(numbers(&keep), (0..count).collect::<Vec<_>>());
    assert_eq!(lost(&mut opened), 0);
    // By loopback: what is not read is lost.
    pair.in_b(|| {
        (0..count)
            .for_each(|i| assert!(sender(false).send_to(&payload(i, 1300), ("127.0.0.1", 9000)).unwrap() > 0))
    });
    let keep = drain(&mut opened, 1);
    assert!(!keep.got.is_empty() && keep.got.len() < count);
    assert_eq!(lost(&mut opened), (count - keep.got.len()) as u64);
    assert_eq!(unsure(&mut opened), maybe);
}

/// Fragments of one datagram for one port, read by two rings in one namespace: each has its own, whoever defragments.
#[test]
fn rings_beside_each_other_get_their_fragments() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut older = open(&pair, &without_defrag(9000, 2));
    let mut newer = open(&pair, &without_defrag(9001, 2));
    pair.in_a(|| {
        for i in 0..40 {
            let port = 9000 + (i % 2) as u16;
            sender(false).send_to(&payload(i, 4000), to(false, port)).unwrap();
            // No more under way than the kernel's reassembly holds.
            thread::sleep(Duration::from_millis(1));
        }
    });
    for (opened, first) in [(&mut older, 0), (&mut newer, 1)] {
        let keep = drain(opened, 20);
        assert_eq!(numbers(&keep), (first..40).step_by(2).collect::<Vec<_>>());
        assert_eq!(lost(opened), 0);
    }
}

#[test]
fn a_ring_on_loopback_leaves_nothing_to_the_guard() {
    rig::require_root!();
    let pair = Pair::new(1);
    rig::run(&format!("ip -n {} addr add fe80::b:1/64 dev vb nodad", pair.b));
    let mut opened = open_in_b(&pair, &config(ONE_PORT, "lo", 1), packet::open).unwrap();
    pair.in_b(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        (0..50).for_each(|i| assert!(socket.send_to(&payload(i, 30), "127.0.0.1:9000").unwrap() > 0));
        // Another interface's link-local address.
        let index = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        let vb =
            index.lines().find(|l| l.ends_with(" vb")).and_then(|l| l.split_whitespace().nth(1)).unwrap();
        let to = std::net::SocketAddrV6::new(
            "fe80::b:1".parse().unwrap(),
            9000,
            0,
            u32::from_str_radix(vb, 16).unwrap(),
        );
        (50..60).for_each(|i| assert!(sender(true).send_to(&payload(i, 30), to).unwrap() > 0));
    });
    let keep = drain(&mut opened, 60);
    assert_eq!(numbers(&keep), (0..60).collect::<Vec<_>>());
    assert!(keep.got.iter().all(|g| g.flags & flags::SLOW_PATH == 0));
    // While the veth's are the guard's.
    let start = Instant::now();
    pair.in_a(|| sender(false).send_to(b"other", to(false, 9000)).unwrap());
    let keep = drain(&mut opened, 1);
    assert!(start.elapsed() < TIMEOUT && keep.sizes() == [5] && keep.got[0].flags & flags::SLOW_PATH != 0);
}
