//! Which interfaces hand up frames that came in by another one: VLAN, macvlan and ipvlan devices on it, and the bridge,
//! bond, team or VRF it is a port of (rtnetlink(7)). Whoever taps the lower interface has those frames already.
//!
//! Tunnels, MACsec and a veth's peer name a lower interface too, but what comes out of them is not the frame that went in.

use std::{
    io, mem,
    os::fd::{AsRawFd, OwnedFd},
};

use super::rtnetlink::{HEADER, IFINFO, NLM_F_REQUEST, NLMSG_ERROR, RTM_GETLINK, attributes, u16_at, u32_at};
use crate::sys::socket;

const NLMSG_DONE: u16 = 3;
/// NLM_F_ROOT and NLM_F_MATCH.
const NLM_F_DUMP: u16 = 0x300;
/// Links changed while the list was made: it may lack some.
const NLM_F_DUMP_INTR: u16 = 0x10;
const RTMGRP_LINK: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
/// Kinds of devices that hand up the frames of the device they lie on.
const SAME_FRAMES: [&[u8]; 5] = [b"vlan", b"macvlan", b"macvtap", b"ipvlan", b"ipvtap"];
/// Kind of the devices of Open vSwitch. Its ports name one of them as their master, whose frames are not theirs: the host's
/// come up by an internal port, which names no lower device.
const SWITCH: &[u8] = b"openvswitch";
/// Kind of a VRF, whose taps are shown nothing that arrives by its ports but as outgoing (drivers/net/vrf.c, `vrf_ip_rcv`).
const VRF: &[u8] = b"vrf";
/// Lists that changed under way are asked for again so many times.
const ATTEMPTS: usize = 5;

/// What stands on an interface, kept up to date.
pub(crate) struct Stack {
    base: u32,
    /// Hears of every change to a link of the network namespace it was made in.
    news: OwnedFd,
    /// Asks for the list of links, in the same namespace.
    asks: OwnedFd,
    found: Found,
}

/// What one look found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// The interface and all that stand on it, ascending.
    on: Vec<u32>,
    /// The interface it is a port of, 0 for none.
    master: u32,
    /// What that one is.
    master_kind: Kind,
    /// It is a port of Open vSwitch, or of a bond that is one, and so on.
    switched: bool,
    /// What the interface is.
    kind: Kind,
    /// Addresses of it and of what lies below it, where its frames have Ethernet headers.
    macs: Vec<[u8; 6]>,
}

/// What rtnetlink says about how one link is connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Row {
    index: u32,
    /// The interface it lies on, 0 for none.
    lower: u32,
    /// The interface it is a port of, 0 for none.
    master: u32,
    /// Its address, where it is an Ethernet device.
    mac: Option<[u8; 6]>,
    kind: Kind,
}

/// Devices with ports that are none of a tap's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    /// None of these.
    #[default]
    Other,
    /// A device of Open vSwitch.
    Switch,
    Vrf,
}

impl Stack {
    /// Looks at the network namespace of the calling thread.
    ///
    /// # Errors
    /// What socket(2), bind(2), send(2) and recv(2) of a netlink socket report.
    pub(crate) fn on(base: u32) -> io::Result<Self> {
        // First listen, then look: nothing is missed between.
        let (news, asks) = (netlink(RTMGRP_LINK)?, netlink(0)?);
        let mut stack = Stack { base, news, asks, found: Found::default() };
        stack.found = stack.look()?;
        Ok(stack)
    }

    /// The interface itself.
    pub(crate) fn base(&self) -> u32 {
        self.base
    }

    /// The interface itself and all that stand on it, in ascending order.
    pub(crate) fn members(&self) -> &[u32] {
        &self.found.on
    }

    /// Addresses whose frames the kernel takes as for this host on the interface: its own and, for a bond or bridge, those
    /// of its ports. All others are another host's there (net/ethernet/eth.c, `eth_type_trans`), though what stands on
    /// the interface may have that address. Empty where frames have no Ethernet header.
    pub(crate) fn macs(&self) -> &[[u8; 6]] {
        &self.found.macs
    }

