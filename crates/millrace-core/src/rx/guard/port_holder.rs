//! The socket of an endpoint that carries the endpoint's selection program.

use std::{net::IpAddr, os::fd::OwnedFd, sync::Arc};

use super::{fragment_inspection::FragmentInspection, omission::Omission, selection_program::RingCoverage};
use crate::{
    error::{Code, Error, Result},
    net::TopologyMonitor,
    sys::socket,
};

/// Index of loopback in every network namespace. What this host sends to any of its addresses comes up by it.
const LOOPBACK: u32 = 1;

/// The port holder of one endpoint and what its program is made from.
pub(super) struct PortHolder {
    fd: Arc<OwnedFd>,
    inspection: FragmentInspection,
    /// See [`RingCoverage::addresses`].
    addresses: Option<Vec<IpAddr>>,
    /// The omission of the program in force.
    omitted: Omission,
}

impl PortHolder {
    /// Attaches the first program.
    ///
    /// # Errors
    /// Those of [`PortHolder::attach_program`].
    pub(super) fn new(
        fd: Arc<OwnedFd>,
        inspection: FragmentInspection,
        addresses: Option<Vec<IpAddr>>,
        topology: &TopologyMonitor,
        link_local: &[(IpAddr, u32)],
    ) -> Result<Self> {
        let mut holder = PortHolder { fd, inspection, addresses, omitted: Omission::Nothing };
        holder.omitted = holder.attach_program(topology, link_local)?;
        Ok(holder)
    }

    /// Returns the omission of the program in force.
    pub(super) fn omitted(&self) -> Omission {
        self.omitted
    }

    /// Replaces the program by one for the interfaces as they are now. Returns false when the new program omits more than the
    /// one before, and when the kernel refused the replacement, for whatever reason; then the old program stays in force.
    pub(super) fn renew_program(&mut self, topology: &TopologyMonitor, link_local: &[(IpAddr, u32)]) -> bool {
        match self.attach_program(topology, link_local) {
            Ok(omitted) => {
                let as_good = omitted <= self.omitted;
                self.omitted = omitted;
                as_good
            }
            Err(_) => false,
        }
    }

    /// Attaches the longest program that the kernel has room for and returns what it omits.
    ///
    /// `link_local` are the host's link-local addresses and their interfaces. The ring accepts them all, but the stack hands
    /// up datagrams for such an address only by its own interface, so that addresses of interfaces that do not hand up the
    /// ring's frames need no room in the program. A ring on loopback is the exception: there come up datagrams for all of
    /// them.
    ///
    /// # Errors
    /// [`Code::Kernel`]; ENOMEM only when even the shortest program does not fit.
    fn attach_program(&self, topology: &TopologyMonitor, link_local: &[(IpAddr, u32)]) -> Result<Omission> {
        let (interfaces, ring_interface) = (topology.with_upper_devices(), topology.ifindex());
        let may_arrive = |a: &&IpAddr| {
            let mut on =
                link_local.iter().filter(|(address, _)| address == *a).map(|(_, index)| index).peekable();
            ring_interface == LOOPBACK || on.peek().is_none() || on.any(|index| interfaces.contains(index))
        };
        let addresses = self.addresses.as_ref();
        let addresses = addresses.map(|all| all.iter().filter(may_arrive).copied().collect::<Vec<_>>());
        let coverage = RingCoverage {
            interfaces,
            ring_interface,
            macs: topology.macs(),
            addresses: addresses.as_deref(),
        };
        let mut refused = Error::new(Code::Kernel, "guard: no program fits");
        for program in coverage.programs(self.inspection) {
            match socket::attach_cbpf(&self.fd, libc::SO_ATTACH_REUSEPORT_CBPF, &program.instructions) {
                Ok(()) => return Ok(program.omitted),
                Err(e) => {
                    let no_room = e.raw_os_error() == Some(libc::ENOMEM);
                    refused = Error::os(Code::Kernel, "guard: attach a filter", e);
                    if !no_room {
                        break;
                    }
                }
            }
        }
        Err(refused)
    }
}
