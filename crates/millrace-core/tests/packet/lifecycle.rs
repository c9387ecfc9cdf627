//! The packet backend's life: opening beside others, refusals, link flaps, closing.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use millrace_core::{error::Code, rx::Receiver};

use crate::{
    rig::{self, Pair, RawSender, V4},
    support::*,
};

#[test]
fn senders_get_no_port_unreachable_while_the_guard_is_open() {
    rig::require_root!();
    let pair = Pair::new(1);
    let refused = |v6, wait| {
        pair.in_a(|| {
            let socket = sender(v6);
            socket.set_read_timeout(Some(wait)).unwrap();
            socket.connect(to(v6, 9000)).unwrap();
            socket.send(b"?").unwrap();
            socket.recv(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
        })
    };
    assert!(refused(false, TIMEOUT) && refused(true, TIMEOUT), "without anybody the stack says so");
    let opened = open_packet(&pair, ONE_PORT, 1);
    const QUIET: Duration = Duration::from_millis(150);
    assert!(!refused(false, QUIET) && !refused(true, QUIET));
    drop(opened);
}

#[test]
fn a_second_owner_of_the_port_is_refused() {
    rig::require_root!();
    let pair = Pair::new(1);
    let first = open_packet(&pair, ONE_PORT, 2);
    let again = open_in_b(&pair, &config(ONE_PORT, "vb", 2), open_rings).err().expect("second instance");
    assert_eq!(again.code, Code::Port);
    assert!(again.message.contains(&format!("pid {}", std::process::id())), "{again}");
    for address in ["0.0.0.0:9000", "192.0.2.2:9000"] {
        let bound = pair.in_b(|| UdpSocket::bind(address));
        assert_eq!(bound.err().map(|e| e.kind()), Some(std::io::ErrorKind::AddrInUse));
    }
    drop(first);
    drop(open_in_b(&pair, &config(ONE_PORT, "vb", 2), open_rings).unwrap());
}

#[test]
fn refusals_name_the_cure() {
    rig::require_root!();
    let pair = Pair::new(1);
    let missing = open_in_b(&pair, &config(ONE_PORT, "eth7", 1), open_rings).err().expect("no eth7");
    assert_eq!(missing.code, Code::Interface);
    assert!(missing.message.contains("eth7") && missing.message.contains("lo, vb"), "{missing}");
    let config = config(ONE_PORT, "vb", 1);
    let refused = pair.in_b(|| without_capabilities(|| open_rings(&config))).err().expect("no capability");
    assert_eq!(refused.code, Code::Permission);
    assert!(refused.message.contains("CAP_NET_RAW"), "{refused}");
}

#[test]
fn a_link_flap_is_survived_and_a_removed_interface_is_not() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_packet(&pair, ONE_PORT, 2);
    let b = pair.b.clone();
    for round in 0..2 {
        rig::run(&format!("ip -n {b} link set vb down"));
        for r in &mut opened.receivers {
            r.wait(Duration::from_millis(10)).unwrap();
            assert_eq!(r.receive(&mut Collector::default()).unwrap(), 0);
        }
        // Cleared: the next wait sleeps.
        let start = Instant::now();
        opened.receivers[0].wait(Duration::from_millis(30)).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(30), "wait would spin while the link is down");
        pair.link_up();
        rig::run(&format!("ip -n {b} neigh replace {} lladdr 02:00:00:00:0a:01 dev vb", V4.0));
        pair.in_a(|| {
            let raw = RawSender::new("va");
            (0..20u16).for_each(|i| raw.send(&Pair::v4(1000 + i, 9000).bytes(&payload(i.into(), 50))));
        });
        assert_eq!(drain(&mut opened, 20).got.len(), 20, "round {round}");
    }
    rig::run(&format!("ip -n {b} link del vb"));
    let error = pair.in_b(|| opened.receivers[0].wait(TIMEOUT)).expect_err("removed");
    assert_eq!(error.code, Code::Interface);
}

#[test]
fn a_waiting_receiver_notices_that_its_interface_is_removed() {
    rig::require_root!();
    // The kernel's only sign comes before the name is gone, so the moment matters: several tries.
    for round in 0..8 {
        let pair = Pair::new(1);
        let mut opened = open_packet(&pair, ONE_PORT, 1);
        let error = std::thread::scope(|s| {
            let (pair, receiver) = (&pair, &mut opened.receivers[0]);
            let waiting = s.spawn(move || {
                pair.in_b(|| {
                    let start = Instant::now();
                    while start.elapsed() < TIMEOUT {
                        receiver.wait(Duration::from_millis(100))?;
                        receiver.receive(&mut Collector::default())?;
                    }
                    Ok(())
                })
            });
            std::thread::sleep(Duration::from_millis(20));
            rig::run(&format!("ip -n {} link del vb", pair.b));
            waiting.join().unwrap()
        });
        let error: millrace_core::error::Error =
            error.expect_err(&format!("round {round}: removal not seen"));
        assert_eq!(error.code, Code::Interface);
    }
}

#[test]
fn nothing_arrives_after_the_intake_is_closed() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_packet(&pair, ONE_PORT, 2);
    let send = || {
        pair.in_a(|| {
            for i in 0..10 {
                sender(false).send_to(&payload(i, 20), to(false, 9000)).unwrap();
                sender(true).send_to(&payload(i, 3000), to(true, 9000)).unwrap();
            }
        });
    };
    send();
    // No pause: what is in a block that the kernel has not handed over yet must come, too.
    opened.receivers.iter_mut().for_each(Receiver::close_intake);
    opened.guard.iter_mut().for_each(Receiver::close_intake);
    send();
    let mut collector = Collector::default();
    for r in &mut opened.receivers {
        while r.receive(&mut collector).unwrap() > 0 {}
    }
    let guard = opened.guard.as_mut().unwrap();
    while guard.receive(&mut collector).unwrap() > 0 {}
    assert_eq!(collector.got.len(), 20);
    std::thread::sleep(QUIET);
    assert_eq!(drain(&mut opened, 0).got.len(), 0);
    assert_eq!(lost(&mut opened), 0);
}
