//! What programs of the same host send, by loopback and out of the ring's interface.

use std::{
    net::{IpAddr, UdpSocket},
    time::Instant,
};

use millrace_core::{
    config::{EngineConfig, FanoutFlag, Multicast},
    datagram::flags,
    packet::build::Frame,
};

use crate::{
    rig::{self, Pair, RawSender, V4, V6},
    setup::{numbers, open, without_defrag},
    support::*,
};

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
        let collector = drain(&mut opened, K);
        assert_eq!(numbers(&collector), (0..K).collect::<Vec<_>>(), "{fanout_flags:?}");
        assert!(collector.got.iter().all(|g| g.flags & flags::SLOW_PATH != 0 && g.dst_port == 9000));
        pair.in_a(|| {
            let raw = RawSender::new("va");
            for i in 0..K {
                let v6 = i % 2 == 0;
                sender(v6).send_to(&payload(i, 20 + i * 10), to(v6, 9000)).unwrap();
                let frame = if v6 { Pair::v6(1, 9000) } else { Pair::v4(1, 9000) };
                raw.send(&Frame { vlan: vec![(0x8100, 5)], ..frame }.bytes(&payload(K + i, 30)));
            }
        });
        let collector = drain(&mut opened, 2 * K);
        assert_eq!(numbers(&collector), (0..2 * K).collect::<Vec<_>>(), "{fanout_flags:?}");
        assert_eq!(collector.got.iter().filter(|g| g.flags & flags::SLOW_PATH != 0).count(), 0);
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
    let mut sockets = open_in_b(&pair, &config, open_sockets).unwrap();
    send();
    assert_eq!(drain(&mut sockets, 10).got.len(), 10, "a socket hears it");
}

#[test]
fn a_ring_on_loopback_leaves_nothing_to_the_guard() {
    rig::require_root!();
    let pair = Pair::new(1);
    rig::add_address(&pair.b, "fe80::b:1/64", "vb");
    let mut opened = open_in_b(&pair, &config(ONE_PORT, "lo", 1), open_rings).unwrap();
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
    let collector = drain(&mut opened, 60);
    assert_eq!(numbers(&collector), (0..60).collect::<Vec<_>>());
    assert!(collector.got.iter().all(|g| g.flags & flags::SLOW_PATH == 0));
    // While the veth's are the guard's.
    let start = Instant::now();
    pair.in_a(|| sender(false).send_to(b"other", to(false, 9000)).unwrap());
    let collector = drain(&mut opened, 1);
    assert!(
        start.elapsed() < TIMEOUT
            && collector.sizes() == [5]
            && collector.got[0].flags & flags::SLOW_PATH != 0
    );
}
