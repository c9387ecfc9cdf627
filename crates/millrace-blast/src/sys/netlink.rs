//! The part of rtnetlink(7) that a load generator needs: a route, a link with its drop counter, and a neighbour.
//!
//! /sys would not do: it shows the network namespace that it was mounted in, not the caller's.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use super::socket::socket;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_STATS64: u16 = 23;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// Offsets in struct rtnl_link_stats64, which is all u64: rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors,
/// tx_errors, rx_dropped, tx_dropped.
const STATS64_RX_DROPPED: usize = 6 * 8;
const STATS64_TX_DROPPED: usize = 7 * 8;
const HEADER: usize = 16;

/// The route to a destination, as the routing table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) ifindex: u32,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) source: Option<IpAddr>,
}

/// An interface, as far as this crate needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mtu: u32,
    pub(crate) loopback: bool,
    pub(crate) up: bool,
    pub(crate) tx_dropped: u64,
}

/// A route socket.
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE).map(Netlink)
    }

    /// The route to `dst`, if need be out of one interface.
    pub(crate) fn route(&self, dst: IpAddr, ifindex: Option<u32>) -> io::Result<Route> {
        let (family, address) = octets(dst);
        // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags(u32)
        let mut body = vec![family, (address.len() * 8) as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        attribute(&mut body, RTA_DST, &address);
        if let Some(index) = ifindex {
            attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
        }
        let reply = self.request(libc::RTM_GETROUTE, 0, &body)?;
        let mut route = Route { ifindex: 0, gateway: None, source: None };
        for (kind, value) in attributes(reply.get(12..).unwrap_or_default()) {
            match kind {
                RTA_OIF => route.ifindex = u32_of(value),
                RTA_GATEWAY => route.gateway = address_of(value),
                RTA_PREFSRC => route.source = address_of(value),
                _ => {}
            }
        }
        Ok(route)
    }

    /// The link of this name.
    pub(crate) fn link_by_name(&self, name: &str) -> io::Result<Link> {
        let mut body = vec![0; 16];
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        attribute(&mut body, IFLA_IFNAME, &text);
        self.link(&body)
    }

    /// The link of this index.
    pub(crate) fn link_by_index(&self, index: u32) -> io::Result<Link> {
        // struct ifinfomsg: family, pad, type(u16), index(i32), flags(u32), change(u32)
        let mut body = vec![0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        self.link(&body)
    }

    fn link(&self, body: &[u8]) -> io::Result<Link> {
        let reply = self.request(libc::RTM_GETLINK, 0, body)?;
        if reply.len() < 16 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let flags = u32_of(&reply[8..12]);
        let mut link = Link {
            index: u32_of(&reply[4..8]),
            name: String::new(),
            mac: None,
            mtu: 0,
            loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
            up: flags & libc::IFF_UP as u32 != 0,
            tx_dropped: 0,
        };
        for (kind, value) in attributes(&reply[16..]) {
            match kind {
                IFLA_IFNAME => link.name = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned(),
                IFLA_ADDRESS => link.mac = value.try_into().ok(),
                IFLA_MTU => link.mtu = u32_of(value),
                IFLA_STATS64 => {
                    // Loopback has no tx_dropped: what its transmit side cannot queue for its receive side is counted
                    // there (loopback_xmit, enqueue_to_backlog), and the sender gets no error.
                    let at = if link.loopback { STATS64_RX_DROPPED } else { STATS64_TX_DROPPED };
                    let bytes = value.get(at..).and_then(|v| v.first_chunk());
                    link.tx_dropped = bytes.map_or(0, |b| u64::from_ne_bytes(*b));
                }
                _ => {}
            }
        }
        Ok(link)
    }

    /// The MAC of a neighbour; `None` when the table does not know it (yet).
    pub(crate) fn neighbour(&self, ifindex: u32, address: IpAddr) -> io::Result<Option<[u8; 6]>> {
        match self.request(libc::RTM_GETNEIGH, 0, &neighbour(ifindex, address, 0)) {
            Ok(reply) => Ok(attributes(reply.get(12..).unwrap_or_default())
                .find(|(kind, _)| *kind == NDA_LLADDR)
                .and_then(|(_, value)| value.try_into().ok())),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes the kernel resolve a neighbour (ARP, neighbour solicitation) as if there were traffic to it.
    pub(crate) fn resolve(&self, ifindex: u32, address: IpAddr) -> io::Result<()> {
        let flags = (libc::NLM_F_ACK | libc::NLM_F_CREATE) as u16;
        self.request(libc::RTM_NEWNEIGH, flags, &neighbour(ifindex, address, libc::NTF_USE)).map(drop)
    }

    /// Sends one request, returns the body of the one reply.
    fn request(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(libc::NLM_F_REQUEST as u16 | flags).to_ne_bytes());
        message.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        message.extend_from_slice(body);
        // SAFETY: pointer and length describe `message`, which outlives the call.
        let n = unsafe { libc::send(self.0.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        // A link with many queues and addresses answers a few kilobytes.
        let mut reply = vec![0u8; 65_536];
        // SAFETY: pointer and length describe `reply`, exclusively borrowed for the call.
        let n = unsafe { libc::recv(self.0.as_raw_fd(), reply.as_mut_ptr().cast(), reply.len(), 0) };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        reply.truncate(n as usize);
        if reply.len() < HEADER + 4 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = (u32_of(&reply[..4]) as usize).clamp(HEADER, reply.len());
        if u16::from_ne_bytes([reply[4], reply[5]]) == libc::NLMSG_ERROR as u16 {
            return match u32_of(&reply[16..20]) as i32 {
                0 => Ok(Vec::new()),
                errno => Err(io::Error::from_raw_os_error(-errno)),
            };
        }
        Ok(reply[HEADER..length].to_vec())
    }
}

/// struct ndmsg (family, pads, ifindex(i32), state(u16), flags, type) and the address.
fn neighbour(ifindex: u32, address: IpAddr, flags: u8) -> Vec<u8> {
    let (family, octets) = octets(address);
    let mut body = vec![family, 0, 0, 0];
    body.extend_from_slice(&ifindex.to_ne_bytes());
    body.extend_from_slice(&[0, 0, flags, 0]);
    attribute(&mut body, NDA_DST, &octets);
    body
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*rest.first()?, *rest.get(1)?]));
        let kind = u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(a) => (libc::AF_INET as u8, a.octets().to_vec()),
        IpAddr::V6(a) => (libc::AF_INET6 as u8, a.octets().to_vec()),
    }
}

fn address_of(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(|b| Ipv4Addr::from(b).into()),
        16 => <[u8; 16]>::try_from(value).ok().map(|b| Ipv6Addr::from(b).into()),
        _ => None,
    }
}

fn u32_of(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known() {
        let nl = Netlink::open().unwrap();
        let lo = nl.link_by_name("lo").unwrap();
        assert_eq!((lo.index, lo.loopback, lo.name.as_str()), (1, true, "lo"));
        assert_eq!(nl.link_by_index(1).unwrap().mtu, lo.mtu);
        assert_eq!(nl.route("127.0.0.1".parse().unwrap(), None).unwrap().ifindex, 1);
        assert!(nl.link_by_name("no-such-if").is_err());
    }

    #[test]
    fn attributes_are_total() {
        for bytes in [&[][..], &[1], &[0, 0, 0, 0], &[3, 0, 1, 0], &[9, 0, 1, 0, 1], &[4, 0, 1, 0, 5]] {
            assert!(attributes(bytes).count() <= 1);
        }
    }
}
