//! One rtnetlink(7) request: RTM_GETLINK for one interface.

use std::{io, mem, os::fd::AsRawFd};

use super::Interface;
use crate::{
    error::{Code, Error, Result},
    sys::socket,
};

pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLMSG_ERROR: u16 = 2;
const IFLA_MTU: u16 = 4;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_STATS64: u16 = 23;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
/// `struct nlmsghdr` and `struct ifinfomsg`.
pub(super) const HEADER: usize = 16;
pub(super) const IFINFO: usize = 16;
/// Attribute types carry two flag bits on top.
const TYPE_MASK: u16 = 0x3fff;

/// Drops counted by the interface since it came up, before any socket saw the frame (`struct rtnl_link_stats64`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames received.
    pub rx_packets: u64,
    /// Dropped by the host: no memory, no protocol, XDP errors.
    pub rx_dropped: u64,
    /// The NIC had no receive descriptor.
    pub rx_missed_errors: u64,
    /// The NIC's FIFO overflowed.
    pub rx_fifo_errors: u64,
    /// Longer than the receive buffer.
    pub rx_over_errors: u64,
}

/// An XDP program on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XdpAttachment {
    /// The kernel's program id, 0 when several modes are in use at once.
    pub program_id: u32,
    /// `native`, `generic`, `offloaded` or `several modes`.
    pub mode: &'static str,
}

/// What rtnetlink says about an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Largest network packet, bytes without the Ethernet header.
    pub mtu: u32,
    /// RFC 2863 state: `up`, `down`, `unknown` (usual for veth peers without carrier detection and tunnels), …
    pub operstate: &'static str,
    /// Rx queues allocated.
    pub rx_queues: u32,
    /// Counters.
    pub statistics: Statistics,
    /// The XDP program, if any.
    pub xdp: Option<XdpAttachment>,
}

pub(super) fn get_link(interface: &Interface) -> Result<Link> {
    let what = format!("asking rtnetlink about {}", interface.name);
    let answer = exchange(interface.index).map_err(|e| Error::os(Code::Kernel, &what, e))?;
    let kind = u16_at(&answer, 4);
    if kind == NLMSG_ERROR {
        let errno = -(u32_at(&answer, HEADER) as i32);
        let code = if errno == libc::ENODEV { Code::Interface } else { Code::Kernel };
        return Err(Error::os(code, what, io::Error::from_raw_os_error(errno)));
    }
    let mut link = Link { operstate: "unknown", ..Link::default() };
    for (kind, value) in attributes(answer.get(HEADER + IFINFO..).unwrap_or_default()) {
        match kind {
            IFLA_MTU => link.mtu = u32_at(value, 0),
            IFLA_OPERSTATE => link.operstate = operstate(value.first().copied().unwrap_or(0)),
            IFLA_NUM_RX_QUEUES => link.rx_queues = u32_at(value, 0),
            // Positions in struct rtnl_link_stats64, all u64.
            IFLA_STATS64 => {
                link.statistics = Statistics {
                    rx_packets: u64_at(value, 0),
                    rx_dropped: u64_at(value, 6),
                    rx_over_errors: u64_at(value, 11),
                    rx_fifo_errors: u64_at(value, 14),
                    rx_missed_errors: u64_at(value, 15),
                }
            }
            IFLA_XDP => link.xdp = xdp(value),
            _ => {}
        }
    }
    Ok(link)
}

fn xdp(nested: &[u8]) -> Option<XdpAttachment> {
    let (mut attached, mut program_id) = (0, 0);
    for (kind, value) in attributes(nested) {
        match kind {
            IFLA_XDP_ATTACHED => attached = value.first().copied().unwrap_or(0),
            IFLA_XDP_PROG_ID => program_id = u32_at(value, 0),
            _ => {}
        }
    }
    let mode = match attached {
        0 => return None,
        1 => "native",
        2 => "generic",
        3 => "offloaded",
        _ => "several modes",
    };
    Some(XdpAttachment { program_id, mode })
}

fn operstate(state: u8) -> &'static str {
    ["unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"]
        .get(usize::from(state))
        .copied()
        .unwrap_or("unknown")
}

/// Sends RTM_GETLINK for `index` and returns the one message that answers.
fn exchange(index: u32) -> io::Result<Vec<u8>> {
    let fd = socket::open(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    let mut request = [0u8; HEADER + IFINFO];
    request[0..4].copy_from_slice(&((HEADER + IFINFO) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request[HEADER + 4..HEADER + 8].copy_from_slice(&index.to_ne_bytes());
    // SAFETY: pointer and length describe `request`, which outlives the call. An unconnected netlink socket sends to
    // the kernel.
    let sent = unsafe { libc::send(fd.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    // The kernel answers before send returns; DONTWAIT turns a surprise into an error instead of a hang.
    let mut answer = vec![0u8; 64 << 10];
    let len = mem::size_of_val(answer.as_slice());
    // SAFETY: pointer and length describe `answer`, writable and alive through the call.
    let got = unsafe { libc::recv(fd.as_raw_fd(), answer.as_mut_ptr().cast(), len, libc::MSG_DONTWAIT) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    if (got as usize) < HEADER + 4 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let message = u32_at(&answer, 0).min(got as u32) as usize;
    answer.truncate(message);
    Ok(answer)
}

/// Walks `struct rtattr`s: length and type as u16, value, padding to 4 bytes. Stops at anything inconsistent.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0));
        let value = bytes.get(4..length)?;
        let kind = u16_at(bytes, 2) & TYPE_MASK;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u16::from_ne_bytes(*b))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_ne_bytes(*b))
}

/// The `index`-th u64 of an array.
fn u64_at(bytes: &[u8], index: usize) -> u64 {
    bytes.get(index * 8..).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_end_at_the_first_inconsistency() {
        let good = [5, 0, 4, 0, 7, 0, 0, 0, 8, 0, 16, 0x80, 1, 2, 3, 4];
        let all: Vec<_> = attributes(&good).collect();
        assert_eq!(all, [(4, &[7u8][..]), (16, &[1u8, 2, 3, 4][..])]);
        assert_eq!(attributes(&[3, 0, 1, 0, 0, 0]).count(), 0, "shorter than its own header");
        assert_eq!(attributes(&[9, 0, 1, 0, 0]).count(), 0, "longer than the message");
        assert_eq!(attributes(&[1]).count(), 0);
    }

    #[test]
    fn xdp_attribute() {
        let nested = [5, 0, 2, 0, 1, 0, 0, 0, 8, 0, 4, 0, 42, 0, 0, 0];
        assert_eq!(xdp(&nested), Some(XdpAttachment { program_id: 42, mode: "native" }));
        assert_eq!(xdp(&[5, 0, 2, 0, 0, 0, 0, 0]), None);
    }
}
