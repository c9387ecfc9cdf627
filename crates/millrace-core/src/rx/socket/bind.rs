//! From the listen list to bound sockets, and from bind(2)'s refusals to errors that name a cure.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    config::Listen,
    datagram::Addr,
    error::{Code, Error, Result},
    net::{Interface, name_of},
    sys::{port_owner, socket},
};

/// What one socket (or one SO_REUSEPORT group) is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Every address of both families: one dual-stack socket.
    Any,
    /// Every IPv4 address.
    AnyV4,
    /// Every IPv6 address and none of IPv4; only the guard asks for it.
    AnyV6,
    /// One address, with the index of its interface when it is link-local, else 0.
    Exact(IpAddr, u32),
}

impl Target {
    /// A single address.
    pub(crate) fn is_exact(self) -> bool {
        matches!(self, Target::Exact(..))
    }
}

/// A target and its port, host order.
pub(crate) type Place = (Target, u16);

/// A socket that is bound.
pub(crate) struct Bound {
    /// Its receiver owns it; a reload borrows it for a moment.
    pub(crate) fd: Arc<OwnedFd>,
    /// Port, host order.
    pub(crate) port: u16,
    /// The bound address, where it is a single one: then it is the destination of every datagram.
    pub(crate) dst: Option<Addr>,
}

/// The places to bind for a listen list. Entries that another entry of the same port covers are left out: their
/// datagrams arrive there, and a second socket would be refused as a conflict with ourselves. Link-local addresses without
/// an interface are on `interface`.
///
/// # Errors
/// [`Code::Interface`] when such an interface does not exist.
pub(crate) fn plan(listen: &[Listen], interface: Option<&str>) -> Result<Vec<Place>> {
    let scope = |l: &Listen| match l.scope.as_deref().or(interface) {
        Some(scope) if l.is_link_local() => Interface::of_scope(scope).map(|i| i.index),
        _ => Ok(0),
    };
    let target = |l: &Listen, scope| match l.address.map(|a| a.to_canonical()) {
        None => Target::Any,
        Some(IpAddr::V6(a)) if a.is_unspecified() => Target::Any,
        Some(IpAddr::V4(a)) if a.is_unspecified() => Target::AnyV4,
        Some(a) => Target::Exact(a, scope),
    };
    let all: Vec<Place> =
        listen.iter().map(|l| Ok((target(l, scope(l)?), l.port))).collect::<Result<Vec<_>>>()?;
    let covered = |&(t, port): &Place| match t {
        Target::Any | Target::AnyV6 => false,
        Target::AnyV4 => all.contains(&(Target::Any, port)),
        Target::Exact(a, _) => {
            all.contains(&(Target::Any, port)) || (a.is_ipv4() && all.contains(&(Target::AnyV4, port)))
        }
    };
    let mut places: Vec<Place> = Vec::new();
    for place in &all {
        if !covered(place) && !places.contains(place) {
            places.push(*place);
        }
    }
    Ok(places)
}

/// False on a kernel without IPv6.
pub(crate) fn has_ipv6() -> bool {
    socket::open(libc::AF_INET6, libc::SOCK_DGRAM, 0).is_ok()
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
pub(crate) fn bind_group(
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
        let scope = if let Target::Exact(_, scope) = place.0 { scope } else { 0 };
        patiently(|| socket::bind_ip(&fd, address, scope, place.1))
            .map_err(|e| refused(place, address, e))?;
        if i == 0 && count > 1 {
            share(&fd, place)?;
        }
        let dst = place.0.is_exact().then(|| Addr::from(address));
        group.push(Bound { fd: Arc::new(fd), port: place.1, dst });
    }
    Ok(group)
}

/// How long a taken port is tried again.
const PATIENCE: Duration = Duration::from_millis(300);

/// Binds, and again for [`PATIENCE`] while the port is taken. Some hold a port for an instant only, and a service that ends for
/// their sake would be a pity: `millrace check`, which binds it to see whether it can be had, or a process that is about
/// to be replaced by execve and has its parent's descriptors until then.
fn patiently(mut bind: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match bind() {
            Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) && start.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}

fn share(fd: &OwnedFd, place: Place) -> Result<()> {
    socket::set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
        .map_err(|e| Error::os(Code::Kernel, format!("SO_REUSEPORT for UDP port {}", place.1), e))
}

