//! What arrives on another interface than the ring's.

use std::{thread, time::Duration};

use millrace_core::{
    config::{EngineConfig, FanoutFlag, Multicast},
    datagram::flags,
    packet::build::Frame,
    rx::Receiver,
};

use crate::{
    rig::{self, Pair, RawSender},
    setup::{numbers, open, without_defrag},
    support::*,
};

/// A second interface of the receiving namespace, and what its other end sends from.
const SECOND: (&str, &str) = ("198.51.100.1", "198.51.100.2");

/// A namespace `c` beyond a second veth: `dv` there, `du` in `b`. Gone with `b`'s end.
struct SecondInterface(String);

impl SecondInterface {
    fn new(pair: &Pair) -> Self {
        let (b, c) = (&pair.b, format!("{}c", pair.b));
        rig::run(&format!("ip netns add {c}"));
        rig::run(&format!("ip link add dv netns {c} type veth peer name du netns {b}"));
        for (ns, dev, own) in [(b, "du", SECOND.1), (&c, "dv", SECOND.0)] {
            rig::run(&format!("ip -n {ns} addr add {own}/24 dev {dev}"));
            rig::run(&format!("ip -n {ns} link set {dev} up"));
        }
        SecondInterface(c)
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

impl Drop for SecondInterface {
    fn drop(&mut self) {
        rig::shell::try_run(&["ip", "netns", "del", &self.0]);
    }
}

#[test]
fn datagrams_by_a_second_interface_come_once() {
    rig::require_root!();
    for fanout_flags in [vec![FanoutFlag::Uniqueid, FanoutFlag::Defrag], vec![FanoutFlag::Uniqueid]] {
        let pair = Pair::new(1);
        let mut opened = open(&pair, &EngineConfig { fanout_flags, ..without_defrag(9000, 2) });
        // It did not even exist when the rings were made.
        let second = SecondInterface::new(&pair);
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
        let collector = drain(&mut opened, 90);
        assert_eq!(numbers(&collector), (0..90).collect::<Vec<_>>());
        for g in &collector.got {
            assert_eq!(g.flags & flags::SLOW_PATH != 0, g.payload[0] < 60, "{}", g.payload[0]);
        }
        assert_eq!(lost(&mut opened), 0);
    }
}

#[test]
fn groups_joined_on_a_second_interface_come_once() {
    rig::require_root!();
    let pair = Pair::new(1);
    let second = SecondInterface::new(&pair);
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
    let collector = drain(&mut opened, 40);
    assert_eq!(numbers(&collector), (0..40).collect::<Vec<_>>());
    assert!(collector.got.iter().all(|g| (g.flags & flags::SLOW_PATH != 0) == (g.payload[0] < 20)));
}
