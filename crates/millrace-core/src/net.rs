//! Facts about network interfaces, for choosing one, for messages and for loss counters.
//!
//! Everything answers for the network namespace of the *calling thread*: rtnetlink and ioctls do so by nature, and
//! instead of `/proc/net` (a link to the main thread's view) `/proc/thread-self/net` is read. `/sys/class/net` belongs
//! to whatever namespace sysfs was mounted in, so it is only a fall-back, and only when it shows the same interface.

use std::{
    ffi::{CStr, CString},
    fs, io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::error::{Code, Error, Result};

mod rtnetlink;
mod stack;

pub use rtnetlink::{Link, Statistics};
pub(crate) use stack::Stack;

/// A network interface that existed when we looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index in this network namespace, from 1.
    pub index: u32,
}

impl Interface {
    /// Looks an interface up by name (`if_nametoindex(3)`).
    ///
    /// # Errors
    /// [`Code::Interface`] listing the interfaces that exist.
    pub fn by_name(name: &str) -> Result<Self> {
        let missing = |e: Option<io::Error>| {
            let message =
                format!("interface {name:?} does not exist here; there are: {}", names().join(", "));
            match e {
                Some(e) => Error::os(Code::Interface, message, e),
                None => Error::new(Code::Interface, message),
            }
        };
        let Ok(c_name) = CString::new(name) else { return Err(missing(None)) };
        // SAFETY: `c_name` is NUL-terminated and lives through the call, which only reads it.
        let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
        if index == 0 {
            return Err(missing(Some(io::Error::last_os_error())));
        }
        Ok(Interface { name: name.into(), index })
    }

    /// Looks up the interface of a scoped address (RFC 4007 §11): by name, or by number.
    ///
    /// # Errors
    /// As [`Interface::by_name`].
    pub fn of_scope(scope: &str) -> Result<Self> {
        match scope.parse::<u32>() {
            Ok(index) => match name_of(index) {
                Ok(name) => Ok(Interface { name, index }),
                Err(_) => Self::by_name(scope),
            },
            Err(_) => Self::by_name(scope),
        }
    }

    /// The interface of the default route with the lowest metric; IPv4 before IPv6.
    ///
    /// # Errors
    /// [`Code::Interface`] when there is no default route.
    pub fn of_default_route() -> Result<Self> {
        let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        let name = default_route_v4(&read("route")).or_else(|| default_route_v6(&read("ipv6_route")));
        match name {
            Some(name) => Self::by_name(&name),
            None => Err(Error::new(
                Code::Interface,
                format!("no default route names an interface: set one; there are: {}", names().join(", ")),
            )),
        }
    }

    /// State, MTU, counters and XDP owner, by rtnetlink.
    ///
    /// # Errors
    /// [`Code::Interface`] when it is gone, [`Code::Kernel`].
    pub fn link(&self) -> Result<Link> {
        rtnetlink::get_link(self)
    }

    /// Number of rx queues in use: `ETHTOOL_GCHANNELS` (rx + combined); where the driver does not answer, what sysfs
    /// or, failing that, rtnetlink says (the latter counts queues allocated, not in use). At least 1.
    pub fn rx_queues(&self) -> u32 {
        if let Ok(c) = self.channels()
            && c.rx_count + c.combined_count > 0
        {
            return c.rx_count + c.combined_count;
        }
        self.sysfs_rx_queues().or_else(|| self.link().ok().map(|l| l.rx_queues)).unwrap_or(1).max(1)
    }

    /// [`Interface::rx_queues`] while this very interface is to be seen under its name; None when it is gone, renamed,
    /// or in another network namespace than the calling thread.
    pub fn rx_queues_if_there(&self) -> Option<u32> {
        (Self::by_name(&self.name).ok()?.index == self.index).then(|| self.rx_queues())
    }

    /// Most rx queues the interface can ever have (`ethtool -L`), at least [`Interface::rx_queues`].
    pub fn max_rx_queues(&self) -> u32 {
        let most = self.channels().map_or(0, |c| c.max_rx.max(c.max_combined));
        most.max(self.rx_queues())
    }

