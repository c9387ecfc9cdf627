//! The IP addresses of the host (getifaddrs(3)).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Returns the addresses of all interfaces of the calling thread's network namespace, with the broadcast addresses that
/// belong to them and 255.255.255.255. No address comes twice.
///
/// # Errors
/// Those of getifaddrs(3).
pub fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let mut found = broadcast_addresses()?;
    for_each_entry(|own, _| {
        found.extend(own.map(|(own, _)| own).filter(|a| !found.contains(a)));
    })?;
    Ok(found)
}

/// Returns 255.255.255.255 and the broadcast addresses of all interfaces of the calling thread's network namespace. No
/// address comes twice.
///
/// # Errors
/// Those of getifaddrs(3).
pub fn broadcast_addresses() -> io::Result<Vec<IpAddr>> {
    let mut found = vec![IpAddr::V4(Ipv4Addr::BROADCAST)];
    for_each_entry(|_, broadcast| {
        found.extend(broadcast.filter(|a| !found.contains(a)));
    })?;
    Ok(found)
}

/// Returns the IPv6 link-local addresses (fe80::/10) of the calling thread's network namespace, each with the index of its
/// interface.
///
/// # Errors
/// Those of getifaddrs(3).
pub(crate) fn link_local_addresses() -> io::Result<Vec<(IpAddr, u32)>> {
    let mut found = Vec::new();
    for_each_entry(|own, _| {
        found.extend(own.filter(|(a, _)| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local())));
    })?;
    Ok(found)
}

/// Calls `visit` for each entry of getifaddrs(3) with the address and its scope, and with the broadcast address. The scope
/// is the index of the interface for an IPv6 address that needs one, and 0 for any other.
fn for_each_entry(mut visit: impl FnMut(Option<(IpAddr, u32)>, Option<IpAddr>)) -> io::Result<()> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call writes a list head that is freed below and not used after.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut entry = list;
    while !entry.is_null() {
        // SAFETY: `entry` is an element of the list getifaddrs made, which is freed only after the loop.
        let e = unsafe { &*entry };
        // SAFETY: both are null, or socket addresses of that same list, each as long as its family demands.
        let (own, mask) = unsafe { (ip_address(e.ifa_addr), ip_address(e.ifa_netmask)) };
        let broadcasts = e.ifa_flags & libc::IFF_BROADCAST as u32 != 0;
        let subnet = || subnet_broadcast(own.map(|(a, _)| a), mask.map(|(a, _)| a));
        visit(own, if broadcasts { subnet() } else { None });
        entry = e.ifa_next;
    }
    // SAFETY: the head getifaddrs returned, freed once.
    unsafe { libc::freeifaddrs(list) };
    Ok(())
}

/// Returns the directed broadcast address of an IPv4 subnet. It is computed, because an address configured without `brd`
/// shows none, and the kernel accepts datagrams for it all the same. Subnets of two addresses and of one have none
/// (RFC 3021).
fn subnet_broadcast(own: Option<IpAddr>, mask: Option<IpAddr>) -> Option<IpAddr> {
    let (Some(IpAddr::V4(own)), Some(IpAddr::V4(mask))) = (own, mask) else { return None };
    let host_bits = !mask.to_bits();
    (host_bits > 1).then(|| IpAddr::V4(Ipv4Addr::from_bits(own.to_bits() | host_bits)))
}

/// Returns the IP address in a socket address, if there is one, and its scope (`sin6_scope_id`, ipv6(7)), which is 0 for
/// IPv4.
///
/// # Safety
/// `address` is null or points to a socket address as long as its family demands.
unsafe fn ip_address(address: *const libc::sockaddr) -> Option<(IpAddr, u32)> {
    if address.is_null() {
        return None;
    }
    // SAFETY: `address` is not null, hence a socket address, and its family says which structure it is.
    unsafe {
        match i32::from((*address).sa_family) {
            libc::AF_INET => {
                let v4 = address.cast::<libc::sockaddr_in>().read_unaligned();
                Some((IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))), 0))
            }
            libc::AF_INET6 => {
                let v6 = address.cast::<libc::sockaddr_in6>().read_unaligned();
                Some((IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)), v6.sin6_scope_id))
            }
            _ => None,
        }
    }
}
