//! Link-local listen addresses (RFC 4007): the interface is part of the address, on every backend.

use std::net::{Ipv6Addr, SocketAddrV6};

use millrace_core::{
    config::{BackendChoice, EngineConfig, Listen, Tpacket},
    error::Code,
    packet::FrameDrop,
    packet::build::Frame,
    rx::{Opened, Receiver, ladder},
};

use crate::{
    rig::{self, Pair, RawSender},
    support::*,
};

const NEAR: &str = "fe80::b";
const FAR: &str = "fe80::a";

/// A pair with a link-local address at each end, and a second interface of the receiving end with the same address.
fn pair() -> Pair {
    let pair = Pair::new(1);
    let b = &pair.b;
    rig::run(&format!("ip -n {b} link add du type veth peer name dv"));
    rig::run(&format!("ip netns exec {b} sysctl -qw net.ipv6.conf.du.accept_dad=0"));
    rig::run(&format!("ip -n {b} link set du up"));
    for (ns, dev, address) in [(&pair.a, "va", FAR), (b, "vb", NEAR), (b, "du", NEAR)] {
        rig::add_address(ns, &format!("{address}/64"), dev);
    }
    pair
}

/// Ten datagrams, each with its number, to the receiving end's link-local address.
fn send(pair: &Pair) {
    pair.in_a(|| {
        let index = millrace_core::net::Interface::by_name("va").unwrap().index;
        let to = SocketAddrV6::new(NEAR.parse::<Ipv6Addr>().unwrap(), 9000, 0, index);
        let socket = sender(true);
        (0..10u8).for_each(|i| assert_eq!(socket.send_to(&[i], to).unwrap(), 1));
    });
}

fn listening(scope: Option<&str>, interface: Option<&str>) -> EngineConfig {
    let address = Some(NEAR.parse().unwrap());
    EngineConfig {
        listen: vec![Listen { address, scope: scope.map(Into::into), port: 9000 }],
        interface: interface.map(Into::into),
        ..config(ONE_PORT, "vb", 2)
    }
}

fn get_all<R: Receiver>(pair: &Pair, mut opened: Opened<R>, what: &str) {
    send(pair);
    let collector = drain(&mut opened, 10);
    let numbers: Vec<u8> = collector.got.iter().map(|g| g.payload[0]).collect();
    assert_eq!(numbers, (0..10).collect::<Vec<_>>(), "{what}");
    assert!(collector.got.iter().all(|g| g.dst.to_ip().to_string() == NEAR), "{what}");
}

#[test]
fn sockets_bind_to_it() {
    rig::require_root!();
    let pair = pair();
    let number = pair.in_b(|| millrace_core::net::Interface::by_name("vb").unwrap().index).to_string();
    for (scope, interface) in [(Some("vb"), None), (Some(number.as_str()), None), (None, Some("vb"))] {
        let config = listening(scope, interface);
        let opened = open_in_b(&pair, &config, open_sockets).unwrap();
        get_all(&pair, opened, &format!("{scope:?} {interface:?}"));
    }
    // The same address on another interface is another address.
    let mut opened = open_in_b(&pair, &listening(Some("du"), Some("vb")), open_sockets).unwrap();
    send(&pair);
    assert_eq!(drain(&mut opened, 0).got.len(), 0);
}

#[test]
fn rings_and_xdp_take_it() {
    rig::require_root!();
    let pair = pair();
    for scope in [Some("vb"), None] {
        let config = listening(scope, Some("vb"));
        let opened = open_in_b(&pair, &config, open_rings).unwrap();
        get_all(&pair, opened, &format!("packet {scope:?}"));
        let config = EngineConfig { backend: BackendChoice::Xdp, rx_threads: 1, ..config };
        let (backend, _) = pair.in_b(|| ladder::open(&config, &Default::default())).unwrap();
        let ladder::Backend::Xdp(opened) = backend else { panic!("xdp was asked for") };
        get_all(&pair, opened, &format!("xdp {scope:?}"));
    }
    // Beside an entry for the ring's interface, one for another is the guard's business: the ring's is still taken once.
    let mut both = listening(Some("du"), Some("vb"));
    both.listen.push(Listen { port: 9000, address: Some(NEAR.parse().unwrap()), scope: Some("vb".into()) });
    let opened = open_in_b(&pair, &both, open_rings).unwrap();
    get_all(&pair, opened, "packet, both");
}

