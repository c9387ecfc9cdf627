//! Questions to the driver by `SIOCETHTOOL` (netdevice(7), linux/ethtool.h). Nothing is set here.

use std::{ffi::CStr, io, mem, os::fd::AsRawFd};

use super::interface::Interface;
use crate::sys::socket;

const SIOCETHTOOL: u32 = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GRXFH: u32 = 0x29;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const UDP_V4_FLOW: u32 = 2;
/// RXH_L4_B_0_1 and RXH_L4_B_2_3: the hash takes in the source port and the destination port.
const RXH_PORTS: u64 = 1 << 6 | 1 << 7;

/// The input of the hash by which the NIC spreads UDP datagrams over its rx queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpHash {
    /// The addresses and the ports go in.
    Ports,
    /// The addresses alone go in: all flows between two hosts share an rx queue.
    AddressesOnly,
    /// The driver does not report it; virtual interfaces do not.
    Unknown,
}

/// `struct ethtool_channels`: how many queues of each kind are in use, and how many there can be.
#[repr(C)]
#[derive(Default)]
pub(super) struct Channels {
    cmd: u32,
    pub(super) max_rx: u32,
    max_tx: u32,
    max_other: u32,
    pub(super) max_combined: u32,
    pub(super) rx_count: u32,
    tx_count: u32,
    other_count: u32,
    pub(super) combined_count: u32,
}

/// `struct ethtool_drvinfo`: 196 bytes, of which only the second field is used.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ethtool_rxnfc`, of which this command uses the beginning. `rest` makes it at least as long as any kernel's.
#[repr(C)]
struct RxFlowHash {
    cmd: u32,
    flow_type: u32,
    data: u64,
    rest: [u64; 30],
}

impl Interface {
    /// Returns the driver's name (`ETHTOOL_GDRVINFO`), such as `veth` or `ixgbe`.
    pub fn driver(&self) -> Option<String> {
        let mut info = DriverInfo { cmd: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
        query(self, &mut info).ok()?;
        let name = CStr::from_bytes_until_nul(&info.driver).ok()?.to_string_lossy().into_owned();
        (!name.is_empty()).then_some(name)
    }

    /// Returns what the NIC hashes to spread UDP over IPv4 over its rx queues (`ETHTOOL_GRXFH`).
    pub fn udp_hash(&self) -> UdpHash {
        let mut request = RxFlowHash { cmd: ETHTOOL_GRXFH, flow_type: UDP_V4_FLOW, data: 0, rest: [0; 30] };
        match query(self, &mut request) {
            Err(_) => UdpHash::Unknown,
            Ok(()) if request.data & RXH_PORTS == RXH_PORTS => UdpHash::Ports,
            Ok(()) if request.data != 0 => UdpHash::AddressesOnly,
            Ok(()) => UdpHash::Unknown,
        }
    }
}

/// Reads the numbers of queues (`ETHTOOL_GCHANNELS`).
///
/// # Errors
/// EOPNOTSUPP when the driver does not answer, ENODEV when the interface is gone.
pub(super) fn channels(interface: &Interface) -> io::Result<Channels> {
    let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
    query(interface, &mut channels)?;
    Ok(channels)
}

/// Makes the ioctl. `T` must be a `repr(C)` struct of linux/ethtool.h, whole, that begins with the command which names it;
/// the function is private, and the three structs above are all it is called with.
fn query<T>(interface: &Interface, request: &mut T) -> io::Result<()> {
    let fd = socket::open(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: ifreq is plain old data; all zero is valid.
    let mut ifreq: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in ifreq.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(interface.name.bytes()) {
        *to = from as libc::c_char;
    }
    ifreq.ifr_ifru.ifru_data = (&raw mut *request).cast();
    // SAFETY: `ifreq` and the request it points to are live and writable through the call; the request is the full
    // struct its command names, so the kernel writes inside it.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCETHTOOL as _, &raw mut ifreq) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
