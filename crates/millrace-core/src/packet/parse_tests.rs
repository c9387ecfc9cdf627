use std::net::IpAddr;

use proptest::prelude::*;

use super::{
    FrameDrop,
    build::{self, Frame},
    parse_ethernet,
};
use crate::{
    datagram::Addr,
    protocol::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6},
};

fn v4() -> Frame {
    Frame::new(("192.0.2.1".parse().unwrap(), 1000), ("192.0.2.2".parse().unwrap(), 9000))
}

fn v6() -> Frame {
    Frame::new(("fd00::1".parse().unwrap(), 1000), ("fd00::2".parse().unwrap(), 9000))
}

fn addr(a: &str) -> Addr {
    Addr::from(a.parse::<IpAddr>().unwrap())
}

#[test]
fn plain_ipv4_and_ipv6() {
    let bytes = v4().bytes(b"hello");
    let u = parse_ethernet(&bytes).unwrap();
    assert_eq!((u.src, u.dst, u.src_port, u.dst_port), (addr("192.0.2.1"), addr("192.0.2.2"), 1000, 9000));
    assert_eq!((u.payload, u.options), (&b"hello"[..], false));
    let bytes = v6().bytes(b"hello");
    let u = parse_ethernet(&bytes).unwrap();
    assert_eq!((u.src, u.dst, u.payload), (addr("fd00::1"), addr("fd00::2"), &b"hello"[..]));
}

#[test]
fn empty_payload_and_ethernet_padding() {
    let mut bytes = v4().bytes(b"");
    assert_eq!(parse_ethernet(&bytes).unwrap().payload, b"");
    bytes.resize(60, 0xee);
    assert_eq!(parse_ethernet(&bytes).unwrap().payload, b"", "padding is not payload");
}

#[test]
fn vlan_and_qinq_in_band() {
    for vlan in [vec![(ETH_P_8021Q, 7)], vec![(ETH_P_8021AD, 7), (ETH_P_8021Q, 9)]] {
        let bytes = Frame { vlan, ..v4() }.bytes(b"x");
        assert_eq!(parse_ethernet(&bytes).unwrap().payload, b"x");
    }
    let three = Frame { vlan: vec![(ETH_P_8021Q, 1); 3], ..v4() }.bytes(b"x");
    assert_eq!(parse_ethernet(&three), Err(FrameDrop::Foreign));
}

#[test]
fn ipv4_options_and_ipv6_extension_headers_are_skipped() {
    let bytes = Frame { ipv4_options: vec![1; 8], ..v4() }.bytes(b"opt");
    let u = parse_ethernet(&bytes).unwrap();
    assert_eq!((u.payload, u.options), (&b"opt"[..], true));
    let chain =
        vec![(0, vec![0, 0, 1, 4, 0, 0, 0, 0]), (60, vec![0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])];
    let bytes = Frame { ipv6_extensions: chain, ..v6() }.bytes(b"ext");
    let u = parse_ethernet(&bytes).unwrap();
    assert_eq!((u.payload, u.options), (&b"ext"[..], true));
}

#[test]
fn fragments_are_named_and_atomic_fragments_are_whole() {
    let mut bytes = v4().bytes(b"0123456789");
    bytes[20] = 0x20;
    assert_eq!(parse_ethernet(&bytes), Err(FrameDrop::Fragment), "first fragment");
    bytes[20..22].copy_from_slice(&[0x00, 0x10]);
    assert_eq!(parse_ethernet(&bytes), Err(FrameDrop::Fragment), "later fragment");
    let with = |off: u16| {
        let mut h = vec![0u8; 8];
        h[2..4].copy_from_slice(&off.to_be_bytes());
        Frame { ipv6_extensions: vec![(44, h)], ..v6() }.bytes(b"frag")
    };
    assert_eq!(parse_ethernet(&with(1)), Err(FrameDrop::Fragment));
    assert_eq!(parse_ethernet(&with(0x08)), Err(FrameDrop::Fragment));
    assert_eq!(parse_ethernet(&with(0)).unwrap().payload, b"frag");
}

