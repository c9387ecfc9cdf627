//! Binds the guard's sockets of one endpoint beside a packet ring.

use std::{net::IpAddr, os::fd::OwnedFd};

use super::{
    fragment_inspection::FragmentInspection,
    fragments,
    port_holder::PortHolder,
    receiver::GuardSocket,
    role::{OTHER_INTERFACES, PORT_HOLDER, Role},
};
use crate::{
    bpf::classic,
    config::{EngineConfig, Listen, Multicast},
    error::{Code, Error, Result},
    net::TopologyMonitor,
    rx::socket::{
        bind::{bind_one, bind_reuseport_group},
        endpoints::{BindAddress, Endpoint},
        multicast,
        options::SocketOptions,
    },
    sys,
};

/// Largest receive buffer of a REASSEMBLED socket, bytes. Most of what it reads the ring has too and is discarded at once,
/// so that more memory holds mostly copies; with less, reassembled datagrams are lost among them in a burst.
const REASSEMBLED_RCVBUF: u32 = 4 << 20;

/// The parameters that all endpoints have in common.
pub(super) struct EndpointSockets<'a> {
    pub(super) config: &'a EngineConfig,
    pub(super) topology: &'a TopologyMonitor,
    /// The addresses and ports that the ring accepts: the listen list with every address written out.
    pub(super) ring_listen: &'a [Listen],
    /// Multicast groups joined on an interface whose frames the ring has.
    pub(super) multicast_groups_in_ring: &'a [Multicast],
    /// Multicast groups joined on other interfaces.
    pub(super) multicast_groups_elsewhere: &'a [Multicast],
    /// The host's link-local addresses, and their interfaces.
    pub(super) link_local: &'a [(IpAddr, u32)],
    /// Reassembled IPv4 datagrams have to be found, because the ring does not get them.
    pub(super) inspect_ipv4: bool,
}

impl EndpointSockets<'_> {
    /// Binds the reuseport group of an endpoint of one address family. Returns the port holder and the sockets to be read.
    ///
    /// # Errors
    /// Those of [`bind_reuseport_group`] and [`multicast::join`]; [`Code::Kernel`] when a program or an option is refused.
    pub(super) fn bind_reuseport_group(&self, endpoint: Endpoint) -> Result<(PortHolder, Vec<GuardSocket>)> {
        let inspection = self.inspection(endpoint.address);
        let sockets = if inspection == FragmentInspection::Nothing { 2 } else { 3 };
        let rcvbuf = self.config.socket_rcvbuf;
        let (mut full, mut small) = (
            SocketOptions::without_timestamps(rcvbuf),
            SocketOptions::without_timestamps(REASSEMBLED_RCVBUF.min(rcvbuf)),
        );
        let reuseport_group = bind_reuseport_group(endpoint, sockets, &mut |index, fd, ipv6| {
            sys::multicast::own_groups_only(fd, ipv6);
            // With UDP_GRO a super-packet comes whole, instead of being segmented only to be dropped, and the driver's GRO may
            // merge our flows before the ring sees them, which the ring splits for much less. Not so for IPv6: what is
            // merged is large, and large datagrams are inspected for fragments. All sockets of the reuseport group are alike in
            // this, because the driver's GRO reads the one that the kernel's hash selects, not the program's.
            if endpoint.address.is_v4_only() {
                full.enable_gro(fd);
            }
            match index as u32 {
                PORT_HOLDER => drop_everything(fd),
                OTHER_INTERFACES => full.set(fd, ipv6, true),
                // REASSEMBLED: there is no fourth socket.
                _ => {
                    fragments::report_fragment_sizes(fd, ipv6)
                        .map_err(|e| Error::os(Code::Kernel, "IPV6_RECVFRAGSIZE, IP_RECVFRAGSIZE", e))?;
                    small.set(fd, ipv6, true)
                }
            }
        })?;
        let mut bound = reuseport_group.into_iter();
        let (Some(holder), Some(other_interfaces)) = (bound.next(), bound.next()) else {
            return Err(Error::new(Code::State, "guard: a group has fewer sockets than were bound"));
        };
        let reassembled = bound.next();
        let member_in_ring = &reassembled.as_ref().unwrap_or(&holder).fd;
        multicast::join(self.multicast_groups_in_ring, endpoint, &[member_in_ring])?;
        multicast::join(self.multicast_groups_elsewhere, endpoint, &[&other_interfaces.fd])?;
        let addresses = self.ring_addresses(endpoint);
        let holder = PortHolder::new(holder.fd, inspection, addresses, self.topology, self.link_local)?;
        let mut readers = vec![GuardSocket::new(other_interfaces, Role::OtherInterfaces)];
        readers.extend(reassembled.map(|bound| GuardSocket::new(bound, Role::Reassembled)));
        Ok((holder, readers))
    }

    /// Binds the one socket of an endpoint of which the ring has nothing.
    ///
    /// # Errors
    /// Those of [`bind_one`] and [`multicast::join`].
    pub(super) fn bind_one(&self, endpoint: Endpoint) -> Result<GuardSocket> {
        let mut options = SocketOptions::without_timestamps(self.config.socket_rcvbuf);
        let bound = bind_one(endpoint, &mut |_, fd, ipv6| {
            sys::multicast::own_groups_only(fd, ipv6);
            options.set(fd, ipv6, false)
        })?;
        multicast::join(self.multicast_groups_in_ring, endpoint, &[&bound.fd])?;
        multicast::join(self.multicast_groups_elsewhere, endpoint, &[&bound.fd])?;
        Ok(GuardSocket::new(bound, Role::AllDatagrams))
    }

    fn inspection(&self, address: BindAddress) -> FragmentInspection {
        match (address.is_v4_only(), self.inspect_ipv4) {
            (true, true) => FragmentInspection::NonEmptyIpv4,
            (true, false) => FragmentInspection::Nothing,
            (false, _) => FragmentInspection::LargeOrExtendedIpv6,
        }
    }

    /// See [`super::selection_program::RingCoverage::addresses`]. Multicast addresses are not among them, because multicast
    /// passes the program by.
    fn ring_addresses(&self, endpoint: Endpoint) -> Option<Vec<IpAddr>> {
        if endpoint.address.is_exact() {
            return None;
        }
        let ipv4 = endpoint.address.is_v4_only();
        let of_port = self.ring_listen.iter().filter(|l| l.port == endpoint.port).filter_map(|l| l.address);
        let mut of_family: Vec<IpAddr> = of_port
            .map(|address| address.to_canonical())
            .filter(|address| address.is_ipv4() == ipv4 && !address.is_multicast())
            .collect();
        of_family.sort_unstable();
        of_family.dedup();
        Some(of_family)
    }
}

fn drop_everything(fd: &OwnedFd) -> Result<()> {
    sys::socket::attach_cbpf(fd, libc::SO_ATTACH_FILTER, &classic::drop_all())
        .map_err(|e| Error::os(Code::Kernel, "guard: attach a filter", e))
}