    /// The bridge, bond, team or VRF that the interface is a port of.
    pub(crate) fn master(&self) -> Option<u32> {
        (self.found.master != 0).then_some(self.found.master)
    }

    /// The interface is a port of Open vSwitch, be it by way of a bond. What comes up by the switch's internal ports came in
    /// by this interface as well, and nothing about those says so.
    pub(crate) fn is_switched(&self) -> bool {
        self.found.switched
    }

    /// The interface is a VRF: a ring on it hears nothing.
    pub(crate) fn is_vrf(&self) -> bool {
        self.found.kind == Kind::Vrf
    }

    /// The interface is a port of a VRF.
    pub(crate) fn is_port_of_vrf(&self) -> bool {
        self.found.master_kind == Kind::Vrf
    }

    /// Readable when there may be something new.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.news
    }

    /// Looks again when a link has changed since the last time; true when members, master or address are others now.
    /// When looking fails they stay what they were.
    pub(crate) fn refresh(&mut self) -> bool {
        if !self.heard() {
            return false;
        }
        match self.look() {
            Ok(found) if found != self.found => {
                self.found = found;
                true
            }
            _ => false,
        }
    }

    /// Takes all news; their text does not matter. ENOBUFS, too many for the buffer, is news as well.
    fn heard(&self) -> bool {
        let mut any = false;
        let mut buffer = [0u8; 256];
        loop {
            match receive(&self.news, &mut buffer) {
                Ok(_) => any = true,
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => any = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return any,
            }
        }
    }

    fn look(&self) -> io::Result<Found> {
        for _ in 0..ATTEMPTS {
            if let Some(rows) = self.list()? {
                return Ok(found(&rows, self.base));
            }
        }
        Err(io::Error::from(io::ErrorKind::Interrupted))
    }

    /// All links; `None` when they changed meanwhile.
    fn list(&self) -> io::Result<Option<Vec<Row>>> {
        let mut request = [0u8; HEADER + IFINFO];
        request[0..4].copy_from_slice(&((HEADER + IFINFO) as u32).to_ne_bytes());
        request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
        request[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        // SAFETY: pointer and length describe `request`, which outlives the call. An unconnected netlink socket sends to
        // the kernel.
        let sent = unsafe { libc::send(self.asks.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let (mut rows, mut changed) = (Vec::new(), false);
        let mut buffer = vec![0u8; 64 << 10];
        loop {
            // The kernel writes each part of the list when the one before it is read, so there is always one.
            let got = receive(&self.asks, &mut buffer)?;
            let mut rest = &buffer[..got.min(buffer.len())];
            while rest.len() >= HEADER {
                let length = (u32_at(rest, 0) as usize).clamp(HEADER, rest.len());
                changed |= u16_at(rest, 6) & NLM_F_DUMP_INTR != 0;
                match u16_at(rest, 4) {
                    NLMSG_DONE => return Ok((!changed).then_some(rows)),
                    NLMSG_ERROR => return Err(io::Error::from_raw_os_error(-(u32_at(rest, HEADER) as i32))),
                    _ => rows.push(row(&rest[..length])),
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// What a list of all links says about `base`.
fn found(rows: &[Row], base: u32) -> Found {
    let row = |index| rows.iter().find(|r| r.index == index).copied().unwrap_or_default();
    let Row { master, mac, kind, .. } = row(base);
    let macs = if mac.is_some() {
        below(rows, base).iter().filter_map(|i| row(*i).mac).collect()
    } else {
        Vec::new()
    };
    // No link has index 0, and so no kind and no master. More steps than links would be a circle.
    let mut masters =
        std::iter::successors(Some(row(master)), |above| Some(row(above.master))).take(rows.len());
    let switched = masters.any(|above| above.kind == Kind::Switch);
    Found { on: stacked(rows, base), master, master_kind: row(master).kind, switched, kind, macs }
}

/// `base`, and what it lies on or has as ports, directly or by way of another.
fn below(rows: &[Row], base: u32) -> Vec<u32> {
    reachable(base, |index| {
        let lies_on = rows.iter().filter(move |r| r.index == index).map(|r| r.lower);
        let ports = rows.iter().filter(move |r| r.master == index).map(|r| r.index);
        lies_on.chain(ports)
    })
}

/// `base` and what stands on it, directly or on something that does.
fn stacked(rows: &[Row], base: u32) -> Vec<u32> {
    let mut on = reachable(base, |index| {
        let master = rows.iter().filter(move |r| r.index == index).map(|r| r.master);
        let above = rows.iter().filter(move |r| r.lower == index).map(|r| r.index);
        master.chain(above)
    });
    on.sort_unstable();
    on
}

/// `base`, and the neighbours of all that is reached from it; no link has index 0.
fn reachable<I: Iterator<Item = u32>>(base: u32, neighbours: impl Fn(u32) -> I) -> Vec<u32> {
    let mut reached = vec![base];
    let mut at = 0;
    while at < reached.len() {
        for index in neighbours(reached[at]) {
            if index != 0 && !reached.contains(&index) {
                reached.push(index);
            }
        }
        at += 1;
    }
    reached
}

/// One RTM_NEWLINK message.
fn row(message: &[u8]) -> Row {
    let ethernet = u16_at(message, HEADER + 2) == libc::ARPHRD_ETHER;
    let mut row = Row { index: u32_at(message, HEADER + 4), ..Row::default() };
    let (mut same_frames, mut elsewhere) = (false, false);
    for (kind, value) in attributes(message.get(HEADER + IFINFO..).unwrap_or_default()) {
        match kind {
            IFLA_ADDRESS if ethernet => row.mac = value.try_into().ok(),
            IFLA_LINK => row.lower = u32_at(value, 0),
            IFLA_MASTER => row.master = u32_at(value, 0),
            // The lower interface is in another namespace; the number counts there.
            IFLA_LINK_NETNSID => elsewhere = true,
            IFLA_LINKINFO => {
                let name = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                let name = name.map_or(&[][..], |(_, name)| name.strip_suffix(&[0]).unwrap_or(name));
                same_frames = SAME_FRAMES.contains(&name);
                row.kind = match name {
                    SWITCH => Kind::Switch,
                    VRF => Kind::Vrf,
                    _ => Kind::Other,
                };
            }
            _ => {}
        }
    }
    if !same_frames || elsewhere {
        row.lower = 0;
    }
    row
}

fn netlink(groups: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
    let fd = socket::open(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE)?;
    // SAFETY: sockaddr_nl is plain old data; all zero is valid.
    let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as u16;
    address.nl_groups = groups;
    let length = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: pointer and length describe `address`, which the kernel only reads during the call.
    let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length describe `buffer`, writable and alive through the call.
    let got = unsafe {
        libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), mem::size_of_val(buffer), libc::MSG_DONTWAIT)
    };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(got as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        out.extend(kind.to_ne_bytes());
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn message(index: u32, kind: &[u8], more: &[Vec<u8>]) -> Vec<u8> {
        let mut out = vec![0u8; HEADER + IFINFO];
        out[HEADER + 4..HEADER + 8].copy_from_slice(&index.to_ne_bytes());
        out.extend(attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, kind)));
        more.iter().for_each(|m| out.extend(m));
        out
    }

    #[test]
    fn only_devices_with_the_same_frames_lie_on_another() {
        let on = |kind: &[u8], more: &[Vec<u8>]| {
            let lies_on = attribute(IFLA_LINK, &3u32.to_ne_bytes());
            row(&message(7, kind, &[&[lies_on], more].concat()))
        };
        let other_ns = attribute(IFLA_LINK_NETNSID, &0u32.to_ne_bytes());
        let port = attribute(IFLA_MASTER, &9u32.to_ne_bytes());
        assert_eq!(on(b"vlan\0", &[]), Row { index: 7, lower: 3, ..Row::default() });
        assert_eq!(on(b"vlan", &[other_ns]).lower, 0);
        assert_eq!((on(b"veth\0", &[]).lower, on(b"vxlan\0", &[]).lower), (0, 0));
        assert_eq!(on(b"veth\0", &[port]), Row { index: 7, master: 9, ..Row::default() });
    }

    #[test]
    fn what_stands_on_a_port_of_something_stands_on_it() {
        let rows = [(2, 0, 5), (3, 0, 5), (4, 2, 0), (5, 0, 0), (6, 5, 0), (8, 3, 0)];
        let rows = rows.map(|(index, lower, master)| Row { index, lower, master, ..Row::default() });
        assert_eq!(stacked(&rows, 2), [2, 4, 5, 6]);
        assert_eq!(stacked(&rows, 5), [5, 6]);
        assert_eq!(stacked(&rows, 1), [1]);
        // A list that contradicts itself ends all the same.
        let circle = [(1, 2, 0), (2, 1, 1)].map(|(index, lower, master)| Row {
            index,
            lower,
            master,
            ..Row::default()
        });
        assert_eq!(stacked(&circle, 1), [1, 2]);
    }

    #[test]
    fn ports_of_open_vswitch_and_vrfs_are_known_by_their_master() {
        let port = attribute(IFLA_MASTER, &9u32.to_ne_bytes());
        for (name, kind) in
            [(&b"openvswitch\0"[..], Kind::Switch), (b"vrf\0", Kind::Vrf), (b"bridge", Kind::Other)]
        {
            let rows = [
                message(7, b"veth", std::slice::from_ref(&port)),
                message(9, name, &[]),
                message(8, name, &[]),
            ];
            let rows = rows.map(|m| row(&m));
            let of = |base| found(&rows, base);
            assert_eq!((of(7).master, of(7).master_kind, of(7).kind), (9, kind, Kind::Other));
            assert_eq!(of(7).switched, kind == Kind::Switch);
            // The internal port itself is as good as any; a VRF's own is not.
            assert_eq!((of(8).master, of(8).master_kind, of(8).kind), (0, Kind::Other, kind));
            assert_eq!(of(8).on, [8]);
        }
    }

    #[test]
    fn ports_of_a_bond_that_is_a_port_of_open_vswitch_are_its_ports_too() {
        let port_of = |index, kind: &[u8], master: u32| {
            row(&message(index, kind, &[attribute(IFLA_MASTER, &master.to_ne_bytes())]))
        };
        let rows = [
            port_of(2, b"", 5),
            port_of(5, b"bond", 9),
            row(&message(9, b"openvswitch", &[])),
            port_of(3, b"", 4),
        ];
        assert_eq!([2, 5, 9, 3].map(|base| found(&rows, base).switched), [true, true, false, false]);
        // A list that contradicts itself ends all the same.
        assert!(!found(&[port_of(1, b"", 2), port_of(2, b"", 1)], 1).switched);
    }

    #[test]
    fn only_ethernet_has_an_address_to_tell_frames_by() {
        let mut link = message(7, b"dummy", &[attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 7])]);
        for (kind, mac) in [(libc::ARPHRD_ETHER, Some([2, 0, 0, 0, 0, 7])), (libc::ARPHRD_LOOPBACK, None)] {
            link[HEADER + 2..HEADER + 4].copy_from_slice(&kind.to_ne_bytes());
            assert_eq!(row(&link).mac, mac);
        }
    }

    /// A VLAN (7) on a bond (5) of two ports, and a stranger.
    #[test]
    fn frames_for_the_ports_of_a_bond_are_the_bonds_own() {
        let rows = [(2, 0, 5), (3, 0, 5), (5, 0, 0), (7, 5, 0), (9, 0, 0)];
        let mac = |index: u32| [2, 0, 0, 0, 0, index as u8];
        let rows = rows.map(|(index, lower, master)| Row {
            index,
            lower,
            master,
            mac: Some(mac(index)),
            kind: Kind::Other,
        });
        let of = |base| found(&rows, base).macs;
        assert_eq!(of(2), [mac(2)]);
        assert_eq!(of(5), [mac(5), mac(2), mac(3)]);
        assert_eq!(of(7), [mac(7), mac(5), mac(2), mac(3)]);
    }

    #[test]
    fn loopback_carries_nothing() {
        let mut stack = Stack::on(1).unwrap();
        assert_eq!(stack.members(), [1]);
        assert!(stack.macs().is_empty());
        stack.refresh();
        assert_eq!(stack.members(), [1]);
    }
}
