//! Control messages of recvmsg(2), read as plain bytes. The kernel lays each out as a `struct cmsghdr` and its data,
//! aligned to the size of a long (cmsg(3)).

use crate::datagram::{Addr, Timestamp};

/// Room for all control messages that one datagram can carry, in 8-byte words. They take 152 of 192 bytes: SCM_TIMESTAMPNS
/// 32, IPV6_PKTINFO 40, IP_PKTINFO 32, UDP_GRO 24, IP_RECVFRAGSIZE or IPV6_RECVFRAGSIZE 24. With too little room the kernel
/// cuts messages off (MSG_CTRUNC), and the datagram is counted as truncated.
pub(crate) const CONTROL_WORDS: usize = 24;

const HEADER: usize = size_of::<libc::cmsghdr>();
const ALIGN: usize = size_of::<libc::c_long>();

/// The contents of one datagram's control messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// Kernel receive time (SO_TIMESTAMPNS).
    pub(crate) time: Option<Timestamp>,
    /// Destination address of the datagram (IP_PKTINFO of ip(7), IPV6_RECVPKTINFO of ipv6(7)).
    pub(crate) dst: Option<Addr>,
    /// Index of the interface it arrived on (the same messages).
    pub(crate) ifindex: u32,
    /// The datagram is broadcast or multicast. The kernel gives such a datagram to every socket that matches, where it
    /// gives any other to one socket of a SO_REUSEPORT group (net/ipv4/udp.c, `__udp4_lib_mcast_deliver`).
    pub(crate) broadcast_or_multicast: bool,
    /// Size of the datagrams that were merged into this message, bytes; 0 for a single datagram (UDP_GRO, udp(7)).
    pub(crate) gso_size: usize,
    /// Size of the largest IPv4 fragment that the datagram was reassembled from, with its IP header, bytes
    /// (IP_RECVFRAGSIZE, since Linux 4.10; net/ipv4/ip_sockglue.c, `ip_cmsg_recv_fragsize`).
    pub(crate) fragment_size_v4: Option<u32>,
    /// The same for IPv6 (IPV6_RECVFRAGSIZE). Atomic fragments have one as well.
    pub(crate) fragment_size_v6: Option<u32>,
}

/// Reads the control bytes of one datagram. Unknown messages are skipped, and so are those whose data is too short.
pub(crate) fn parse(mut bytes: &[u8]) -> Control {
    let mut control = Control::default();
    while bytes.len() >= HEADER {
        let length = word::<8>(bytes, 0).map_or(0, usize::from_ne_bytes);
        let (level, kind) = (int(bytes, 8), int(bytes, 12));
        let Some(data) = bytes.get(HEADER..length) else { break };
        match (level.unwrap_or(-1), kind.unwrap_or(-1)) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                if let (Some(secs), Some(nanos)) = (word::<8>(data, 0), word::<8>(data, 8)) {
                    control.time = Some(Timestamp {
                        secs: i64::from_ne_bytes(secs) as u32,
                        nanos: i64::from_ne_bytes(nanos) as u32,
                    });
                }
            }
            // struct in_pktinfo: interface index, address to answer from, destination of the header. The first address
            // equals the second exactly when the destination is one that the host takes as its own (net/ipv4/
            // fib_frontend.c, `fib_compute_spec_dst`).
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                control.ifindex = int(data, 0).unwrap_or(0) as u32;
                control.dst = word::<4>(data, 8).map(Addr::from_v4);
                control.broadcast_or_multicast |= word::<4>(data, 4) != word::<4>(data, 8);
            }
            // struct in6_pktinfo: destination (mapped for IPv4), interface index.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                control.ifindex = int(data, 16).unwrap_or(0) as u32;
                control.dst = word::<16>(data, 0).map(Addr);
                // A dual-stack socket gives both messages for an IPv4 datagram, and this one does not tell broadcast.
                control.broadcast_or_multicast |= data.first() == Some(&0xff);
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                control.gso_size = int(data, 0).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            }
            (libc::IPPROTO_IP, libc::IP_RECVFRAGSIZE) => {
                control.fragment_size_v4 = int(data, 0).map(|n| n as u32);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_RECVFRAGSIZE) => {
                control.fragment_size_v6 = int(data, 0).map(|n| n as u32);
            }
            _ => {}
        }
        let Some(rest) = bytes.get(length.next_multiple_of(ALIGN)..) else { break };
        bytes = rest;
    }
    control
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn int(bytes: &[u8], at: usize) -> Option<i32> {
    word::<4>(bytes, at).map(i32::from_ne_bytes)
}

const _: () = assert!(size_of::<usize>() == 8 && HEADER == 16, "cmsghdr of a 64-bit target");

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut out = (HEADER + data.len()).to_ne_bytes().to_vec();
        out.extend(level.to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(data);
        out.resize(out.len().next_multiple_of(ALIGN), 0);
        out
    }

    #[test]
    fn reads_what_it_knows_and_skips_the_rest() {
        let mut bytes = message(99, 1, &[1, 2, 3]);
        bytes.extend(message(libc::SOL_UDP, libc::UDP_GRO, &1000i32.to_ne_bytes()));
        bytes.extend(message(libc::IPPROTO_IP, libc::IP_PKTINFO, &[3, 0, 0, 0, 9, 9, 9, 9, 192, 0, 2, 2]));
        bytes.extend(message(libc::IPPROTO_IP, libc::IP_RECVFRAGSIZE, &1500i32.to_ne_bytes()));
        bytes.extend(message(libc::IPPROTO_IPV6, libc::IPV6_RECVFRAGSIZE, &1288i32.to_ne_bytes()));
        let c = parse(&bytes);
        assert_eq!(c.gso_size, 1000);
        assert_eq!(c.dst, Some(Addr::from_v4([192, 0, 2, 2])));
        assert_eq!((c.fragment_size_v6, c.fragment_size_v4, c.time), (Some(1288), Some(1500), None));
        assert_eq!((c.ifindex, c.broadcast_or_multicast), (3, true));
        let own = message(libc::IPPROTO_IP, libc::IP_PKTINFO, &[3, 0, 0, 0, 192, 0, 2, 2, 192, 0, 2, 2]);
        assert!(!parse(&own).broadcast_or_multicast);
        let mut v6 = [0xff; 16].to_vec();
        v6.extend(7u32.to_ne_bytes());
        let c = parse(&message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &v6));
        assert_eq!((c.ifindex, c.broadcast_or_multicast, c.dst), (7, true, Some(Addr([0xff; 16]))));
        // A dual-stack socket reports an IPv4 broadcast datagram by both messages, in either order.
        let v4 = message(libc::IPPROTO_IP, libc::IP_PKTINFO, &[3, 0, 0, 0, 192, 0, 2, 2, 192, 0, 2, 255]);
        let to_all = Addr::from_v4([192, 0, 2, 255]);
        let mapped =
            message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[&to_all.0[..], &[3, 0, 0, 0]].concat());
        for both in [[v4.clone(), mapped.clone()], [mapped, v4]] {
            let c = parse(&both.concat());
            assert_eq!((c.ifindex, c.broadcast_or_multicast, c.dst), (3, true, Some(to_all)));
        }
    }

    #[test]
    fn absurd_lengths_end_the_walk() {
        for length in [0usize, 3, 15, 17, 1 << 40, usize::MAX] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.resize(40, 0xff);
            parse(&bytes);
        }
        assert_eq!(parse(&[]), Control::default());
    }
}
