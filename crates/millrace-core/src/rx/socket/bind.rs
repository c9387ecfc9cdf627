//! Binds the sockets of an endpoint, and turns bind(2)'s refusals into errors that name a cure.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    control::Control,
    endpoints::{BindAddress, Endpoint},
};
use crate::{
    datagram::Addr,
    error::{Code, Error, Result},
    net::interface_name,
    sys::{port_owner, socket},
};

/// How long a port that is taken is tried again. Shorter, and a service fails to start because another process holds its
/// port for an instant; longer, and the error about a port that is really taken comes late.
const RETRY_FOR: Duration = Duration::from_millis(300);
/// Pause between two attempts: the most by which a start is later than the port is free. Each attempt costs one bind(2).
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A socket that is bound.
pub(crate) struct BoundSocket {
    /// Its receiver owns it; a reload of the rules borrows it for a moment.
    pub(crate) fd: Arc<OwnedFd>,
    /// Port, host order.
    pub(crate) port: u16,
    /// The bound address, where it is a single one: then it is the destination of every datagram.
    pub(crate) dst: Option<Addr>,
}

impl BoundSocket {
    /// Destination of a datagram read here; unspecified where the socket is bound to many addresses and the kernel did not
    /// name it.
    #[inline]
    pub(crate) fn destination(&self, control: &Control) -> Addr {
        self.dst.or(control.dst).unwrap_or(Addr::UNSPECIFIED)
    }
}

/// Sets the options of a socket between socket(2) and bind(2), so that the first datagram already meets them. It is told
/// the socket's index in its group and whether the socket is IPv6.
pub(crate) type Configure<'a> = &'a mut dyn FnMut(usize, &OwnedFd, bool) -> Result<()>;

/// Binds the only socket of an endpoint, without SO_REUSEPORT.
///
/// # Errors
/// Those of [`bind_reuseport_group`].
pub(crate) fn bind_one(endpoint: Endpoint, configure: Configure<'_>) -> Result<BoundSocket> {
    bind_member(endpoint, 0, 1, configure)
}

/// Binds `count` sockets to one endpoint and returns them in index order. With more than one they form a SO_REUSEPORT group
/// (socket(7)), in which a socket's index is that of binding.
///
/// The first socket is bound *without* SO_REUSEPORT: bind(2) then refuses it while any other socket holds the port, even
/// one of a group that it could join, so that a second Millrace of the same user cannot share (and halve) the traffic
/// unnoticed. Only then does the socket become shareable and the others join it; the kernel allows that order
/// (net/ipv4/udp.c, `udp_lib_lport_inuse`, looks at the present value of both sockets). A later program of our own uid that
/// sets SO_REUSEPORT itself can still join. Clearing the option again on one member would refuse it, but also ends the
/// distribution (measured on 6.18: all datagrams go to that member).
///
/// # Errors
/// [`Code::Port`] when the port is taken, with its owner; [`Code::Permission`] for a privileged port; [`Code::Config`] for
/// an address this host does not have, or a family this kernel does not have; what `configure` returns.
pub(crate) fn bind_reuseport_group(
    endpoint: Endpoint,
    count: usize,
    configure: Configure<'_>,
) -> Result<Vec<BoundSocket>> {
    (0..count).map(|index| bind_member(endpoint, index, count, configure)).collect()
}

fn bind_member(
    endpoint: Endpoint,
    index: usize,
    count: usize,
    configure: Configure<'_>,
) -> Result<BoundSocket> {
    let (fd, address) = new_socket(endpoint)?;
    configure(index, &fd, address.is_ipv6())?;
    if index > 0 {
        allow_sharing(&fd, endpoint)?;
    }
    let scope = if let BindAddress::Exact(_, scope) = endpoint.address { scope } else { 0 };
    retry_while_taken(|| socket::bind_ip(&fd, address, scope, endpoint.port))
        .map_err(|e| refused(endpoint, address, e))?;
    if index == 0 && count > 1 {
        allow_sharing(&fd, endpoint)?;
    }
    let dst = endpoint.address.is_exact().then(|| Addr::from(address));
    Ok(BoundSocket { fd: Arc::new(fd), port: endpoint.port, dst })
}

