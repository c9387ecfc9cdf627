//! Multicast: joined groups arrive once on every backend, others never.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use millrace_core::{
    config::{EngineConfig, Multicast},
    error::Code,
    rx::ladder,
};

use crate::{
    rig::{self, Pair, V4},
    support::*,
};

const GROUP4: &str = "239.1.2.3";
const OTHER4: &str = "239.1.2.4";
const GROUP6: &str = "ff15::1:2";
const OTHER6: &str = "ff15::1:3";

fn group(group: &str, interface: Option<&str>, source: Option<&str>) -> Multicast {
    Multicast {
        group: group.parse().unwrap(),
        interface: interface.map(Into::into),
        source: source.map(|s| s.parse().unwrap()),
    }
}

fn joining(groups: Vec<Multicast>, threads: u16) -> EngineConfig {
    EngineConfig { multicast: groups, ..config(ONE_PORT, "vb", threads) }
}

/// Ten datagrams, each with its number, to a group out of `va`.
fn send(pair: &Pair, to: &str) {
    pair.in_a(|| {
        let to: IpAddr = to.parse().unwrap();
        let socket = sender(to.is_ipv6());
        for i in 0..10u8 {
            socket.send_to(&[i], (to, 9000)).unwrap();
        }
    });
}

fn pair() -> Pair {
    let pair = Pair::new(1);
    for (ns, dev) in [(&pair.a, "va"), (&pair.b, "vb")] {
        rig::run(&format!("ip -n {ns} route add 224.0.0.0/4 dev {dev}"));
    }
    pair
}

fn both() -> Vec<Multicast> {
    vec![group(GROUP4, None, None), group(GROUP6, Some("vb"), None)]
}

/// Sends to joined and other groups and to the host itself; checks that each came once.
fn exactly_once<R: millrace_core::rx::Receiver>(pair: &Pair, opened: &mut millrace_core::rx::Opened<R>) {
    for to in [GROUP4, OTHER4, GROUP6, OTHER6, V4.1] {
        send(pair, to);
    }
    let collector = drain(opened, 30);
    for to in [GROUP4, GROUP6, V4.1] {
        let of: Vec<u8> = collector
            .got
            .iter()
            .filter(|g| g.dst.to_ip() == to.parse::<IpAddr>().unwrap())
            .map(|g| g.payload[0])
            .collect();
        assert_eq!(of, (0..10).collect::<Vec<u8>>(), "to {to}");
    }
    assert_eq!(collector.got.len(), 30);
}

#[test]
fn sockets_get_joined_groups_once() {
    rig::require_root!();
    let pair = pair();
    let mut opened = open_in_b(&pair, &joining(both(), 3), open_sockets).unwrap();
    // The membership of another socket does not count.
    let _other = pair.in_b(|| {
        let other = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9009)).unwrap();
        other.join_multicast_v4(&OTHER4.parse().unwrap(), &V4.1.parse().unwrap()).unwrap();
        other
    });
    exactly_once(&pair, &mut opened);
    assert_eq!(joined(&opened), "239.1.2.3%vb, ff15::1:2%vb");
}

fn joined<R: millrace_core::rx::Receiver>(opened: &millrace_core::rx::Opened<R>) -> &str {
    &opened.info.granted.iter().find(|(k, _)| k == "multicast").unwrap().1
}

/// Routes lead to another interface than the one named: groups without an interface follow the name, or the routes when
/// there is none.
#[test]
fn a_group_without_an_interface_is_joined_on_the_one_that_is_set() {
    rig::require_root!();
    let pair = Pair::new(1);
    rig::run(&format!("ip -n {} route add 224.0.0.0/4 dev va", pair.a));
    rig::run(&format!("ip -n {} link add du type veth peer name dv", pair.b));
    for dev in ["du", "dv"] {
        rig::run(&format!("ip -n {} link set {dev} up", pair.b));
    }
    rig::run(&format!("ip -n {} route add 224.0.0.0/4 dev du", pair.b));
    let named = joining(vec![group(GROUP4, None, None)], 2);
    let routed = EngineConfig { interface: None, ..named.clone() };
    let mut opened = open_in_b(&pair, &named, open_sockets).unwrap();
    send(&pair, GROUP4);
    assert_eq!((drain(&mut opened, 10).got.len(), joined(&opened)), (10, "239.1.2.3%vb"));
    drop(opened);
    let mut opened = open_in_b(&pair, &routed, open_sockets).unwrap();
    send(&pair, GROUP4);
    assert_eq!(drain(&mut opened, 0).got.len(), 0, "joined on du");
    assert_eq!(joined(&opened), "239.1.2.3 (interface by the kernel's routes)");
    drop(opened);
    let mut opened = open_in_b(&pair, &named, open_rings).unwrap();
    send(&pair, GROUP4);
    assert_eq!((drain(&mut opened, 10).got.len(), joined(&opened)), (10, "239.1.2.3%vb"));
    drop(opened);
    let xdp = EngineConfig { backend: millrace_core::config::BackendChoice::Xdp, rx_threads: 1, ..named };
    let (backend, _) = pair.in_b(|| ladder::open(&xdp, &Default::default())).unwrap();
    let ladder::Backend::Xdp(mut opened) = backend else { panic!("xdp was asked for") };
    send(&pair, GROUP4);
    assert_eq!((drain(&mut opened, 10).got.len(), joined(&opened)), (10, "239.1.2.3%vb"));
}

