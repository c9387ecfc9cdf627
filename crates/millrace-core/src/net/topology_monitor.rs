//! Keeps the [`Topology`] of one interface up to date: reads the list of all links, and reads it again after a change.

use std::{io, os::fd::OwnedFd};

use super::{
    netlink::{
        NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkSocket, RTMGRP_LINK, message_errno, message_type,
        messages, u16_at,
    },
    topology::{DeviceKind, LinkEntry, Topology},
};

/// How many times a list that changed while it was read is requested. Links change rarely; too few attempts would fail on a
/// host that starts many containers at once, and too many would keep the caller busy there.
const ATTEMPTS: usize = 5;

/// The devices above and below one interface, as of the last [`TopologyMonitor::refresh`].
pub(crate) struct TopologyMonitor {
    ifindex: u32,
    /// Receives a message about every change to a link of the network namespace it was made in.
    changes: NetlinkSocket,
    /// Requests the list of links, in the same namespace.
    requests: NetlinkSocket,
    topology: Topology,
}

impl TopologyMonitor {
    /// Reads the topology around an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// Returns the error that socket(2), bind(2), send(2) or recv(2) of the netlink socket reports.
    pub(crate) fn open(ifindex: u32) -> io::Result<Self> {
        // It listens before it reads, so that no change between the two is missed.
        let (changes, requests) = (NetlinkSocket::new(RTMGRP_LINK)?, NetlinkSocket::new(0)?);
        let mut monitor = TopologyMonitor { ifindex, changes, requests, topology: Topology::default() };
        monitor.topology = monitor.read()?;
        Ok(monitor)
    }

    /// Returns the index of the interface itself.
    pub(crate) fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Returns the indexes of the interface and all its upper devices, ascending. These hand up frames that came in by the
    /// interface.
    pub(crate) fn with_upper_devices(&self) -> &[u32] {
        &self.topology.with_upper_devices
    }

    /// Returns the MAC addresses whose frames the kernel takes as for this host on the interface: its own and, for a bond or
    /// bridge, those of its ports. Any other is another host's there (net/ethernet/eth.c, `eth_type_trans`), though an upper
    /// device may have that address. The list is empty where frames have no Ethernet header.
    pub(crate) fn macs(&self) -> &[[u8; 6]] {
        &self.topology.macs
    }

    /// Returns the index of the bridge, bond, team or VRF that the interface is a port of.
    pub(crate) fn master(&self) -> Option<u32> {
        (self.topology.master != 0).then_some(self.topology.master)
    }

    /// Returns true when the interface is a port of Open vSwitch, be it by way of a bond. What comes up by the switch's
    /// internal ports came in by this interface as well, and nothing about those says so.
    pub(crate) fn is_open_vswitch_port(&self) -> bool {
        self.topology.open_vswitch_port
    }

    /// Returns true when the interface is a VRF: a ring on it receives nothing.
    pub(crate) fn is_vrf(&self) -> bool {
        self.topology.kind == DeviceKind::Vrf
    }

    /// Returns true when the interface is a port of a VRF.
    pub(crate) fn is_vrf_port(&self) -> bool {
        self.topology.master_kind == DeviceKind::Vrf
    }

    /// Returns the descriptor that is readable when [`TopologyMonitor::refresh`] is due.
    pub(crate) fn fd(&self) -> &OwnedFd {
        self.changes.fd()
    }

    /// Reads the topology again when a link has changed since the last time, and returns true when it is another one now.
    /// When reading fails it stays what it was.
    pub(crate) fn refresh(&mut self) -> bool {
        if !self.take_changes() {
            return false;
        }
        match self.read() {
            Ok(topology) if topology != self.topology => {
                self.topology = topology;
                true
            }
            _ => false,
        }
    }

    /// Reads and drops all messages about changes; returns true when there was one. ENOBUFS means that there were too many
    /// for the buffer, and so is a change as well.
    fn take_changes(&self) -> bool {
        let mut changed = false;
        let mut buffer = [0u8; 256];
        loop {
            match self.changes.receive(&mut buffer) {
                Ok(_) => changed = true,
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return changed,
            }
        }
    }

    fn read(&self) -> io::Result<Topology> {
        for _ in 0..ATTEMPTS {
            if let Some(links) = self.list_links()? {
                return Ok(Topology::of(&links, self.ifindex));
            }
        }
        Err(io::Error::from(io::ErrorKind::Interrupted))
    }

    /// Reads the list of all links; returns `None` when they changed meanwhile.
    fn list_links(&self) -> io::Result<Option<Vec<LinkEntry>>> {
        self.requests.request_links(None)?;
        let (mut links, mut changed) = (Vec::new(), false);
        let mut buffer = vec![0u8; 64 << 10];
        loop {
            let got = self.requests.receive(&mut buffer)?;
            for message in messages(&buffer[..got.min(buffer.len())]) {
                changed |= u16_at(message, 6) & NLM_F_DUMP_INTR != 0;
                match message_type(message) {
                    NLMSG_DONE => return Ok((!changed).then_some(links)),
                    NLMSG_ERROR => return Err(io::Error::from_raw_os_error(message_errno(message))),
                    _ => links.push(LinkEntry::parse(message)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_carries_nothing() {
        let mut monitor = TopologyMonitor::open(1).unwrap();
        assert_eq!(monitor.with_upper_devices(), [1]);
        assert!(monitor.macs().is_empty());
        monitor.refresh();
        assert_eq!(monitor.with_upper_devices(), [1]);
    }
}
