//! Plain UDP sockets: SO_REUSEPORT groups read with recvmmsg(2). Needs no privilege and works in any container.
//!
//! Every receiver owns one socket for each place of the listen list; the kernel spreads flows over the receivers by its
//! hash of the addresses and ports. Sources: socket(7), udp(7), ipv6(7), Documentation/networking/timestamping.rst.

mod batch;
pub(crate) mod bind;
mod control;
pub(crate) mod membership;
pub(crate) mod multicast;
pub(crate) mod receiver;
mod snmp;
mod steer;

use std::{os::fd::OwnedFd, sync::Arc};

pub use receiver::SocketReceiver;

use crate::{
    config::{EngineConfig, FanoutMode, Timestamps},
    datagram::Addr,
    error::{Code, Error, Result},
    net,
    rx::{BackendInfo, Opened, Steer, Steering},
    sys::socket,
};

/// Opens `config.rx_threads` receivers.
///
/// # Errors
/// [`Code::Port`] when a port is taken, by a second Millrace too; [`Code::Permission`] for a privileged port;
/// [`Code::Config`] for an address this host does not have.
#[cfg(any(test, feature = "testing"))]
pub fn open(config: &EngineConfig) -> Result<Opened<SocketReceiver>> {
    open_steered(config, &Steering::default())
}

/// As [`open`]; with fanout `rules` the program picks the socket, and so the receiver, of each datagram. The kernel
/// runs it with the UDP payload at offset 0, and spreads by its hash what the program sends beyond the last socket.
///
/// # Errors
/// As [`open`].
pub fn open_steered(config: &EngineConfig, steering: &Steering) -> Result<Opened<SocketReceiver>> {
    let time = config.socket_timestamps;
    let threads = usize::from(config.rx_threads);
    let places = bind::plan(&config.listen, config.interface.as_deref())?;
    let groups = multicast::on(&config.multicast, config.interface.as_deref());
    multicast::check(&groups, &places)?;
    let mut options = Options::new(config.socket_rcvbuf, time);
    let mut steered = steer::Groups::default();
    let mut columns: Vec<Vec<bind::Bound>> = (0..threads).map(|_| Vec::with_capacity(places.len())).collect();
    for &place in &places {
        let exact = place.0.is_exact();
        let group = bind::bind_group(place, threads, &mut |fd, v6| {
            options.receive(fd, v6, !exact).map(|()| {
                options.fast_path(fd);
                multicast::only_own(fd, v6);
            })
        })?;
        multicast::join(&groups, place, &group.iter().map(|b| &*b.fd).collect::<Vec<_>>())?;
        steered.push(group.iter().map(|bound| Arc::downgrade(&bound.fd)).collect());
        for (column, bound) in columns.iter_mut().zip(group) {
            column.push(bound);
        }
    }
    let mut receivers: Vec<SocketReceiver> =
        columns.into_iter().zip(0..).map(|(sockets, index)| SocketReceiver::new(sockets, index)).collect();
    let broadcasts: Vec<Addr> = net::broadcast_addresses()
        .map_err(|e| Error::os(Code::Kernel, "getifaddrs", e))?
        .into_iter()
        .map(Addr::from)
        .collect();
    for receiver in receivers.iter_mut().skip(1) {
        receiver.leave_broadcast(&broadcasts);
    }
    // Once, not for each thread: the number is the namespace's.
    if let Some(first) = receivers.first_mut() {
        first.note_checksum_errors();
    }
    let mut info = BackendInfo {
        backend: "socket",
        mode: if threads > 1 { "reuseport" } else { "single" }.into(),
        interface: None,
        granted: vec![("sockets".into(), format!("{threads} threads x {} places", places.len()))],
        degraded: Vec::new(),
    };
    let by_rules = matches!(config.fanout, FanoutMode::Rules | FanoutMode::Cbpf | FanoutMode::Ebpf);
    let steer: Option<Box<dyn Steer>> = if by_rules && threads > 1 {
        let (what, said) = steered.steer(steering)?;
        info.grant(what, said);
        Some(Box::new(steered))
    } else {
        None
    };
    info.granted.extend(multicast::granted(&config.multicast, config.interface.as_deref()));
    options.report(&mut info);
    Ok(Opened { receivers, guard: None, steer, info })
}

/// Sets socket options and remembers what the kernel made of them.
pub(crate) struct Options {
    /// Receive buffer asked for, bytes.
    rcvbuf: u32,
    /// Smallest receive buffer granted so far, bytes.
    granted_rcvbuf: u32,
    gro: bool,
    time: Timestamps,
}

impl Options {
    pub(crate) fn new(rcvbuf: u32, time: Timestamps) -> Self {
        Options { rcvbuf, granted_rcvbuf: u32::MAX, gro: true, time }
    }

    /// Receive buffer and, where the socket is not bound to one address, the destination of each datagram.
    pub(crate) fn receive(&mut self, fd: &OwnedFd, v6: bool, destination: bool) -> Result<()> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |e| Error::os(Code::Kernel, what, e)
        };
        let asked = i32::try_from(self.rcvbuf).unwrap_or(i32::MAX);
        // FORCE goes beyond net.core.rmem_max and needs CAP_NET_ADMIN; without it the kernel clamps silently.
        if socket::set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, asked).is_err() {
            socket::set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, asked).map_err(failed("SO_RCVBUF"))?;
        }
        // The kernel doubles the value for its own bookkeeping and reports the double (socket(7)).
        let doubled = socket::get_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF).map_err(failed("SO_RCVBUF"))?;
        self.granted_rcvbuf = self.granted_rcvbuf.min(doubled.max(0) as u32 / 2);
        if destination && v6 {
            // Also says the destination of IPv4 datagrams on a dual-stack socket, mapped.
            socket::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
                .map_err(failed("IPV6_RECVPKTINFO"))?;
        }
        if destination {
            // On a dual-stack socket too: it tells IPv4 broadcast.
            socket::set_int(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1).map_err(failed("IP_PKTINFO"))?;
        }
        if self.time == Timestamps::Kernel {
            socket::set_int(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
                .map_err(failed("SO_TIMESTAMPNS"))?;
        }
        Ok(())
    }

    /// Lets the kernel hand over datagrams of one flow merged (UDP_GRO, Linux 5.0).
    pub(crate) fn fast_path(&mut self, fd: &OwnedFd) {
        self.gro &= socket::set_int(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
    }

    pub(crate) fn report(&self, info: &mut BackendInfo) {
        let on = |yes| if yes { "on" } else { "off" }.to_owned();
        info.granted.push(("SO_RCVBUF".into(), format!("{} bytes", self.granted_rcvbuf)));
        info.granted.push(("UDP_GRO".into(), on(self.gro)));
        info.granted.push(("SO_TIMESTAMPNS".into(), on(self.time == Timestamps::Kernel)));
        // The kernel caps at INT_MAX / 2, one byte less than the largest configurable value.
        if self.granted_rcvbuf < self.rcvbuf.min(i32::MAX as u32 / 2) {
            info.degraded.push(format!(
                "SO_RCVBUF: asked for {} bytes, granted {}: raise net.core.rmem_max or give CAP_NET_ADMIN",
                self.rcvbuf, self.granted_rcvbuf
            ));
        }
        if !self.gro {
            info.degraded
                .push("UDP_GRO is not offered by this kernel: every datagram is received by itself".into());
        }
    }
}
