//! Keeps the selection programs of all endpoints up to date with the interfaces. For broadcast and multicast, which the
//! kernel gives to no program, it decides whether the ring has a datagram.

use std::{net::IpAddr, os::fd::OwnedFd};

use super::{omission::Omission, port_holder::PortHolder};
use crate::{config::ListenSet, datagram::Addr, net::TopologyMonitor};

/// The input of the selection program of a guard beside a packet ring.
pub(super) struct Selection {
    /// The interfaces that hand up the ring's frames.
    topology: TopologyMonitor,
    /// The addresses and ports that the ring accepts.
    ring_listen: ListenSet,
    holders: Vec<PortHolder>,
    /// The host's link-local addresses at the start, and their interfaces.
    link_local: Vec<(IpAddr, u32)>,
    /// See [`Selection::times_shortened`].
    times_shortened: u64,
}

impl Selection {
    pub(super) fn new(
        topology: TopologyMonitor,
        ring_listen: ListenSet,
        holders: Vec<PortHolder>,
        link_local: Vec<(IpAddr, u32)>,
    ) -> Self {
        Selection { topology, ring_listen, holders, link_local, times_shortened: 0 }
    }

    /// True for a broadcast or multicast datagram that came by an interface whose frames the ring has, for a destination
    /// that the ring accepts. `port` is in host order.
    pub(super) fn is_in_ring(&self, ifindex: u32, dst: Addr, port: u16) -> bool {
        self.topology.with_upper_devices().contains(&ifindex) && self.ring_listen.accepts(dst, port)
    }

    /// Readable when [`Selection::refresh`] has something to do.
    pub(super) fn fd(&self) -> &OwnedFd {
        self.topology.fd()
    }

    /// Follows the interfaces: one that was made on top of the ring's hands up frames that the ring has too.
    pub(super) fn refresh(&mut self) {
        if self.topology.refresh() {
            for holder in &mut self.holders {
                let as_good = holder.renew_program(&self.topology, &self.link_local);
                self.times_shortened += u64::from(!as_good);
            }
        }
    }

    /// The most that any program omits; `None` without programs.
    pub(super) fn omitted(&self) -> Option<Omission> {
        self.holders.iter().map(PortHolder::omitted).max()
    }

    /// Times since the start that a program had to omit more than the one before it, or could not be replaced. Each endpoint
    /// has a program of its own, so that one change of the interfaces may count once for each endpoint.
    pub(super) fn times_shortened(&self) -> u64 {
        self.times_shortened
    }
}
