//! How the interfaces of a host are stacked: which of them hand up frames that came in by another one. This file computes it
//! from a list of all links (rtnetlink(7)); [`super::topology_monitor`] reads the list.
//!
//! The upper devices of an interface, in the kernel's words, are VLAN, macvlan and ipvlan devices on it and the bridge, bond,
//! team or VRF that it is a port of, which is its master. A ring on an interface has the frames of all its upper devices
//! already. Tunnels, MACsec and a veth's peer name a lower device too, but what comes out of them is not the frame that went
//! in; they do not count.

use super::netlink::{HEADER, attributes, link_attributes, u16_at, u32_at};

/// Attributes of a link, and those nested in IFLA_LINKINFO (linux/if_link.h).
const IFLA_ADDRESS: u16 = 1;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
/// Kinds of devices that hand up the frames of their lower device.
const SAME_FRAMES: [&[u8]; 5] = [b"vlan", b"macvlan", b"macvtap", b"ipvlan", b"ipvtap"];
/// Kind of the devices of Open vSwitch. Its ports name one of them as their master, whose frames are not theirs: the host's
/// come up by an internal port, which names no lower device.
const OPEN_VSWITCH: &[u8] = b"openvswitch";
/// Kind of a VRF, whose taps are shown nothing that arrives by its ports but as outgoing (drivers/net/vrf.c, `vrf_ip_rcv`).
const VRF: &[u8] = b"vrf";

/// The devices above and below one interface.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Topology {
    /// Indexes of the interface and all its upper devices, ascending.
    pub(super) with_upper_devices: Vec<u32>,
    /// Index of the interface's master, 0 for none.
    pub(super) master: u32,
    /// Kind of the master.
    pub(super) master_kind: DeviceKind,
    /// The interface is a port of Open vSwitch, directly or by way of masters such as a bond.
    pub(super) open_vswitch_port: bool,
    /// Kind of the interface.
    pub(super) kind: DeviceKind,
    /// MAC addresses of the interface and of all its lower devices, and none where its frames have no Ethernet header.
    pub(super) macs: Vec<[u8; 6]>,
}

/// The connections of one link, as rtnetlink describes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LinkEntry {
    index: u32,
    /// Index of the lower device whose frames it hands up, 0 for none.
    lower: u32,
    /// Index of the master, 0 for none.
    master: u32,
    /// The MAC address, where it is an Ethernet device.
    mac: Option<[u8; 6]>,
    kind: DeviceKind,
}

/// Masters whose ports are special to a ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum DeviceKind {
    /// Any device that is none of the others.
    #[default]
    Other,
    /// A device of Open vSwitch.
    OpenVswitch,
    /// A VRF.
    Vrf,
}

impl Topology {
    /// Computes what a list of all links means for the interface with index `base`.
    pub(super) fn of(links: &[LinkEntry], base: u32) -> Self {
        let link = |index| links.iter().find(|l| l.index == index).copied().unwrap_or_default();
        let LinkEntry { master, mac, kind, .. } = link(base);
        let macs = if mac.is_some() {
            with_lower_devices(links, base).iter().filter_map(|i| link(*i).mac).collect()
        } else {
            Vec::new()
        };
        // No link has index 0, so index 0 has no kind and no master. More steps than links would be a circle.
        let mut masters =
            std::iter::successors(Some(link(master)), |above| Some(link(above.master))).take(links.len());
        let open_vswitch_port = masters.any(|above| above.kind == DeviceKind::OpenVswitch);
        Topology {
            with_upper_devices: with_upper_devices(links, base),
            master,
            master_kind: link(master).kind,
            open_vswitch_port,
            kind,
            macs,
        }
    }
}

impl LinkEntry {
    /// Reads an RTM_NEWLINK message.
    pub(super) fn parse(message: &[u8]) -> Self {
        let ethernet = u16_at(message, HEADER + 2) == libc::ARPHRD_ETHER;
        let mut entry = LinkEntry { index: u32_at(message, HEADER + 4), ..LinkEntry::default() };
        let (mut same_frames, mut other_namespace) = (false, false);
        for (kind, value) in link_attributes(message) {
            match kind {
                IFLA_ADDRESS if ethernet => entry.mac = value.try_into().ok(),
                IFLA_LINK => entry.lower = u32_at(value, 0),
                IFLA_MASTER => entry.master = u32_at(value, 0),
                // The lower device is in another namespace, and its index counts there.
                IFLA_LINK_NETNSID => other_namespace = true,
                IFLA_LINKINFO => {
                    let name = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                    let name = name.map_or(&[][..], |(_, name)| name.strip_suffix(&[0]).unwrap_or(name));
                    same_frames = SAME_FRAMES.contains(&name);
                    entry.kind = match name {
                        OPEN_VSWITCH => DeviceKind::OpenVswitch,
                        VRF => DeviceKind::Vrf,
                        _ => DeviceKind::Other,
                    };
                }
                _ => {}
            }
        }
        if !same_frames || other_namespace {
            entry.lower = 0;
        }
        entry
    }
}

/// Returns `base` and its lower devices: what it is on, and what it has as ports, directly or by way of another.
fn with_lower_devices(links: &[LinkEntry], base: u32) -> Vec<u32> {
    reachable(base, |index| {
        let lower = links.iter().filter(move |l| l.index == index).map(|l| l.lower);
        let ports = links.iter().filter(move |l| l.master == index).map(|l| l.index);
        lower.chain(ports)
    })
}

