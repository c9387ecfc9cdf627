//! Membership of multicast groups, by the protocol-independent options of RFC 3678 (ip(7), ipv6(7); linux/in.h).

use std::{io, mem, net::IpAddr, os::fd::OwnedFd};

use libc::c_int;

use super::socket::{set_int, set_option};

/// linux/in.h.
const MCAST_JOIN_GROUP: c_int = 42;
const MCAST_LEAVE_GROUP: c_int = 45;
const MCAST_JOIN_SOURCE_GROUP: c_int = 46;
/// ip(7), since Linux 2.6.31.
const IP_MULTICAST_ALL: c_int = 49;
/// linux/in6.h, since Linux 4.20.
const IPV6_MULTICAST_ALL: c_int = 29;

/// `struct group_req` (linux/in.h).
#[repr(C)]
struct GroupRequest {
    interface: u32,
    padding: u32,
    group: libc::sockaddr_storage,
}

/// `struct group_source_req` (linux/in.h).
#[repr(C)]
struct GroupSourceRequest {
    interface: u32,
    padding: u32,
    group: libc::sockaddr_storage,
    source: libc::sockaddr_storage,
}

/// Joins a multicast group on the interface with this index, or with 0 on the one that the kernel's routes name; from one
/// `source` only, or from all.
///
/// # Errors
/// Those of setsockopt(2): ENODEV without an interface or a route, EADDRINUSE when the socket is a member already,
/// ENOBUFS beyond net.ipv4.igmp_max_memberships, EADDRNOTAVAIL or EINVAL when the addresses do not fit each other.
pub(crate) fn join_group(
    fd: &OwnedFd,
    group: IpAddr,
    interface: u32,
    source: Option<IpAddr>,
) -> io::Result<()> {
    match source {
        Some(source) => {
            let (group, source) = (socket_address(group), socket_address(source));
            let request = GroupSourceRequest { interface, padding: 0, group, source };
            // SAFETY: the option takes this structure, which names no memory.
            unsafe { set_option(fd, level_of(&request.group), MCAST_JOIN_SOURCE_GROUP, &request) }
        }
        None => {
            let request = GroupRequest { interface, padding: 0, group: socket_address(group) };
            // SAFETY: the option takes this structure, which names no memory.
            unsafe { set_option(fd, level_of(&request.group), MCAST_JOIN_GROUP, &request) }
        }
    }
}

/// Leaves a group that was joined on the interface with this index. The interface itself may have been removed since.
///
/// # Errors
/// Those of setsockopt(2): EADDRNOTAVAIL when the socket is no member.
pub(crate) fn leave_group(fd: &OwnedFd, group: IpAddr, interface: u32) -> io::Result<()> {
    let request = GroupRequest { interface, padding: 0, group: socket_address(group) };
    // SAFETY: the option takes this structure, which names no memory.
    unsafe { set_option(fd, level_of(&request.group), MCAST_LEAVE_GROUP, &request) }
}

/// Limits a socket to the multicast groups it joined itself (IP_MULTICAST_ALL and IPV6_MULTICAST_ALL off). By default a
/// socket receives every group that any socket of the host joined. Kernels without an option keep that default.
pub(crate) fn own_groups_only(fd: &OwnedFd, ipv6: bool) {
    let _ = set_int(fd, libc::IPPROTO_IP, IP_MULTICAST_ALL, 0);
    if ipv6 {
        let _ = set_int(fd, libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0);
    }
}

/// The level at which setsockopt(2) takes the request for this group.
fn level_of(group: &libc::sockaddr_storage) -> c_int {
    if c_int::from(group.ss_family) == libc::AF_INET { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 }
}

/// The address in the kernel's form, with port 0.
fn socket_address(address: IpAddr) -> libc::sockaddr_storage {
    // SAFETY: sockaddr_storage consists of integers; all zero is a valid value.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    match address {
        IpAddr::V4(a) => {
            // SAFETY: a sockaddr_storage is as large and as aligned as any socket address (RFC 3493 §3.10), is exclusively
            // borrowed here, and any bytes are a valid sockaddr_in.
            let sin = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in>() };
            sin.sin_family = libc::AF_INET as u16;
            sin.sin_addr.s_addr = u32::from_ne_bytes(a.octets());
        }
        IpAddr::V6(a) => {
            // SAFETY: as for IPv4, and any bytes are a valid sockaddr_in6.
            let sin6 = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in6>() };
            sin6.sin6_family = libc::AF_INET6 as u16;
            sin6.sin6_addr.s6_addr = a.octets();
        }
    }
    storage
}
