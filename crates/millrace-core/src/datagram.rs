//! The datagram that a backend hands to the rules. It borrows kernel memory that the backend is about to give back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address: 16 bytes in network order. An IPv4 address is mapped, `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Addr(pub [u8; 16]);

impl Addr {
    /// The unspecified IPv6 address, which in a listen list means any address.
    pub const UNSPECIFIED: Addr = Addr([0; 16]);

    /// Maps an IPv4 address, given as four bytes in network order.
    #[inline]
    pub const fn from_v4(b: [u8; 4]) -> Self {
        Addr([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, b[0], b[1], b[2], b[3]])
    }

    /// Returns true for an IPv4-mapped address.
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.0[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
    }

    /// Returns the address in the standard library's type. A mapped address becomes IPv4.
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

/// A time of arrival on CLOCK_REALTIME (clock_gettime(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Timestamp {
    /// Seconds since the epoch. 32 bits last until 2106.
    pub secs: u32,
    /// Nanoseconds within the second, 0..=999_999_999.
    pub nanos: u32,
}

impl Timestamp {
    /// Reads the clock, which takes about 20 ns (vdso(7)). A receive pass reads it once for all its datagrams.
    pub fn now() -> Self {
        let d = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp { secs: d.as_secs() as u32, nanos: d.subsec_nanos() }
    }
}

/// Bits of [`Datagram::flags`]: how the datagram came and where its time is from.
pub mod flags {
    /// The time is the kernel's. Without this bit it is that of the receive pass.
    pub const KERNEL_TIME: u16 = 1 << 0;
    /// The datagram came by the guard socket, because the fast path could not have it: it came in fragments or by another
    /// interface, or with xdp it has IP options or extension headers or its rx queue has no AF_XDP socket.
    pub const SLOW_PATH: u16 = 1 << 1;
    /// The datagram is one part of a GRO or GSO super-packet that the receiver split.
    pub const SPLIT: u16 = 1 << 2;
}

/// One UDP datagram. It borrows its payload from the receiver and is gone when the call that hands it over returns.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// UDP payload, 0..=65_527 bytes (65,535 less the UDP header).
    pub payload: &'a [u8],
    /// Source address.
    pub src: Addr,
    /// Destination address, or [`Addr::UNSPECIFIED`] where the kernel did not report it.
    pub dst: Addr,
    /// Source port, host order.
    pub src_port: u16,
    /// Destination port, host order.
    pub dst_port: u16,
    /// Time of arrival; [`flags::KERNEL_TIME`] says whose clock reading it is.
    pub time: Timestamp,
    /// The rx queue of the interface (xdp), or the index of the fanout member (packet) or of the socket group (socket) that it
    /// came by.
    pub rx_queue: u16,
    /// Bits of [`flags`].
    pub flags: u16,
}
