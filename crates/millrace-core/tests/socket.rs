//! The socket backend: what is sent to it in a namespace comes out, once, with the right bytes and metadata.

mod rig;
#[path = "rig/self_test.rs"]
mod rig_self_test;
#[path = "support/receive.rs"]
mod support;

use std::{net::UdpSocket, time::Duration};

use millrace_core::{
    config::{EngineConfig, FanoutMode, Timestamps},
    datagram::{Timestamp, flags},
    error::{Code, Result},
    net::Interface,
    packet::FrameDrop,
    rx::{
        Receiver, RulePrograms,
        guard::{GuardReceiver, open_for_packet, open_for_xdp},
        socket,
    },
};
use rig::{Pair, RawSender, V4, V6};
use support::*;

const THREE_PORTS: &str = r#"{"port":9000},{"port":9001},{"port":9002}"#;

#[test]
fn twenty_thousand_datagrams_arrive_exactly() {
    rig::require_root!();
    let pair = Pair::new(2);
    let mut opened = open_in_b(&pair, &config(THREE_PORTS, "vb", 4), open_sockets).unwrap();
    assert!(opened.info.degraded.is_empty(), "{:?}", opened.info.degraded);
    exact(&pair, &mut opened, false);
}

#[test]
fn kernel_times_are_there_when_asked_for() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut config = config(r#"{"port":9000}"#, "vb", 1);
    config.socket_timestamps = Timestamps::Kernel;
    let mut opened = open_in_b(&pair, &config, open_sockets).unwrap();
    let before = Timestamp::now();
    pair.in_a(|| [false, true].map(|v6| sender(v6).send_to(b"x", to(v6, 9000)).unwrap()));
    let after = Timestamp::now();
    std::thread::sleep(QUIET);
    let collector = drain(&mut opened, 2);
    assert_eq!(collector.got.len(), 2);
    for got in collector.got {
        assert_eq!(got.flags, flags::KERNEL_TIME);
        let key = |t: Timestamp| (t.secs, t.nanos);
        assert!(key(before) <= key(got.time) && key(got.time) <= key(after), "{before:?} {got:?} {after:?}");
    }
}

