//! Options of the sockets that are read, and a record of what the kernel granted.

use std::{io, os::fd::OwnedFd};

use crate::{
    config::Timestamps,
    error::{Code, Error, Result},
    rx::BackendInfo,
    sys::socket,
};

/// The largest SO_RCVBUF that the kernel grants, bytes: one less than the largest value of the configuration
/// (net/core/sock.c, `__sock_set_rcvbuf`).
const MAX_RCVBUF: u32 = i32::MAX as u32 / 2;

/// Sets socket options, and remembers what the kernel granted of them.
pub(crate) struct SocketOptions {
    /// Receive buffer requested, bytes.
    rcvbuf: u32,
    /// Smallest receive buffer granted so far, bytes.
    granted_rcvbuf: u32,
    /// UDP_GRO was granted on every socket so far.
    gro: bool,
    timestamps: Timestamps,
}

impl SocketOptions {
    pub(crate) fn new(rcvbuf: u32, timestamps: Timestamps) -> Self {
        SocketOptions { rcvbuf, granted_rcvbuf: u32::MAX, gro: true, timestamps }
    }

    /// Options without kernel time stamps. One socket that requests them makes the kernel stamp every packet of the host.
    pub(crate) fn without_timestamps(rcvbuf: u32) -> Self {
        Self::new(rcvbuf, Timestamps::Pass)
    }

    /// Sets the receive buffer, kernel time stamps where they were requested, and with `destination` that every datagram
    /// comes with its destination address: for a socket that is not bound to a single one.
    ///
    /// # Errors
    /// [`Code::Kernel`] when an option is refused; a smaller receive buffer than requested is no error.
    pub(crate) fn set(&mut self, fd: &OwnedFd, ipv6: bool, destination: bool) -> Result<()> {
        self.set_rcvbuf(fd).map_err(refused("SO_RCVBUF"))?;
        if destination && ipv6 {
            // On a dual-stack socket this also gives the destination of IPv4 datagrams, mapped.
            socket::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
                .map_err(refused("IPV6_RECVPKTINFO"))?;
        }
        if destination {
            // A dual-stack socket needs it too, because only this option tells IPv4 broadcast.
            socket::set_int(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1).map_err(refused("IP_PKTINFO"))?;
        }
        if self.timestamps == Timestamps::Kernel {
            socket::set_int(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
                .map_err(refused("SO_TIMESTAMPNS"))?;
        }
        Ok(())
    }

    fn set_rcvbuf(&mut self, fd: &OwnedFd) -> io::Result<()> {
        let bytes = i32::try_from(self.rcvbuf).unwrap_or(i32::MAX);
        // SO_RCVBUFFORCE exceeds net.core.rmem_max and needs CAP_NET_ADMIN; SO_RCVBUF is clamped to it silently (socket(7)).
        if socket::set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
            socket::set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)?;
        }
        // The kernel doubles the value for its own bookkeeping and reports the double (socket(7)).
        let doubled = socket::get_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF)?;
        self.granted_rcvbuf = self.granted_rcvbuf.min(doubled.max(0) as u32 / 2);
        Ok(())
    }

    /// Allows the kernel to hand over datagrams of one flow merged into one message (UDP_GRO, Linux 5.0, udp(7)).
    pub(crate) fn enable_gro(&mut self, fd: &OwnedFd) {
        self.gro &= socket::set_int(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
    }

    /// Adds to `info` what was granted, and what was not.
    pub(crate) fn describe(&self, info: &mut BackendInfo) {
        let on = |yes| if yes { "on" } else { "off" }.to_owned();
        info.granted.push(("SO_RCVBUF".into(), format!("{} bytes", self.granted_rcvbuf)));
        info.granted.push(("UDP_GRO".into(), on(self.gro)));
        info.granted.push(("SO_TIMESTAMPNS".into(), on(self.timestamps == Timestamps::Kernel)));
        if self.granted_rcvbuf < self.rcvbuf.min(MAX_RCVBUF) {
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

fn refused(option: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |e| Error::os(Code::Kernel, option, e)
}