    /// The driver's name (`ETHTOOL_GDRVINFO`), e.g. `veth`, `ixgbe`.
    pub fn driver(&self) -> Option<String> {
        let mut info = DriverInfo { cmd: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
        self.ethtool(&mut info).ok()?;
        let name = CStr::from_bytes_until_nul(&info.driver).ok()?.to_string_lossy().into_owned();
        (!name.is_empty()).then_some(name)
    }

    /// By what the NIC spreads UDP over IPv4 over its rx queues (`ETHTOOL_GRXFH`).
    pub fn udp_hash(&self) -> UdpHash {
        let mut request = RxFlowHash { cmd: ETHTOOL_GRXFH, flow_type: UDP_V4_FLOW, data: 0, rest: [0; 30] };
        match self.ethtool(&mut request) {
            Err(_) => UdpHash::Unknown,
            Ok(()) if request.data & RXH_PORTS == RXH_PORTS => UdpHash::Ports,
            Ok(()) if request.data != 0 => UdpHash::AddressesOnly,
            Ok(()) => UdpHash::Unknown,
        }
    }

    fn sysfs_rx_queues(&self) -> Option<u32> {
        let path = format!("/sys/class/net/{}", self.name);
        let index: u32 = fs::read_to_string(format!("{path}/ifindex")).ok()?.trim().parse().ok()?;
        if index != self.index {
            return None;
        }
        let queues = fs::read_dir(format!("{path}/queues")).ok()?;
        let rx = queues.flatten().filter(|e| e.file_name().as_encoded_bytes().starts_with(b"rx-")).count();
        u32::try_from(rx).ok().filter(|&n| n > 0)
    }

    fn channels(&self) -> io::Result<Channels> {
        let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
        self.ethtool(&mut channels)?;
        Ok(channels)
    }

    /// `SIOCETHTOOL`, netdevice(7). `T` must be a `repr(C)` ethtool struct that begins with its command.
    fn ethtool<T>(&self, request: &mut T) -> io::Result<()> {
        // SAFETY: plain socket(2); the result is checked before it is owned.
        let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` is a fresh descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: ifreq is plain old data; all zero is valid.
        let mut ifreq: libc::ifreq = unsafe { mem::zeroed() };
        for (to, from) in ifreq.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(self.name.bytes()) {
            *to = from as libc::c_char;
        }
        ifreq.ifr_ifru.ifru_data = (&raw mut *request).cast();
        // SAFETY: `ifreq` and the request it points to are live and writable through the call; the request is the full
        // struct its command names, so the kernel writes inside it.
        let rc = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCETHTOOL as _, &raw mut ifreq) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

const SIOCETHTOOL: u32 = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

const ETHTOOL_GRXFH: u32 = 0x29;
const UDP_V4_FLOW: u32 = 2;
/// RXH_L4_B_0_1 and RXH_L4_B_2_3: source and destination port.
const RXH_PORTS: u64 = 1 << 6 | 1 << 7;

/// What goes into the NIC's hash of a UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpHash {
    /// Addresses and ports.
    Ports,
    /// Addresses alone: all flows between two hosts share an rx queue.
    AddressesOnly,
    /// The driver does not say (virtual interfaces).
    Unknown,
}

/// `struct ethtool_rxnfc`, of which this command uses the beginning; at least as long as any kernel's.
#[repr(C)]
struct RxFlowHash {
    cmd: u32,
    flow_type: u32,
    data: u64,
    rest: [u64; 30],
}

/// `struct ethtool_channels`
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

/// `struct ethtool_drvinfo`: 196 bytes, of which we want the second field.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// True while an interface with this index exists. False only when the kernel says so: without a free descriptor asking
/// fails too.
pub fn exists(index: u32) -> bool {
    name_of(index).map_or_else(|e| e.raw_os_error() != Some(libc::ENXIO), |_| true)
}

/// Name of the interface with this index (if_indextoname(3)).
///
/// # Errors
/// ENXIO when there is none.
pub fn name_of(index: u32) -> io::Result<String> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the call writes at most IF_NAMESIZE bytes, the size of `name`.
    if unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    let text = CStr::from_bytes_until_nul(&name).map_err(io::Error::other)?;
    Ok(text.to_string_lossy().into_owned())
}

/// Names of all interfaces of this network namespace.
pub fn names() -> Vec<String> {
    let mut out = Vec::new();
    // SAFETY: if_nameindex(3) returns null or an array ended by an entry of index 0, which if_freenameindex frees; the
    // names are NUL-terminated and copied before that.
    unsafe {
        let all = libc::if_nameindex();
        if all.is_null() {
            return out;
        }
        let mut at = all;
        while (*at).if_index != 0 && !(*at).if_name.is_null() {
            out.push(CStr::from_ptr((*at).if_name).to_string_lossy().into_owned());
            at = at.add(1);
        }
        libc::if_freenameindex(all);
    }
    out
}

const RTF_UP: u32 = 1;
const RTF_REJECT: u32 = 0x200;

/// `/proc/net/route`: Iface Destination Gateway Flags RefCnt Use Metric Mask …; numbers in hex, the metric in decimal.
fn default_route_v4(table: &str) -> Option<String> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let f: Vec<&str> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(f.get(3)?, 16).ok()?;
        let default = *f.get(1)? == "00000000" && *f.get(7)? == "00000000";
        let usable = flags & RTF_UP != 0 && flags & RTF_REJECT == 0;
        (default && usable).then_some((f.get(6)?.parse::<u32>().ok()?, f[0].to_string()))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, name)| name)
}

/// `/proc/net/ipv6_route`: destination, its prefix length, source, its length, next hop, metric, refcnt, use, flags,
/// device; all in hex. The kernel's own "unreachable" default stands on `lo`.
fn default_route_v6(table: &str) -> Option<String> {
    let routes = table.lines().filter_map(|line| {
        let f: Vec<&str> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(f.get(8)?, 16).ok()?;
        let default = f[0].bytes().all(|b| b == b'0') && f[1] == "00";
        let usable = flags & RTF_UP != 0 && flags & RTF_REJECT == 0 && *f.get(9)? != "lo";
        (default && usable).then_some((u32::from_str_radix(f[5], 16).ok()?, f[9].to_string()))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, name)| name)
}

/// Addresses of all interfaces of the calling thread's namespace, with the broadcast addresses that belong to them and
/// 255.255.255.255 (getifaddrs(3)); no duplicates.
///
/// # Errors
/// What getifaddrs(3) reports.
pub fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let mut found = broadcast_addresses()?;
    each_interface_address(|own, _| {
        found.extend(own.map(|(own, _)| own).filter(|a| !found.contains(a)));
    })?;
    Ok(found)
}

/// 255.255.255.255 and the broadcast addresses of all interfaces of the calling thread's namespace; no duplicates.
///
/// # Errors
/// What getifaddrs(3) reports.
pub fn broadcast_addresses() -> io::Result<Vec<IpAddr>> {
    let mut found = vec![IpAddr::V4(Ipv4Addr::BROADCAST)];
    each_interface_address(|_, broadcast| {
        found.extend(broadcast.filter(|a| !found.contains(a)));
    })?;
    Ok(found)
}

/// The IPv6 link-local addresses (fe80::/10) of the calling thread's namespace, each with the index of its interface.
///
/// # Errors
/// What getifaddrs(3) reports.
pub(crate) fn link_local_addresses() -> io::Result<Vec<(IpAddr, u32)>> {
    let mut found = Vec::new();
    each_interface_address(|own, _| {
        found.extend(own.filter(|(a, _)| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local())));
    })?;
    Ok(found)
}

/// Calls `f` with the address, whose scope is 0 where it needs none, and the broadcast address of each entry of
/// getifaddrs(3).
fn each_interface_address(mut f: impl FnMut(Option<(IpAddr, u32)>, Option<IpAddr>)) -> io::Result<()> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call writes a list head that is freed below and not used after.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut entry = list;
    while !entry.is_null() {
        // SAFETY: `entry` is an element of the list getifaddrs made, which is freed only after the loop.
        let e = unsafe { &*entry };
        // SAFETY: null, or socket addresses of that same list.
        let (own, mask) = unsafe { (ip_of(e.ifa_addr), ip_of(e.ifa_netmask)) };
        let broadcasts = e.ifa_flags & libc::IFF_BROADCAST as u32 != 0;
        let subnet = || subnet_broadcast(own.map(|(a, _)| a), mask.map(|(a, _)| a));
        f(own, if broadcasts { subnet() } else { None });
        entry = e.ifa_next;
    }
    // SAFETY: the head getifaddrs returned, freed once.
    unsafe { libc::freeifaddrs(list) };
    Ok(())
}

/// The directed broadcast address of an IPv4 subnet. Computed, because an address configured without `brd` shows none,
/// and the kernel takes datagrams for it all the same. Subnets of two addresses and of one have none (RFC 3021).
fn subnet_broadcast(own: Option<IpAddr>, mask: Option<IpAddr>) -> Option<IpAddr> {
    let (Some(IpAddr::V4(own)), Some(IpAddr::V4(mask))) = (own, mask) else { return None };
    let host = !mask.to_bits();
    (host > 1).then(|| IpAddr::V4(Ipv4Addr::from_bits(own.to_bits() | host)))
}

/// The IP address in a socket address, if it is one, and its scope: for a link-local one the interface (ipv6(7)).
///
/// # Safety
/// `address` is null or points to a socket address as long as its family demands.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<(IpAddr, u32)> {
    if address.is_null() {
        return None;
    }
    // SAFETY: not null, hence a socket address, and its family says which structure it is.
    unsafe {
        match i32::from((*address).sa_family) {
            libc::AF_INET => {
                let v4 = address.cast::<libc::sockaddr_in>().read_unaligned();
                Some((IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))), 0))
            }
            libc::AF_INET6 => {
                let v6 = address.cast::<libc::sockaddr_in6>().read_unaligned();
                Some((IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)), v6.sin6_scope_id))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_route_with_the_lowest_metric() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth1\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            eth2\t00000000\t0100000A\t0203\t0\t0\t1\t00000000\t0\t0\t0\n\
            eth3\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(default_route_v4(table).as_deref(), Some("eth0"));
        assert_eq!(default_route_v4("header only\n"), None);
        assert_eq!(default_route_v4("h\nshort line\n\n"), None);
    }

    #[test]
    fn default_route_v6_skips_the_unreachable_one() {
        let (zero, hop) = ("0".repeat(32), format!("fe80{}1", "0".repeat(27)));
        let table = format!(
            "{zero} 00 {zero} 00 {hop} 00000400 00000001 00000000 00000003     eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        );
        assert_eq!(default_route_v6(&table).as_deref(), Some("eth0"));
        assert_eq!(default_route_v6(""), None);
    }

    #[test]
    fn loopback_has_facts_and_a_missing_interface_names_it() {
        let lo = Interface::by_name("lo").unwrap();
        let link = lo.link().unwrap();
        assert!(lo.index > 0 && link.mtu > 0 && link.xdp.is_none(), "{link:?}");
        assert!(lo.rx_queues() >= 1 && lo.max_rx_queues() >= lo.rx_queues());
        for name in ["nosuch0", "a-name-that-is-too-long", "nul\0byte", ""] {
            let e = Interface::by_name(name).unwrap_err();
            assert_eq!(e.code, Code::Interface, "{e}");
            assert!(e.message.contains("lo"), "{e}");
        }
        let gone = Interface { name: "gone".into(), index: u32::MAX >> 2 };
        assert_eq!(gone.link().unwrap_err().code, Code::Interface);
    }
}
