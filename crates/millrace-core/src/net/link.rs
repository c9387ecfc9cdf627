//! State, MTU, counters and XDP program of one interface, from rtnetlink(7) (RTM_GETLINK).

use std::io;

use super::{
    interface::Interface,
    netlink::{
        HEADER, NLMSG_ERROR, NetlinkSocket, attributes, link_attributes, message_errno, message_type, u32_at,
    },
};
use crate::error::{Code, Error, Result};

/// Attributes of a link, and those nested in IFLA_XDP (linux/if_link.h).
const IFLA_MTU: u16 = 4;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_STATS64: u16 = 23;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;

/// Frames that the interface counted since it was made, before any socket saw them (`struct rtnl_link_stats64`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames dropped by the host: there was no memory or no protocol for them, or XDP failed.
    pub rx_dropped: u64,
    /// Frames for which the NIC had no receive descriptor.
    pub rx_missed_errors: u64,
    /// Frames for which the NIC's FIFO had no room.
    pub rx_fifo_errors: u64,
    /// Frames longer than the receive buffer.
    pub rx_over_errors: u64,
}

/// An XDP program on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XdpAttachment {
    /// The kernel's program id; 0 when several modes are in use at once.
    pub program_id: u32,
    /// `native`, `generic`, `offloaded` or `several modes`.
    pub mode: &'static str,
}

/// An interface as rtnetlink describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Largest network packet, bytes without the Ethernet header.
    pub mtu: u32,
    /// RFC 2863 state: `up`, `down`, `unknown` (usual for veth peers without carrier detection and tunnels), …
    pub operstate: &'static str,
    /// Rx queues allocated, of which fewer may be in use.
    pub rx_queues: u32,
    /// Counters.
    pub statistics: Statistics,
    /// The XDP program, if any.
    pub xdp: Option<XdpAttachment>,
}

impl Interface {
    /// Queries rtnetlink for state, MTU, counters and XDP program.
    ///
    /// # Errors
    /// [`Code::Interface`] when the interface is gone, [`Code::Kernel`] for everything else.
    pub fn link(&self) -> Result<Link> {
        let what = format!("asking rtnetlink about {}", self.name);
        let answer = query(self.index).map_err(|e| Error::os(Code::Kernel, &what, e))?;
        if message_type(&answer) == NLMSG_ERROR {
            let errno = message_errno(&answer);
            let code = if errno == libc::ENODEV { Code::Interface } else { Code::Kernel };
            return Err(Error::os(code, what, io::Error::from_raw_os_error(errno)));
        }
        Ok(parse(&answer))
    }
}

/// Sends RTM_GETLINK for `index` and returns the one message that answers.
fn query(index: u32) -> io::Result<Vec<u8>> {
    let socket = NetlinkSocket::new(0)?;
    socket.request_links(Some(index))?;
    let mut answer = vec![0u8; 64 << 10];
    let got = socket.receive(&mut answer)?;
    if got < HEADER + 4 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let length = (u32_at(&answer, 0) as usize).min(got);
    answer.truncate(length);
    Ok(answer)
}

/// Reads an RTM_NEWLINK message.
fn parse(message: &[u8]) -> Link {
    let mut link = Link { operstate: "unknown", ..Link::default() };
    for (kind, value) in link_attributes(message) {
        match kind {
            IFLA_MTU => link.mtu = u32_at(value, 0),
            IFLA_OPERSTATE => link.operstate = operstate(value.first().copied().unwrap_or(0)),
            IFLA_NUM_RX_QUEUES => link.rx_queues = u32_at(value, 0),
            // Positions in struct rtnl_link_stats64, all u64.
            IFLA_STATS64 => {
                link.statistics = Statistics {
                    rx_packets: nth_u64(value, 0),
                    rx_dropped: nth_u64(value, 6),
                    rx_over_errors: nth_u64(value, 11),
                    rx_fifo_errors: nth_u64(value, 14),
                    rx_missed_errors: nth_u64(value, 15),
                }
            }
            IFLA_XDP => link.xdp = xdp(value),
            _ => {}
        }
    }
    link
}

/// Reads IFLA_XDP.
fn xdp(nested: &[u8]) -> Option<XdpAttachment> {
    let (mut attached, mut program_id) = (0, 0);
    for (kind, value) in attributes(nested) {
        match kind {
            IFLA_XDP_ATTACHED => attached = value.first().copied().unwrap_or(0),
            IFLA_XDP_PROG_ID => program_id = u32_at(value, 0),
            _ => {}
        }
    }
    // XDP_ATTACHED_*
    let mode = match attached {
        0 => return None,
        1 => "native",
        2 => "generic",
        3 => "offloaded",
        _ => "several modes",
    };
    Some(XdpAttachment { program_id, mode })
}

/// Names an operational state (IF_OPER_*, linux/if.h).
fn operstate(state: u8) -> &'static str {
    ["unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"]
        .get(usize::from(state))
        .copied()
        .unwrap_or("unknown")
}

/// Returns the `index`-th u64 of an array, or 0 where the bytes end before it does.
fn nth_u64(bytes: &[u8], index: usize) -> u64 {
    bytes.get(index * 8..).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xdp_attribute() {
        let nested = [5, 0, 2, 0, 1, 0, 0, 0, 8, 0, 4, 0, 42, 0, 0, 0];
        assert_eq!(xdp(&nested), Some(XdpAttachment { program_id: 42, mode: "native" }));
        assert_eq!(xdp(&[5, 0, 2, 0, 0, 0, 0, 0]), None);
    }
}