#[test]
fn a_segmented_burst_is_split() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_in_b(&pair, &config(r#"{"port":9000}"#, "vb", 2), open_sockets).unwrap();
    for v6 in [false, true] {
        let collector = segmented(&pair, &mut opened, v6);
        assert!(
            collector.got.iter().all(|g| g.flags & flags::SPLIT != 0),
            "veth hands the super-packet over whole"
        );
    }
}

#[test]
fn fragments_are_one_datagram() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_in_b(&pair, &config(r#"{"port":9000}"#, "vb", 2), open_sockets).unwrap();
    for v6 in [false, true] {
        fragmented(&pair, &mut opened, v6);
    }
}

#[test]
fn what_does_not_fit_is_counted_exactly() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut config = config(r#"{"port":9000},{"address":"192.0.2.2","port":9001}"#, "vb", 2);
    config.socket_rcvbuf = 16_384;
    let mut opened = open_in_b(&pair, &config, open_sockets).unwrap();
    pair.in_a(|| {
        let sockets: Vec<_> = (0..8).map(|i| sender(i % 2 == 1)).collect();
        for i in 0..2000 {
            let v6 = i % 2 == 1;
            sockets[i % 8].send_to(&payload(i, 200), to(v6, 9000)).unwrap();
            sockets[0].send_to(&payload(i, 300), to(false, 9001)).unwrap();
        }
    });
    std::thread::sleep(QUIET);
    let collector = drain(&mut opened, 1);
    let missing = 4000 - collector.got.len() as u64;
    assert!(missing > 0 && !collector.got.is_empty());
    assert_eq!(lost(&mut opened), missing);
    assert_eq!(lost(&mut opened), missing, "reading the counter does not change it");
    pair.in_a(|| sender(false).send_to(b"again", to(false, 9001)).unwrap());
    assert_eq!(drain(&mut opened, 1).sizes(), [5]);
    assert_eq!(lost(&mut opened), missing);
}

#[test]
fn empty_and_largest_datagrams_arrive() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_in_b(&pair, &config(r#"{"port":9000}"#, "vb", 1), open_sockets).unwrap();
    pair.in_a(|| {
        for (v6, size) in [(false, 0), (true, 0), (false, 65_507), (true, 65_527)] {
            assert_eq!(sender(v6).send_to(&vec![3; size], to(v6, 9000)).unwrap(), size);
        }
    });
    let collector = drain(&mut opened, 4);
    let mut sizes = collector.sizes();
    sizes.sort_unstable();
    assert_eq!(sizes, [0, 0, 65_507, 65_527]);
}

/// The stack drops it; the namespace's counter is the only one that always has it (see `rx/socket/drop_counter.rs`).
#[test]
fn a_wrong_checksum_is_dropped_and_noted() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_in_b(&pair, &config(r#"{"port":9000}"#, "vb", 1), open_sockets).unwrap();
    pair.in_a(|| {
        let raw = RawSender::new("va");
        for frame in [Pair::v4(5, 9000), Pair::v6(5, 9000)] {
            // Short ones are checked before the socket is known, long ones when they are read.
            for size in [6, 600] {
                let mut bytes = frame.bytes(&vec![1; size]);
                *bytes.last_mut().unwrap() ^= 1;
                raw.send(&bytes);
            }
            raw.send(&frame.bytes(b"sound!"));
        }
    });
    let collector = drain(&mut opened, 2);
    assert_eq!(collector.got.iter().filter(|g| g.payload == b"sound!").count(), 2);
    assert_eq!(collector.got.len(), 2);
    assert_eq!(opened.receivers[0].counters().notes, [("netns_udp_checksum_errors", 4)]);
}

#[test]
fn listen_entries_open_what_they_say() {
    rig::require_root!();
    let pair = Pair::new(1);
    let listen = r#"{"address":"192.0.2.2","port":9000},{"address":"2001:db8::2","port":9001},
        {"address":"0.0.0.0","port":9002},{"address":"::","port":9003}"#;
    let mut opened = open_in_b(&pair, &config(listen, "vb", 2), open_sockets).unwrap();
    pair.in_a(|| {
        for port in 9000..9004u16 {
            for v6 in [false, true] {
                sender(v6).send_to(&port.to_be_bytes(), to(v6, port)).unwrap();
            }
        }
    });
    let collector = drain(&mut opened, 5);
    let mut got: Vec<_> = collector.got.iter().map(|g| (g.dst_port, g.dst.to_ip().to_string())).collect();
    got.sort();
    let expected: Vec<_> = [(9000, V4.1), (9001, V6.1), (9002, V4.1), (9003, V4.1), (9003, V6.1)]
        .map(|(p, a)| (p, a.to_owned()))
        .into();
    assert_eq!(got, expected);
}

type Open = dyn Fn(&EngineConfig) -> Result<GuardReceiver> + Sync;

#[test]
fn a_taken_port_names_its_owner() {
    rig::require_root!();
    let pair = Pair::new(1);
    let config = config(r#"{"port":9000}"#, "vb", 2);
    let holder = pair.in_b(|| UdpSocket::bind((V4.1, 9000)).unwrap());
    let error = open_in_b(&pair, &config, open_sockets).err().expect("taken");
    assert_eq!(error.code, Code::Port);
    let me = format!("192.0.2.2:9000 is held by pid {} (", std::process::id());
    assert!(error.message.contains("[::]:9000") && error.message.contains(&me), "{error}");
    drop(holder);
    // A second Millrace of the same user, whichever way either receives.
    let first = open_in_b(&pair, &config, open_sockets).unwrap();
    let sink = |config: &EngineConfig| {
        open_for_packet(config, &Interface::by_name("vb")?, &config.listen, &mut Vec::new())
    };
    let guards: [&Open; 2] = [&open_for_xdp, &sink];
    for guard in guards {
        assert_eq!(pair.in_b(|| guard(&config)).err().map(|e| e.code), Some(Code::Port));
    }
    assert_eq!(open_in_b(&pair, &config, open_sockets).err().map(|e| e.code), Some(Code::Port));
    drop(first);
    for guard in guards {
        let _guard = pair.in_b(|| guard(&config)).unwrap();
        assert_eq!(open_in_b(&pair, &config, open_sockets).err().map(|e| e.code), Some(Code::Port));
    }
}

#[test]
fn refusals_name_the_cure() {
    rig::require_root!();
    let pair = Pair::new(1);
    let low = config(r#"{"port":53}"#, "vb", 1);
    let error = pair.in_b(|| without_capabilities(|| open_sockets(&low))).err().expect("no capability");
    assert_eq!(error.code, Code::Permission);
    assert!(error.message.contains("CAP_NET_BIND_SERVICE"), "{error}");
    let elsewhere = config(r#"{"address":"198.51.100.7","port":9000}"#, "vb", 1);
    let error = open_in_b(&pair, &elsewhere, open_sockets).err().expect("not our address");
    assert_eq!(error.code, Code::Config);
    assert!(error.message.contains("198.51.100.7:9000"), "{error}");
    // Without CAP_NET_ADMIN the buffer is clamped, and that is said.
    let mut large = config(r#"{"port":9000}"#, "vb", 1);
    large.socket_rcvbuf = 1 << 29;
    let opened = pair.in_b(|| without_capabilities(|| open_sockets(&large))).unwrap();
    assert!(opened.info.degraded.iter().any(|d| d.contains("net.core.rmem_max")), "{:?}", opened.info);
}

#[test]
fn nothing_arrives_after_the_intake_is_closed() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_in_b(&pair, &config(r#"{"port":9000}"#, "vb", 2), open_sockets).unwrap();
    let send =
        || pair.in_a(|| (0..10).for_each(|i| drop(sender(i % 2 == 0).send_to(b"x", to(i % 2 == 0, 9000)))));
    send();
    std::thread::sleep(QUIET);
    opened.receivers.iter_mut().for_each(Receiver::close_intake);
    send();
    std::thread::sleep(QUIET);
    let collector = drain(&mut opened, 10);
    assert_eq!((collector.got.len(), lost(&mut opened)), (10, 0));
    assert_eq!(collector.dropped(FrameDrop::Truncated), 0);
    opened.receivers[0].wait(Duration::from_millis(1)).unwrap();
}

#[test]
fn loopback_delivers_once() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_in_b(&pair, &config(r#"{"port":9000}"#, "lo", 2), open_sockets).unwrap();
    pair.in_b(|| {
        for i in 0..20 {
            sender(false).send_to(&payload(i, 8), ("127.0.0.1", 9000)).unwrap();
            sender(true).send_to(&payload(i, 8), ("::1", 9000)).unwrap();
        }
    });
    assert_eq!(drain(&mut opened, 40).got.len(), 40);
}

/// The guard for xdp: everything the stack gets, fragments and options included, marked.
#[test]
fn the_delivering_guard_delivers_all() {
    rig::require_root!();
    let pair = Pair::new(1);
    let config = config(r#"{"port":9000}"#, "vb", 2);
    let mut guard = pair.in_b(|| open_for_xdp(&config)).unwrap();
    pair.in_a(|| {
        for v6 in [false, true] {
            for size in [0, 100, 1400, 4000] {
                sender(v6).send_to(&vec![1; size], to(v6, 9000)).unwrap();
            }
        }
    });
    std::thread::sleep(QUIET);
    let mut collector = Collector::default();
    while guard.receive(&mut collector).unwrap() > 0 {}
    assert_eq!(collector.sizes(), [0, 100, 1400, 4000, 0, 100, 1400, 4000]);
    assert!(collector.got.iter().all(|g| g.flags & flags::SLOW_PATH != 0));
    assert_eq!(guard.counters().lost, [("guard_rcvbuf", 0)]);
}

#[test]
fn a_program_steers_between_the_sockets() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut config = config(r#"{"port":9000}"#, "vb", 3);
    config.fanout = FanoutMode::Rules;
    // ldb [0]: the first byte of the payload; ret a. Beyond the last socket the kernel's hash decides.
    let filter = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let programs =
        RulePrograms { reuseport: Ok(vec![filter(0x30, 0), filter(0x16, 0)]), ..RulePrograms::default() };
    let mut opened = pair.in_b(|| socket::open(&config, &programs)).unwrap();
    assert!(
        opened.info.granted.contains(&("steering".into(), "rules, classic BPF".into())),
        "{:?}",
        opened.info
    );
    pair.in_a(|| {
        let sockets = [sender(false), sender(true)];
        for i in 0..60u8 {
            let v6 = i % 2 == 0;
            sockets[usize::from(v6)].send_to(&[i % 3, i], to(v6, 9000)).unwrap();
        }
        sockets[0].send_to(&[200], to(false, 9000)).unwrap();
    });
    let collector = drain(&mut opened, 61);
    assert_eq!(collector.got.len(), 61);
    let steered = collector.got.iter().filter(|g| g.payload[0] < 3);
    assert_eq!(steered.filter(|g| u16::from(g.payload[0]) == g.rx_queue).count(), 60);
    drop(opened);
    let opened = pair.in_b(|| open_sockets(&config)).unwrap();
    assert!(opened.info.granted.iter().any(|(k, why)| k == "steering" && why.contains("not rules")));
}

#[test]
fn a_broadcast_datagram_comes_once() {
    rig::require_root!();
    // A dual-stack socket, one of IPv4 only, and one bound to the address.
    for listen in [
        ONE_PORT,
        r#"{"address":"0.0.0.0","port":9000}"#,
        r#"{"address":"192.0.2.255","port":9000},{"address":"255.255.255.255","port":9000}"#,
    ] {
        let pair = Pair::new(1);
        let mut opened = open_in_b(&pair, &config(listen, "vb", 4), open_sockets).unwrap();
        // Sockets that are not bound to one address receive broadcasts of a subnet that did not exist yet.
        let mut to = vec!["192.0.2.255", "255.255.255.255"];
        if !listen.contains("255") {
            rig::run(&format!("ip -n {} addr add 198.18.0.1/24 dev vb", pair.b));
            to.push("198.18.0.255");
        }
        pair.in_a(|| {
            let raw = RawSender::new("va");
            for dst in &to {
                let frame = millrace_core::packet::build::Frame {
                    dst: dst.parse().unwrap(),
                    dst_mac: [0xff; 6],
                    ..Pair::v4(1000, 9000)
                };
                (0..10).for_each(|_| raw.send(&frame.bytes(b"to all")));
            }
        });
        let collector = drain(&mut opened, 10 * to.len());
        let mut got: Vec<String> = collector.got.iter().map(|g| g.dst.to_ip().to_string()).collect();
        got.sort();
        let mut sent: Vec<&str> = to.iter().flat_map(|dst| [*dst; 10]).collect();
        sent.sort_unstable();
        assert_eq!(got, sent, "{listen}: the kernel gives it to every socket of the group");
    }
}

/// Whatever net.ipv6.bindv6only says, and for addresses that are not the interface's first.
#[test]
fn a_dual_stack_socket_names_each_destination() {
    rig::require_root!();
    let pair = Pair::new(1);
    rig::run(&format!("ip netns exec {} sysctl -qw net.ipv6.bindv6only=1", pair.b));
    let more = ["192.0.2.77", "2001:db8::77"];
    for (address, bits) in [(more[0], 24), (more[1], 64)] {
        rig::add_address(&pair.b, &format!("{address}/{bits}"), "vb");
    }
    let mut opened = open_in_b(&pair, &config(ONE_PORT, "vb", 3), open_sockets).unwrap();
    let all = [V4.1, V6.1, more[0], more[1]];
    pair.in_a(|| {
        for (i, to) in (0..40u8).zip(all.into_iter().cycle()) {
            let to: std::net::IpAddr = to.parse().unwrap();
            sender(to.is_ipv6()).send_to(&[i], (to, 9000)).unwrap();
        }
    });
    let mut got: Vec<_> =
        drain(&mut opened, 40).got.iter().map(|g| (g.payload[0], g.dst.to_ip().to_string())).collect();
    got.sort();
    let expected: Vec<_> = (0..40u8).zip(all.into_iter().cycle()).map(|(i, to)| (i, to.to_owned())).collect();
    assert_eq!(got, expected);
}

/// A burst of one full segment and of one byte more: neither is split wrongly, nor lost.
#[test]
fn bursts_of_one_segment_and_a_byte_more_are_told_apart() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut opened = open_in_b(&pair, &config(ONE_PORT, "vb", 1), open_sockets).unwrap();
    for v6 in [false, true] {
        for (size, expected) in
            [(1000, vec![1000]), (1001, vec![1000, 1]), (2000, vec![1000, 1000]), (1, vec![1])]
        {
            pair.in_a(|| {
                let socket = sender(v6);
                segment(&socket, 1000);
                assert_eq!(socket.send_to(&payload(size, size), to(v6, 9000)).unwrap(), size);
            });
            let collector = drain(&mut opened, expected.len());
            assert_eq!(collector.sizes(), expected, "v6 {v6}");
            let bytes: Vec<u8> = collector.got.into_iter().flat_map(|g| g.payload).collect();
            assert_eq!(bytes, payload(size, size));
        }
    }
}