#[test]
fn rings_get_joined_groups_once() {
    rig::require_root!();
    let pair = pair();
    let mut opened = open_in_b(&pair, &joining(both(), 2), open_rings).unwrap();
    exactly_once(&pair, &mut opened);
    // Fragments too.
    for to in [GROUP4, GROUP6] {
        pair.in_a(|| {
            let to: IpAddr = to.parse().unwrap();
            assert_eq!(sender(to.is_ipv6()).send_to(&payload(3, 4000), (to, 9000)).unwrap(), 4000);
        });
        assert_eq!(drain(&mut opened, 1).sizes(), [4000], "{to}");
    }
}

#[test]
fn a_group_on_two_interfaces_comes_once() {
    rig::require_root!();
    let pair = pair();
    rig::run(&format!("ip -n {} link add du type veth peer name dv", pair.b));
    for dev in ["du", "dv"] {
        rig::run(&format!("ip -n {} link set {dev} up", pair.b));
    }
    for to in [GROUP4, GROUP6] {
        let groups = vec![group(to, Some("vb"), None), group(to, Some("du"), None)];
        let mut opened = open_in_b(&pair, &joining(groups, 2), open_sockets).unwrap();
        send(&pair, to);
        assert_eq!(drain(&mut opened, 10).got.len(), 10, "{to}");
    }
}

#[test]
fn xdp_gets_joined_groups_once() {
    rig::require_root!();
    let pair = pair();
    let mut config = joining(both(), 1);
    config.backend = millrace_core::config::BackendChoice::Xdp;
    let (backend, _) = pair.in_b(|| ladder::open(&config, &Default::default())).unwrap();
    let ladder::Backend::Xdp(mut opened) = backend else { panic!("xdp was asked for") };
    exactly_once(&pair, &mut opened);
}

#[test]
fn a_source_is_held_to() {
    rig::require_root!();
    let pair = pair();
    let groups =
        vec![group("232.1.1.1", Some("vb"), Some(V4.0)), group("232.1.1.2", Some("vb"), Some("192.0.2.77"))];
    let config = joining(groups, 2);
    let mut opened = open_in_b(&pair, &config, open_sockets).unwrap();
    send(&pair, "232.1.1.1");
    send(&pair, "232.1.1.2");
    let collector = drain(&mut opened, 10);
    assert_eq!(collector.got.len(), 10);
    assert!(collector.got.iter().all(|g| g.dst.to_ip() == IpAddr::from([232, 1, 1, 1])));
    drop(opened);
    let refused =
        open_in_b(&pair, &config, open_rings).err().expect("below the stack nobody checks the source");
    assert_eq!(refused.code, Code::Config);
    assert!(refused.message.contains("MILLRACE_BACKEND=socket"), "{refused}");
}

#[test]
fn groups_that_cannot_be_joined_are_explained() {
    rig::require_root!();
    let pair = Pair::new(1);
    let refused = |config: &EngineConfig| open_in_b(&pair, config, open_sockets).err().expect("refused");
    // No route at all in this namespace for it.
    let routed = EngineConfig { interface: None, ..joining(vec![group(GROUP4, None, None)], 1) };
    let e = refused(&routed);
    assert!(e.code == Code::Interface && e.message.contains("%interface"), "{e}");
    let e = refused(&joining(vec![group(GROUP4, Some("eth7"), None)], 1));
    assert!(e.code == Code::Interface && e.message.contains("eth7"), "{e}");
    let narrowed = vec![group(GROUP4, Some("vb"), None), group(GROUP4, Some("vb"), Some(V4.0))];
    let e = refused(&joining(narrowed, 2));
    assert!(e.code == Code::Config && e.message.contains("without a source"), "{e}");
    let e = refused(&joining(vec![group(GROUP4, Some("vb"), None); 2], 2));
    assert!(e.code == Code::Config && e.message.contains("listed twice"), "{e}");
    let only = EngineConfig {
        multicast: vec![group(GROUP4, Some("vb"), None)],
        ..config(r#"{"address":"192.0.2.2","port":9000}"#, "vb", 1)
    };
    let e = refused(&only);
    assert!(e.code == Code::Config && e.message.contains("239.1.2.3%vb"), "{e}");
}
