//! The number of rx queues changes while they are received from.

use std::{
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    error::Code,
    net::Interface,
    rx::{
        Receiver,
        xdp::{XdpReceiver, socket::XskSocket, umem::Umem},
    },
};

use crate::{
    rig::{self, Pair},
    xdp_support::{
        Collector, TIMEOUT, await_serving, drain, each_receives_its_own, lost, open, report, send, udp_socket,
    },
};

#[test]
fn the_number_of_rx_queues_changes() {
    rig::require_root!();
    let pair = Pair::new(4);
    let channels = |namespace: &str, change: &str| {
        let words: Vec<&str> = change.split(' ').collect();
        rig::shell::try_run(&[&["ip", "netns", "exec", namespace, "ethtool", "-L"], &words[..]].concat()).0
    };
    // veth's own rule: native XDP wants as many rx queues as the peer has tx queues.
    assert!(channels(&pair.b, "vb rx 2"));
    let e = pair.in_b(|| open("native", 1024)).err().unwrap();
    assert_eq!(e.code, Code::Unsupported);
    assert!(e.message.contains("more queues") && e.message.contains("ethtool -l vb"), "{e}");

    assert!(channels(&pair.a, "va tx 2"));
    let mut receivers = pair.in_b(|| open("native", 512)).unwrap().receivers;
    assert_eq!(receivers.len(), 2);
    assert!(!channels(&pair.b, "vb rx 1"), "the kernel keeps queues that AF_XDP sockets are bound to");

    // New queues have no socket until a receiver reconciles: their packets go up the stack, and nothing is lost.
    assert!(channels(&pair.b, "vb rx 4") && channels(&pair.a, "va tx 4"));
    let (socket, mut sink) = (udp_socket(&pair), Collector::default());
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    send(&pair, 0..400);
    let (mut by_stack, start) = (0, Instant::now());
    while sink.datagrams + by_stack < 400 {
        assert!(start.elapsed() < TIMEOUT, "{} by us, {by_stack} by the stack", sink.datagrams);
        drain(&mut receivers, &mut sink);
        by_stack += usize::from(socket.recv(&mut [0; 8]).is_ok());
    }
    assert!(sink.datagrams > 0 && by_stack > 0, "{} by us, {by_stack} by the stack", sink.datagrams);

    // The two receivers share out what is new; from then on the stack gets nothing.
    await_serving(&pair, &mut receivers, &[&[0, 2], &[1, 3]]);
    each_receives_its_own(&pair, &mut receivers, 400..1400, &[0, 1, 2, 3]);
    assert!(socket.recv(&mut [0; 8]).is_err(), "the stack got a datagram");

    // Queues that vanish give what they have, and their counters stay: 2,000 do not fit four rings of 256.
    send(&pair, 2000..4000);
    let before = lost(&mut receivers);
    assert!(before > 0, "the rings are too large for this test");
    receivers.iter_mut().for_each(|r| r.serve_rx_queues(1));
    let mut sink = Collector::default();
    drain(&mut receivers, &mut sink);
    assert_eq!((sink.datagrams as u64 + before, lost(&mut receivers)), (2000, before));
    assert_eq!((receivers[0].serves(), receivers[1].serves()), (vec![0], vec![]));
    assert_eq!(receivers[1].frames().total, 0, "closed, memory and all");
    assert_eq!(receivers[1].away(), None, "nothing to do is not trouble");

    // Only now the kernel takes the queues away. The sockets leave after a grace period.
    assert!(channels(&pair.a, "va tx 1"));
    let start = Instant::now();
    while !channels(&pair.b, "vb rx 1") {
        assert!(start.elapsed() < TIMEOUT, "the queues are still held");
        thread::sleep(Duration::from_millis(20));
    }
    await_serving(&pair, &mut receivers, &[&[0], &[]]);
    each_receives_its_own(&pair, &mut receivers, 4000..4100, &[0]);
    // And back.
    assert!(channels(&pair.b, "vb rx 4") && channels(&pair.a, "va tx 4"));
    await_serving(&pair, &mut receivers, &[&[0, 2], &[1, 3]]);
    each_receives_its_own(&pair, &mut receivers, 5000..6000, &[0, 1, 2, 3]);
    assert!(socket.recv(&mut [0; 8]).is_err(), "the stack got a datagram");
    assert_eq!(lost(&mut receivers), before);
}

#[test]
fn a_new_rx_queue_that_another_socket_has_is_named_and_taken_when_it_is_free() {
    rig::require_root!();
    let pair = Pair::new(2);
    rig::run(&format!("ip netns exec {} ethtool -L va tx 1", pair.a));
    rig::run(&format!("ip netns exec {} ethtool -L vb rx 1", pair.b));
    let mut receivers = pair.in_b(|| open("native", 512)).unwrap().receivers;
    rig::run(&format!("ip netns exec {} ethtool -L vb rx 2", pair.b));
    let umem = Umem::new(64, None).unwrap();
    let foreign = pair.in_b(|| {
        let socket = XskSocket::new(&umem, 32).unwrap();
        socket.bind(&Interface::by_name("vb").unwrap(), 1, false, false, TIMEOUT).unwrap();
        socket
    });
    let degraded = |r: &XdpReceiver| r.interface_state().info().degraded;
    let start = Instant::now();
    while degraded(&receivers[0]).is_empty() {
        assert!(start.elapsed() < TIMEOUT, "{}", report(&mut receivers));
        pair.in_b(|| drop(receivers[0].counters()));
    }
    let said = degraded(&receivers[0]);
    assert!(said[0].contains("rx queue 1 of vb") && said[0].contains("another AF_XDP socket"), "{said:?}");
    assert_eq!((said.len(), receivers[0].serves(), receivers[0].away()), (1, vec![0], None));
    drop(foreign);
    await_serving(&pair, &mut receivers, &[&[0, 1]]);
    assert!(degraded(&receivers[0]).is_empty());
    rig::run(&format!("ip netns exec {} ethtool -L va tx 2", pair.a));
    each_receives_its_own(&pair, &mut receivers, 0..500, &[0, 1]);
}