#[test]
fn lengths_that_lie() {
    let good = v4().bytes(b"0123456789");
    let with = |at: usize, v: u16| {
        let mut b = good.clone();
        b[at..at + 2].copy_from_slice(&v.to_be_bytes());
        b
    };
    assert_eq!(parse_ethernet(&with(16, 39)), Err(FrameDrop::Malformed), "UDP length past IP length");
    assert_eq!(parse_ethernet(&with(16, 19)), Err(FrameDrop::Malformed), "IP length below its header");
    assert_eq!(parse_ethernet(&with(16, 2000)), Err(FrameDrop::Malformed), "IP length past the frame");
    assert_eq!(parse_ethernet(&with(38, 7)), Err(FrameDrop::Malformed), "UDP length below its header");
    assert_eq!(parse_ethernet(&with(38, 0)), Err(FrameDrop::Malformed), "zero UDP length over IPv4");
    assert_eq!(
        parse_ethernet(&with(38, 12)).unwrap().payload,
        b"0123",
        "shorter UDP length: rest is padding"
    );
    let mut ihl = good.clone();
    ihl[14] = 0x44;
    assert_eq!(parse_ethernet(&ihl), Err(FrameDrop::Malformed));
    let mut jumbo = v6().bytes(b"jumbo");
    jumbo[14 + 40 + 4..14 + 40 + 6].copy_from_slice(&[0, 0]);
    assert_eq!(parse_ethernet(&jumbo).unwrap().payload, b"jumbo", "RFC 2675 zero length");
}

#[test]
fn ipv4_mapped_addresses_in_an_ipv6_header_are_refused() {
    let mapped = "::ffff:192.0.2.9".parse().unwrap();
    for frame in [Frame { src: mapped, ..v6() }, Frame { dst: mapped, ..v6() }] {
        assert_eq!(parse_ethernet(&frame.bytes(b"x")), Err(FrameDrop::Malformed));
    }
}

#[test]
fn foreign_traffic() {
    let mut tcp = v4().bytes(b"x");
    tcp[23] = 6;
    assert_eq!(parse_ethernet(&tcp), Err(FrameDrop::Foreign));
    let mut arp = v4().bytes(b"x");
    arp[12..14].copy_from_slice(&0x0806u16.to_be_bytes());
    assert_eq!(parse_ethernet(&arp), Err(FrameDrop::Foreign));
}

#[test]
fn every_truncation_is_an_error() {
    for frame in [
        Frame { vlan: vec![(ETH_P_8021Q, 7)], ipv4_options: vec![1; 4], ..v4() }.bytes(b"abc"),
        Frame { ipv6_extensions: vec![(0, vec![0, 0, 1, 4, 0, 0, 0, 0])], ..v6() }.bytes(b"abc"),
    ] {
        assert!(parse_ethernet(&frame).is_ok());
        for n in 0..frame.len() {
            assert!(parse_ethernet(&frame[..n]).is_err(), "{n} of {} bytes", frame.len());
        }
    }
}

#[test]
fn built_checksums_verify() {
    for frame in [v4(), v6()] {
        let bytes = frame.bytes(b"odd");
        let (addresses, udp) = match frame.src {
            IpAddr::V4(_) => (&bytes[26..34], &bytes[34..]),
            IpAddr::V6(_) => (&bytes[22..54], &bytes[54..]),
        };
        let sum = build::ones_sum(17 + udp.len() as u32, addresses);
        assert_eq!(build::fold(build::ones_sum(sum, udp)), 0xffff);
    }
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer_inside_the_frame(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..4) {
        // Half-plausible headers reach deeper than noise does.
        if bytes.len() > 24 && kind > 0 {
            bytes[12..14].copy_from_slice(&if kind == 1 { ETH_P_IPV6 } else { ETH_P_IP }.to_be_bytes());
            bytes[14] = if kind == 1 { 0x60 } else { 0x45 };
            if kind == 3 { bytes[23] = 17; bytes[20] = 0; bytes[21] = 0; }
        }
        if let Ok(u) = parse_ethernet(&bytes) {
            let range = bytes.as_ptr_range();
            prop_assert!(u.payload.is_empty() || (range.contains(&u.payload.as_ptr()) && u.payload.as_ptr_range().end <= range.end));
        }
    }

    #[test]
    fn what_is_built_is_parsed(payload in proptest::collection::vec(any::<u8>(), 0..1473), sport: u16, dport: u16, six: bool) {
        let mut f = if six { v6() } else { v4() };
        (f.src_port, f.dst_port) = (sport, dport);
        let bytes = f.bytes(&payload);
        let u = parse_ethernet(&bytes).unwrap();
        prop_assert_eq!((u.src_port, u.dst_port, u.payload), (sport, dport, &payload[..]));
    }
}
