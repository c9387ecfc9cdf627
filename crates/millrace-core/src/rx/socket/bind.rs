//! From the listen list to bound sockets, and from bind(2)'s refusals to errors that name a cure.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    sync::Arc,
};

use super::{owner, sys};
use crate::{
    config::Listen,
    datagram::Addr,
    error::{Code, Error, Result},
};

/// What one socket (or one SO_REUSEPORT group) is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Every address of both families: one dual-stack socket.
    Any,
    /// Every IPv4 address.
    AnyV4,
    /// Every IPv6 address and none of IPv4; only the guard asks for it.
    AnyV6,
    /// One address.
    Exact(IpAddr),
}

/// A target and its port, host order.
pub(super) type Place = (Target, u16);

/// A socket that is bound.
pub(super) struct Bound {
    /// Its receiver owns it; a reload borrows it for a moment.
    pub(super) fd: Arc<OwnedFd>,
    /// Port, host order.
    pub(super) port: u16,
    /// The bound address, where it is a single one: then it is the destination of every datagram.
    pub(super) dst: Option<Addr>,
}

/// The places to bind for a listen list. Entries that another entry of the same port covers are left out: their
/// datagrams arrive there, and a second socket would be refused as a conflict with ourselves.
pub(super) fn plan(listen: &[Listen]) -> Vec<Place> {
    let target = |l: &Listen| match l.address.map(|a| a.to_canonical()) {
        None => Target::Any,
        Some(IpAddr::V6(a)) if a.is_unspecified() => Target::Any,
        Some(IpAddr::V4(a)) if a.is_unspecified() => Target::AnyV4,
        Some(a) => Target::Exact(a),
    };
    let all: Vec<Place> = listen.iter().map(|l| (target(l), l.port)).collect();
    let covered = |&(t, port): &Place| match t {
        Target::Any | Target::AnyV6 => false,
        Target::AnyV4 => all.contains(&(Target::Any, port)),
        Target::Exact(a) => {
            all.contains(&(Target::Any, port)) || (a.is_ipv4() && all.contains(&(Target::AnyV4, port)))
        }
    };
    let mut places: Vec<Place> = Vec::new();
    for place in &all {
        if !covered(place) && !places.contains(place) {
            places.push(*place);
        }
    }
    places
}

/// False on a kernel without IPv6.
pub(super) fn has_ipv6() -> bool {
    sys::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).is_ok()
}

/// Binds `count` sockets to one place. `prepare` sets the options of each before bind, so that the first datagram
/// already finds them; it is told whether the socket is IPv6.
///
/// The first socket is bound *without* SO_REUSEPORT: that is refused while anybody holds the port, even a group we
/// could join, and so a second Millrace of the same user cannot come to share (and halve) the traffic unnoticed. Only
/// then does the socket become shareable, and the others join it; the kernel allows that order (net/ipv4/udp.c,
/// `udp_lib_lport_inuse` looks at the present value of both sockets). What remains open: a later program of our own
/// uid that sets SO_REUSEPORT itself may still join. Clearing the option again on one member would refuse it, but
/// also ends the distribution (measured on 6.18: all datagrams go to that member).
pub(super) fn bind_group(
    place: Place,
    count: usize,
    prepare: &mut dyn FnMut(&OwnedFd, bool) -> Result<()>,
) -> Result<Vec<Bound>> {
    let mut group = Vec::with_capacity(count);
    for i in 0..count {
        let (fd, address) = new_socket(place)?;
        prepare(&fd, address.is_ipv6())?;
        if i > 0 {
            share(&fd, place)?;
        }
        sys::bind_ip(&fd, address, place.1).map_err(|e| refused(place, address, e))?;
        if i == 0 && count > 1 {
            share(&fd, place)?;
        }
        let dst = matches!(place.0, Target::Exact(_)).then(|| Addr::from(address));
        group.push(Bound { fd: Arc::new(fd), port: place.1, dst });
    }
    Ok(group)
}

fn share(fd: &OwnedFd, place: Place) -> Result<()> {
    sys::set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
        .map_err(|e| Error::os(Code::Kernel, format!("SO_REUSEPORT for UDP port {}", place.1), e))
}

/// A socket of the right family and the address to bind it to. Without IPv6 in the kernel, "any" is `0.0.0.0`.
fn new_socket((target, port): Place) -> Result<(OwnedFd, IpAddr)> {
    let address = match target {
        Target::Any | Target::AnyV6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Target::AnyV4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Target::Exact(a) => a,
    };
    let family = if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let failed = |e| Error::os(Code::Kernel, format!("UDP socket for {}", name(address, port)), e);
    let fd = match sys::socket(family, libc::SOCK_DGRAM, 0) {
        Err(e) if address.is_ipv6() && e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            if target != Target::Any {
                let message = format!("{}: this kernel has no IPv6", name(address, port));
                return Err(Error::os(Code::Config, message, e));
            }
            let v4 = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).map_err(failed)?;
            return Ok((v4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        }
        other => other.map_err(failed)?,
    };
    if address.is_ipv6() {
        // Never leave it to net.ipv6.bindv6only.
        let only = libc::c_int::from(target != Target::Any);
        sys::set_int(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only).map_err(failed)?;
    }
    Ok((fd, address))
}

fn refused((target, port): Place, address: IpAddr, e: io::Error) -> Error {
    let at = name(address, port);
    match e.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            let owner = owner::describe(address, port);
            Error::os(Code::Port, format!("UDP {at} is taken: {owner}"), e)
        }
        Some(libc::EACCES) => Error::os(
            Code::Permission,
            format!("UDP {at}: a port below net.ipv4.ip_unprivileged_port_start needs CAP_NET_BIND_SERVICE"),
            e,
        ),
        Some(libc::EADDRNOTAVAIL) => {
            Error::os(Code::Config, format!("listen address {at}: no interface of this host has it"), e)
        }
        Some(libc::EINVAL) if matches!(target, Target::Exact(IpAddr::V6(a)) if a.is_unicast_link_local()) => {
            let message =
                format!("listen address {at}: a link-local address is not unique; listen on [::] instead");
            Error::os(Code::Config, message, e)
        }
        _ => Error::os(Code::Kernel, format!("bind UDP {at}"), e),
    }
}

fn name(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covered_and_repeated_entries_are_left_out() {
        let entry = |a: &str, port| Listen { address: (!a.is_empty()).then(|| a.parse().unwrap()), port };
        let exact = |a: &str| Target::Exact(a.parse().unwrap());
        let listen = [
            entry("10.0.0.1", 1),
            entry("", 1),
            entry("::", 1),
            entry("0.0.0.0", 1),
            entry("0.0.0.0", 2),
            entry("10.0.0.1", 2),
            entry("fd00::1", 2),
            entry("::ffff:10.0.0.1", 3),
            entry("10.0.0.1", 3),
        ];
        let expected =
            vec![(Target::Any, 1), (Target::AnyV4, 2), (exact("fd00::1"), 2), (exact("10.0.0.1"), 3)];
        assert_eq!(plan(&listen), expected);
    }
}