/// Binds, and again for [`RETRY_FOR`] while the port is taken. Some processes hold a port for an instant only: `millrace
/// check`, which binds it to see whether that is possible, or a process that is about to be replaced by execve(2) and has
/// its parent's descriptors until then.
fn retry_while_taken(mut bind: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match bind() {
            Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) && start.elapsed() < RETRY_FOR => {
                thread::sleep(RETRY_PAUSE);
            }
            done => return done,
        }
    }
}

fn allow_sharing(fd: &OwnedFd, endpoint: Endpoint) -> Result<()> {
    socket::set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
        .map_err(|e| Error::os(Code::Kernel, format!("SO_REUSEPORT for UDP port {}", endpoint.port), e))
}

/// A socket of the right family and the address to bind it to. Where the kernel has no IPv6, [`BindAddress::Any`] is
/// `0.0.0.0`.
fn new_socket(endpoint: Endpoint) -> Result<(OwnedFd, IpAddr)> {
    let address = match endpoint.address {
        BindAddress::Any | BindAddress::AnyV6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        BindAddress::AnyV4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        BindAddress::Exact(a, _) => a,
    };
    let name = SocketAddr::new(address, endpoint.port);
    let failed = |e| Error::os(Code::Kernel, format!("UDP socket for {name}"), e);
    if address.is_ipv4() {
        return Ok((socket::open_udp_v4().map_err(failed)?, address));
    }
    let fd = match socket::open(libc::AF_INET6, libc::SOCK_DGRAM, 0) {
        Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            if endpoint.address != BindAddress::Any {
                return Err(Error::os(Code::Config, format!("{name}: this kernel has no IPv6"), e));
            }
            return Ok((socket::open_udp_v4().map_err(failed)?, IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        }
        other => other.map_err(failed)?,
    };
    // Set both ways, so that net.ipv6.bindv6only has no effect.
    let only = libc::c_int::from(endpoint.address != BindAddress::Any);
    socket::set_int(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only).map_err(failed)?;
    Ok((fd, address))
}

fn refused(endpoint: Endpoint, address: IpAddr, e: io::Error) -> Error {
    let port = endpoint.port;
    let name = match endpoint.address {
        BindAddress::Exact(_, scope) if scope != 0 => {
            format!("[{address}%{}]:{port}", interface_name(scope).unwrap_or_else(|_| scope.to_string()))
        }
        _ => SocketAddr::new(address, port).to_string(),
    };
    match e.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            let owner = port_owner::describe(address, port);
            Error::os(Code::Port, format!("UDP {name} is taken: {owner}"), e)
        }
        Some(libc::EACCES) => Error::os(
            Code::Permission,
            format!(
                "UDP {name}: a port below net.ipv4.ip_unprivileged_port_start needs CAP_NET_BIND_SERVICE"
            ),
            e,
        ),
        Some(libc::EADDRNOTAVAIL) => {
            let whose = if name.contains('%') {
                "that interface does not have it"
            } else {
                "no interface of this host has it"
            };
            Error::os(Code::Config, format!("listen address {name}: {whose}"), e)
        }
        _ => Error::os(Code::Kernel, format!("bind UDP {name}"), e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_held_for_an_instant_is_waited_for() {
        let holder = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let endpoint = Endpoint { address: BindAddress::Exact("127.0.0.1".parse().unwrap(), 0), port };
        let refused = bind_reuseport_group(endpoint, 1, &mut |_, _, _| Ok(())).err().unwrap();
        assert!(refused.code == Code::Port && refused.message.contains("is held by"), "{refused}");
        let release = thread::spawn(move || {
            thread::sleep(RETRY_FOR / 4);
            drop(holder);
        });
        let mut indices = Vec::new();
        let group = bind_reuseport_group(endpoint, 2, &mut |index, _, _| {
            indices.push(index);
            Ok(())
        });
        assert_eq!((group.unwrap().len(), indices), (2, vec![0, 1]));
        release.join().unwrap();
    }
}
