//! What a backend hands to the rules: one UDP datagram, borrowed from a frame that is about to be given back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A 16-byte address in network order; IPv4 is held as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Addr(pub [u8; 16]);

impl Addr {
    /// The unspecified IPv6 address; also "any address" in a listen list.
    pub const UNSPECIFIED: Addr = Addr([0; 16]);

    /// Maps four IPv4 bytes (network order).
    #[inline]
    pub const fn from_v4(b: [u8; 4]) -> Self {
        Addr([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, b[0], b[1], b[2], b[3]])
    }

    /// True for an IPv4-mapped address.
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.0[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
    }

    /// The address as the standard library's type, with mapped addresses as IPv4.
    pub fn to_ip(self) -> IpAddr {
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::new(self.0[12], self.0[13], self.0[14], self.0[15]))
        } else {
            IpAddr::V6(Ipv6Addr::from(self.0))
        }
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Addr::from_v4(v4.octets()),
            IpAddr::V6(v6) => Addr(v6.octets()),
        }
    }
}

impl std::fmt::Debug for Addr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.to_ip())
    }
}

/// Wall-clock time of arrival (CLOCK_REALTIME).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Timestamp {
    /// Seconds since the epoch; good until 2106.
    pub secs: u32,
    /// Nanoseconds, 0..=999_999_999.
    pub nanos: u32,
}

impl Timestamp {
    /// Reads CLOCK_REALTIME (vDSO, about 20 ns): once per receive pass is enough.
    pub fn now() -> Self {
        let d = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp { secs: d.as_secs() as u32, nanos: d.subsec_nanos() }
    }
}

/// Where a time stamp came from.
pub mod flags {
    /// The kernel stamped the datagram; without it the time is that of the receive pass.
    pub const KERNEL_TIME: u16 = 1 << 0;
    /// The datagram came by the guard socket (fragments, IP options, extension headers, unbound rx queue, another
    /// interface).
    pub const SLOW_PATH: u16 = 1 << 1;
    /// The datagram was part of a GRO/GSO super-packet that we split.
    pub const SPLIT: u16 = 1 << 2;
}

/// One UDP datagram. Borrows the frame; whoever wants to keep it copies it.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// UDP payload, 0..=65_527 bytes.
    pub payload: &'a [u8],
    /// Source address.
    pub src: Addr,
    /// Destination address; [`Addr::UNSPECIFIED`] where the backend cannot know it.
    pub dst: Addr,
    /// Source port, host order.
    pub src_port: u16,
    /// Destination port, host order.
    pub dst_port: u16,
    /// Arrival.
    pub time: Timestamp,
    /// rx queue of the interface, or the index of the ring member or socket it came by.
    pub rx_queue: u16,
    /// See [`flags`].
    pub flags: u16,
}