/// The ring has the frames, and leaves them: on its own interface this is another address.
#[test]
fn one_of_what_stands_on_the_rings_interface_comes_by_the_guard() {
    rig::require_root!();
    let pair = Pair::new(1);
    let b = &pair.b;
    rig::run(&format!("ip -n {b} link add br0 type bridge"));
    rig::run(&format!("ip netns exec {b} sysctl -qw net.ipv6.conf.br0.accept_dad=0"));
    rig::run(&format!("ip -n {b} link set vb master br0"));
    rig::run(&format!("ip -n {b} link set br0 up"));
    rig::add_address(b, &format!("{NEAR}/64"), "br0");
    rig::add_address(&pair.a, &format!("{FAR}/64"), "va");
    rig::run(&format!("ip -n {} neigh replace {NEAR} lladdr 02:00:00:00:0b:01 dev va", pair.a));
    let beside = Listen { address: Some(rig::V4.1.parse().unwrap()), scope: None, port: 9000 };
    let mut config = listening(Some("br0"), Some("vb"));
    config.listen.push(beside);
    get_all(&pair, open_in_b(&pair, &config, open_rings).unwrap(), "on the bridge");
}

#[test]
fn rings_tell_a_vlan_from_its_interface() {
    rig::require_root!();
    let pair = pair();
    let any = config(ONE_PORT, "vb", 1);
    for tpacket in [Tpacket::V3, Tpacket::V2] {
        // Where every address of the host is listened on, any VLAN's frames are taken.
        for (config, expected) in [(listening(None, Some("vb")), 20), (any.clone(), 40)] {
            let config = EngineConfig { tpacket, ..config };
            let mut opened = open_in_b(&pair, &config, open_rings).unwrap();
            pair.in_a(|| {
                let raw = RawSender::new("va");
                for vlan in
                    [vec![], vec![(0x8100, 5)], vec![(0x88a8, 7), (0x8100, 5)], vec![(0x8100, 0x2000)]]
                {
                    let frame = Frame { vlan, dst: NEAR.parse().unwrap(), ..Pair::v6(1, 9000) };
                    (0..10).for_each(|i| raw.send(&frame.bytes(&payload(i, 40))));
                }
            });
            let collector = drain(&mut opened, expected);
            assert_eq!(
                (collector.got.len(), collector.dropped(FrameDrop::Foreign)),
                (expected, 40 - expected)
            );
        }
    }
}

#[test]
fn refusals_name_the_cure() {
    rig::require_root!();
    let pair = pair();
    let missing =
        open_in_b(&pair, &listening(Some("eth7"), None), open_sockets).err().expect("no such interface");
    assert!(missing.code == Code::Interface && missing.message.contains("eth7"), "{missing}");
    let elsewhere = open_in_b(&pair, &listening(Some("lo"), None), open_sockets).err().expect("not there");
    assert!(elsewhere.code == Code::Config && elsewhere.message.contains("[fe80::b%lo]:9000"), "{elsewhere}");
    let other =
        open_in_b(&pair, &listening(Some("du"), Some("vb")), open_rings).err().expect("not on the ring");
    assert!(other.code == Code::Config && other.message.contains("[fe80::b%du]:9000"), "{other}");
    assert!(other.message.contains("not on vb"), "{other}");
    // What the configuration alone says.
    let parse = |listen: &str, interface: &str| {
        EngineConfig::from_json(&format!(
            r#"{{"backend":"auto",{interface}"listen":[{listen}],"queues":1,"rxThreads":1,"rules":"",
            "busyPoll":"off","busyPollUs":1,"laneSlots":64,"laneBytes":65536,"wakeMin":1,"wakeMaxUs":1,"xdpMode":"auto",
            "xdpFrames":512,"packetBlockBytes":131072,"packetBlocks":128,"socketRcvbuf":8388608}}"#
        ))
    };
    let bare = r#"{"address":"fe80::1","port":9}"#;
    let e = parse(bare, "").unwrap_err();
    assert!(e.message.contains("[fe80::1%eth0]:9") && e.message.contains("MILLRACE_INTERFACE"), "{e}");
    assert!(parse(bare, r#""interface":"eth0","#).is_ok());
    let e = parse(r#"{"address":"2001:db8::1","scope":"eth0","port":9}"#, "").unwrap_err();
    assert!(e.message.contains("[2001:db8::1]:9, %eth0") && e.message.contains("link-local"), "{e}");
}
