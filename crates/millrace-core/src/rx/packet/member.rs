//! The sockets of a group's members: opened, with rings, bound and joined.

use std::{io, os::fd::OwnedFd, sync::Arc};

use libc::sock_filter;

use super::{
    fanout::{FanoutGroup, FanoutSpec},
    rings::Rings,
};
use crate::{
    bpf::classic,
    config::{EngineConfig, Tpacket},
    error::{Code, Error, Result},
    sys::socket,
};

/// The members of a group, in index order: bound and joined, with a filter that drops everything.
pub(super) struct Members {
    pub(super) sockets: Vec<Arc<OwnedFd>>,
    pub(super) rings: Vec<Rings>,
    pub(super) group: FanoutGroup,
}

impl Members {
    /// Turns sockets of [`open_socket`] into the members of a new group on the interface `name` with index `ifindex`.
    /// `generation` is 0 for the first group and counts those that follow it.
    ///
    /// # Errors
    /// [`Code::Interface`] when the interface went away, [`Code::Kernel`], and those of [`FanoutSpec::join`].
    pub(super) fn new(
        config: &EngineConfig,
        (spec, generation): (&FanoutSpec, u32),
        sockets: Vec<OwnedFd>,
        (name, ifindex): (&str, u32),
        degraded: &mut Vec<String>,
    ) -> Result<Self> {
        let mut rings = Vec::with_capacity(sockets.len());
        for fd in &sockets {
            let ring = Rings::new(fd, config).map_err(|e| {
                let size = format!("{} blocks of {} bytes", config.packet_blocks, config.packet_block_bytes);
                Error::os(Code::Kernel, format!("PACKET_RX_RING on {name}, {size}, and down to 2 blocks"), e)
            })?;
            attach_filter(fd, &classic::drop_all())?;
            socket::bind_packet(fd, ifindex).map_err(|e| bind_refused(e, name))?;
            rings.push(ring);
        }
        let group = spec.join(generation, &sockets, name, ifindex, degraded)?;
        Ok(Members { sockets: sockets.into_iter().map(Arc::new).collect(), rings, group })
    }
}

/// Opens a packet socket that receives nothing yet, with its TPACKET version and PACKET_VNET_HDR set.
///
/// # Errors
/// [`Code::Permission`] without CAP_NET_RAW, [`Code::Unsupported`], [`Code::Kernel`].
pub(super) fn open_socket(version: Tpacket) -> Result<OwnedFd> {
    let fd = socket::open(libc::AF_PACKET, libc::SOCK_RAW, 0).map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            Error::os(Code::Permission, "AF_PACKET socket: needs the capability CAP_NET_RAW", e)
        }
        Some(libc::EAFNOSUPPORT) => {
            Error::os(Code::Unsupported, "AF_PACKET socket: this kernel was built without CONFIG_PACKET", e)
        }
        _ => Error::os(Code::Kernel, "AF_PACKET socket", e),
    })?;
    let number = match version {
        Tpacket::V3 => libc::tpacket_versions::TPACKET_V3,
        Tpacket::V2 => libc::tpacket_versions::TPACKET_V2,
    };
    socket::set_int(&fd, libc::SOL_PACKET, libc::PACKET_VERSION, number as libc::c_int)
        .map_err(|e| Error::os(Code::Unsupported, version.as_str().to_uppercase(), e))?;
    // This is not optional: without it a UDP super-packet would be taken for one datagram.
    socket::set_int(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)
        .map_err(|e| Error::os(Code::Unsupported, "PACKET_VNET_HDR", e))?;
    Ok(fd)
}

/// Attaches a socket filter (SO_ATTACH_FILTER, socket(7)), in place of the one that was attached before.
///
/// # Errors
/// [`Code::Kernel`].
pub(super) fn attach_filter(fd: &OwnedFd, program: &[sock_filter]) -> Result<()> {
    socket::attach_cbpf(fd, libc::SO_ATTACH_FILTER, program)
        .map_err(|e| Error::os(Code::Kernel, format!("SO_ATTACH_FILTER, {} instructions", program.len()), e))
}

fn bind_refused(e: io::Error, interface: &str) -> Error {
    match e.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => {
            Error::os(Code::Interface, format!("interface {interface} went away"), e)
        }
        _ => Error::os(Code::Kernel, format!("bind a packet socket to {interface}"), e),
    }
}