/// A socket of the right family and the address to bind it to. Without IPv6 in the kernel, "any" is `0.0.0.0`.
fn new_socket((target, port): Place) -> Result<(OwnedFd, IpAddr)> {
    let address = match target {
        Target::Any | Target::AnyV6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Target::AnyV4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Target::Exact(a, _) => a,
    };
    let family = if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let failed = |e| Error::os(Code::Kernel, format!("UDP socket for {}", name(address, port)), e);
    let fd = match socket::open(family, libc::SOCK_DGRAM, 0) {
        Err(e) if address.is_ipv6() && e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            if target != Target::Any {
                let message = format!("{}: this kernel has no IPv6", name(address, port));
                return Err(Error::os(Code::Config, message, e));
            }
            let v4 = socket::open(libc::AF_INET, libc::SOCK_DGRAM, 0).map_err(failed)?;
            return Ok((v4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        }
        other => other.map_err(failed)?,
    };
    if address.is_ipv6() {
        // Never leave it to net.ipv6.bindv6only.
        let only = libc::c_int::from(target != Target::Any);
        socket::set_int(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only).map_err(failed)?;
    }
    Ok((fd, address))
}

fn refused((target, port): Place, address: IpAddr, e: io::Error) -> Error {
    let at = match target {
        Target::Exact(_, scope) if scope != 0 => {
            format!("[{address}%{}]:{port}", name_of(scope).unwrap_or_else(|_| scope.to_string()))
        }
        _ => name(address, port),
    };
    match e.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            let owner = port_owner::describe(address, port);
            Error::os(Code::Port, format!("UDP {at} is taken: {owner}"), e)
        }
        Some(libc::EACCES) => Error::os(
            Code::Permission,
            format!("UDP {at}: a port below net.ipv4.ip_unprivileged_port_start needs CAP_NET_BIND_SERVICE"),
            e,
        ),
        Some(libc::EADDRNOTAVAIL) => {
            let whose = if at.contains('%') {
                "that interface does not have it"
            } else {
                "no interface of this host has it"
            };
            Error::os(Code::Config, format!("listen address {at}: {whose}"), e)
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
    fn a_port_held_for_an_instant_is_waited_for() {
        let holder = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let place = (Target::Exact("127.0.0.1".parse().unwrap(), 0), port);
        let refused = bind_group(place, 1, &mut |_, _| Ok(())).err().unwrap();
        assert!(refused.code == Code::Port && refused.message.contains("is held by"), "{refused}");
        // Released while it is waited for, whatever else this machine does meanwhile: between two attempts.
        let (mut holder, mut attempts) = (Some(holder), 0);
        let bound = patiently(|| {
            attempts += 1;
            let result = std::net::UdpSocket::bind(("127.0.0.1", port)).map(drop);
            holder = None;
            result
        });
        assert!(bound.is_ok() && attempts == 2, "{bound:?}, {attempts} attempts");
        assert_eq!(bind_group(place, 2, &mut |_, _| Ok(())).unwrap().len(), 2);
    }

    #[test]
    fn covered_and_repeated_entries_are_left_out() {
        let entry = |a: &str, port| {
            let (a, scope) = a.split_once('%').map_or((a, None), |(a, s)| (a, Some(s.to_owned())));
            Listen { address: (!a.is_empty()).then(|| a.parse().unwrap()), scope, port }
        };
        let exact = |a: &str| Target::Exact(a.parse().unwrap(), 0);
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
        assert_eq!(plan(&listen, None).unwrap(), expected);
        // The same link-local address on another interface is another address.
        let lo = "fe80::1".parse().unwrap();
        let listen =
            [entry("fe80::1%lo", 1), entry("fe80::1%1", 1), entry("fe80::1", 1), entry("fd00::1", 1)];
        let expected = vec![(Target::Exact(lo, 1), 1), (exact("fd00::1"), 1)];
        assert_eq!(plan(&listen, Some("lo")).unwrap(), expected);
        assert_eq!(plan(&listen[..1], Some("nosuch0")).unwrap().len(), 1);
        assert_eq!(plan(&listen[2..], Some("nosuch0")).unwrap_err().code, Code::Interface);
    }
}
