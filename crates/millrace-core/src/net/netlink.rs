//! The socket and the messages of rtnetlink(7), as far as RTM_GETLINK needs them (netlink(7), linux/netlink.h). All
//! integers are in host order.
//!
//! A message is a `struct nlmsghdr`, then for a link a `struct ifinfomsg`, then attributes (`struct rtattr`).

use std::{
    io, mem,
    os::fd::{AsRawFd, OwnedFd},
};

use crate::sys::socket;

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
/// Links changed while the list was made: it may lack some.
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
/// The multicast group of every change to a link.
pub(super) const RTMGRP_LINK: u32 = 1;
/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// Bytes of `struct ifinfomsg`.
pub(super) const IFINFO: usize = 16;

const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
/// NLM_F_ROOT and NLM_F_MATCH.
const NLM_F_DUMP: u16 = 0x300;
/// Attribute types carry two flag bits on top (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
const TYPE_MASK: u16 = 0x3fff;

/// A NETLINK_ROUTE socket, which answers for the network namespace of the thread that made it.
pub(super) struct NetlinkSocket(OwnedFd);

impl NetlinkSocket {
    /// Makes a socket that receives the messages of `groups` (`RTMGRP_*`, 0 for none).
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub(super) fn new(groups: u32) -> io::Result<Self> {
        let fd = socket::open(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_NONBLOCK, libc::NETLINK_ROUTE)?;
        // SAFETY: sockaddr_nl is plain old data; all zero is valid.
        let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = groups;
        let length = mem::size_of_val(&address) as libc::socklen_t;
        // SAFETY: pointer and length describe `address`, which the kernel only reads during the call.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(NetlinkSocket(fd)) }
    }

    /// Asks for the link with this index, or with `None` for all links.
    ///
    /// # Errors
    /// Those of send(2).
    pub(super) fn request_links(&self, index: Option<u32>) -> io::Result<()> {
        let dump = if index.is_none() { NLM_F_DUMP } else { 0 };
        let mut request = [0u8; HEADER + IFINFO];
        request[0..4].copy_from_slice(&((HEADER + IFINFO) as u32).to_ne_bytes());
        request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
        request[6..8].copy_from_slice(&(NLM_F_REQUEST | dump).to_ne_bytes());
        request[HEADER + 4..HEADER + 8].copy_from_slice(&index.unwrap_or(0).to_ne_bytes());
        // SAFETY: pointer and length describe `request`, which outlives the call. An unconnected netlink socket sends to
        // the kernel.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads what is there into `buffer` and returns its length. It never waits: the kernel answers a request before send(2)
    /// returns, and writes each further part of a list when the part before it is read.
    ///
    /// # Errors
    /// EAGAIN when nothing is there, ENOBUFS when the kernel had to leave messages out, and others of recv(2).
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: pointer and length describe `buffer`, writable and alive through the call.
        let got = unsafe {
            libc::recv(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                mem::size_of_val(buffer),
                libc::MSG_DONTWAIT,
            )
        };
        if got < 0 { Err(io::Error::last_os_error()) } else { Ok(got as usize) }
    }

    /// Returns the descriptor, which is readable when there is a message.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.0
    }
}

/// Returns the type of a message (`RTM_*`, `NLMSG_*`).
pub(super) fn message_type(message: &[u8]) -> u16 {
    u16_at(message, 4)
}

/// Returns the errno in a message of type [`NLMSG_ERROR`] (`struct nlmsgerr`, which holds it negated).
pub(super) fn message_errno(message: &[u8]) -> i32 {
    (u32_at(message, HEADER) as i32).wrapping_neg()
}

/// Iterates over the messages in what one recv(2) returned; the last one may be truncated.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if bytes.len() < HEADER {
            return None;
        }
        let length = (u32_at(bytes, 0) as usize).clamp(HEADER, bytes.len());
        let message = &bytes[..length];
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Iterates over the attributes of a link's message.
pub(super) fn link_attributes(message: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(message.get(HEADER + IFINFO..).unwrap_or_default())
}

/// Iterates over `struct rtattr`s, each a length and a type as u16, a value, and padding to 4 bytes. It ends at the first
/// inconsistent one.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0));
        let value = bytes.get(4..length)?;
        let kind = u16_at(bytes, 2) & TYPE_MASK;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Returns the u16 at this offset, or 0 where the bytes end before it does.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u16::from_ne_bytes(*b))
}

/// Returns the u32 at this offset, or 0 where the bytes end before it does.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_ne_bytes(*b))
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
}