/// Returns `base` and its upper devices, direct or by way of another, ascending.
fn with_upper_devices(links: &[LinkEntry], base: u32) -> Vec<u32> {
    let mut reached = reachable(base, |index| {
        let master = links.iter().filter(move |l| l.index == index).map(|l| l.master);
        let above = links.iter().filter(move |l| l.lower == index).map(|l| l.index);
        master.chain(above)
    });
    reached.sort_unstable();
    reached
}

/// Returns `base` and the neighbours of all that is reached from it. Index 0 stands for "none" and is left out.
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

#[cfg(test)]
mod tests {
    use super::{super::netlink::IFINFO, *};

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
            LinkEntry::parse(&message(7, kind, &[&[lies_on], more].concat()))
        };
        let other_ns = attribute(IFLA_LINK_NETNSID, &0u32.to_ne_bytes());
        let port = attribute(IFLA_MASTER, &9u32.to_ne_bytes());
        assert_eq!(on(b"vlan\0", &[]), LinkEntry { index: 7, lower: 3, ..LinkEntry::default() });
        assert_eq!(on(b"vlan", &[other_ns]).lower, 0);
        assert_eq!((on(b"veth\0", &[]).lower, on(b"vxlan\0", &[]).lower), (0, 0));
        assert_eq!(on(b"veth\0", &[port]), LinkEntry { index: 7, master: 9, ..LinkEntry::default() });
    }

    #[test]
    fn what_stands_on_a_port_of_something_stands_on_it() {
        let rows = [(2, 0, 5), (3, 0, 5), (4, 2, 0), (5, 0, 0), (6, 5, 0), (8, 3, 0)];
        let rows =
            rows.map(|(index, lower, master)| LinkEntry { index, lower, master, ..LinkEntry::default() });
        assert_eq!(with_upper_devices(&rows, 2), [2, 4, 5, 6]);
        assert_eq!(with_upper_devices(&rows, 5), [5, 6]);
        assert_eq!(with_upper_devices(&rows, 1), [1]);
        // A list that contradicts itself ends all the same.
        let circle = [(1, 2, 0), (2, 1, 1)].map(|(index, lower, master)| LinkEntry {
            index,
            lower,
            master,
            ..LinkEntry::default()
        });
        assert_eq!(with_upper_devices(&circle, 1), [1, 2]);
    }

    #[test]
    fn ports_of_open_vswitch_and_vrfs_are_known_by_their_master() {
        let port = attribute(IFLA_MASTER, &9u32.to_ne_bytes());
        for (name, kind) in [
            (&b"openvswitch\0"[..], DeviceKind::OpenVswitch),
            (b"vrf\0", DeviceKind::Vrf),
            (b"bridge", DeviceKind::Other),
        ] {
            let rows = [
                message(7, b"veth", std::slice::from_ref(&port)),
                message(9, name, &[]),
                message(8, name, &[]),
            ];
            let rows = rows.map(|m| LinkEntry::parse(&m));
            let of = |base| Topology::of(&rows, base);
            assert_eq!((of(7).master, of(7).master_kind, of(7).kind), (9, kind, DeviceKind::Other));
            assert_eq!(of(7).open_vswitch_port, kind == DeviceKind::OpenVswitch);
            // The internal port itself is as good as any; a VRF's own is not.
            assert_eq!((of(8).master, of(8).master_kind, of(8).kind), (0, DeviceKind::Other, kind));
            assert_eq!(of(8).with_upper_devices, [8]);
        }
    }

    #[test]
    fn ports_of_a_bond_that_is_a_port_of_open_vswitch_are_its_ports_too() {
        let port_of = |index, kind: &[u8], master: u32| {
            LinkEntry::parse(&message(index, kind, &[attribute(IFLA_MASTER, &master.to_ne_bytes())]))
        };
        let rows = [
            port_of(2, b"", 5),
            port_of(5, b"bond", 9),
            LinkEntry::parse(&message(9, b"openvswitch", &[])),
            port_of(3, b"", 4),
        ];
        assert_eq!(
            [2, 5, 9, 3].map(|base| Topology::of(&rows, base).open_vswitch_port),
            [true, true, false, false]
        );
        // A list that contradicts itself ends all the same.
        assert!(!Topology::of(&[port_of(1, b"", 2), port_of(2, b"", 1)], 1).open_vswitch_port);
    }

    #[test]
    fn only_ethernet_has_an_address_to_tell_frames_by() {
        let mut link = message(7, b"dummy", &[attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 7])]);
        for (kind, mac) in [(libc::ARPHRD_ETHER, Some([2, 0, 0, 0, 0, 7])), (libc::ARPHRD_LOOPBACK, None)] {
            link[HEADER + 2..HEADER + 4].copy_from_slice(&kind.to_ne_bytes());
            assert_eq!(LinkEntry::parse(&link).mac, mac);
        }
    }

    /// A VLAN (7) on a bond (5) of two ports, and a stranger.
    #[test]
    fn frames_for_the_ports_of_a_bond_are_the_bonds_own() {
        let rows = [(2, 0, 5), (3, 0, 5), (5, 0, 0), (7, 5, 0), (9, 0, 0)];
        let mac = |index: u32| [2, 0, 0, 0, 0, index as u8];
        let rows = rows.map(|(index, lower, master)| LinkEntry {
            index,
            lower,
            master,
            mac: Some(mac(index)),
            kind: DeviceKind::Other,
        });
        let of = |base| Topology::of(&rows, base).macs;
        assert_eq!(of(2), [mac(2)]);
        assert_eq!(of(5), [mac(5), mac(2), mac(3)]);
        assert_eq!(of(7), [mac(7), mac(5), mac(2), mac(3)]);
    }
}
