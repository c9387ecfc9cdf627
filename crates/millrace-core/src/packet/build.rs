//! Writes frames, for the load generator's raw path and for tests that need malformed ones.

use std::net::IpAddr;

use crate::{
    datagram::Addr,
    protocol::{ETH_P_IP, ETH_P_IPV6, IPPROTO_UDP},
};

/// The headers of a UDP frame. Each thing that a test may want to be unusual is a field.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Destination MAC.
    pub dst_mac: [u8; 6],
    /// Source MAC.
    pub src_mac: [u8; 6],
    /// `(TPID, TCI)` of each VLAN tag, outermost first.
    pub vlan: Vec<(u16, u16)>,
    /// Source address. The frame is IPv4 when both addresses are, and IPv6 otherwise.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// IPv4 options, a multiple of 4 bytes, at most 40.
    pub ipv4_options: Vec<u8>,
    /// IPv6 extension headers as `(header number, bytes)`. The first byte of each is replaced by the next header's number.
    pub ipv6_extensions: Vec<(u8, Vec<u8>)>,
    /// Time to live / hop limit.
    pub ttl: u8,
    /// True for a valid UDP checksum, false for 0, which IPv4 allows (RFC 768).
    pub checksum: bool,
}

impl Frame {
    /// Makes a frame without tags, options and extension headers. `src` and `dst` are address and port.
    pub fn new(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Self {
        Frame {
            dst_mac: [2, 0, 0, 0, 0, 2],
            src_mac: [2, 0, 0, 0, 0, 1],
            vlan: Vec::new(),
            src: src.0,
            dst: dst.0,
            src_port: src.1,
            dst_port: dst.1,
            ipv4_options: Vec::new(),
            ipv6_extensions: Vec::new(),
            ttl: 64,
            checksum: true,
        }
    }

    /// Returns the whole frame around `payload`. Length fields saturate at 65,535. Addresses of mixed families give an IPv6
    /// frame with the IPv4 address mapped.
    pub fn bytes(&self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(14 + 8 + 60 + 8 + payload.len());
        out.extend_from_slice(&self.dst_mac);
        out.extend_from_slice(&self.src_mac);
        for (tpid, tci) in &self.vlan {
            out.extend_from_slice(&tpid.to_be_bytes());
            out.extend_from_slice(&tci.to_be_bytes());
        }
        match (self.src, self.dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                out.extend_from_slice(&ETH_P_IP.to_be_bytes());
                let udp = self.udp(&s.octets(), &d.octets(), payload);
                let ihl = 20 + self.ipv4_options.len();
                let start = out.len();
                out.push(0x40 | (ihl / 4) as u8);
                out.push(0);
                out.extend_from_slice(&clamp16(ihl + udp.len()).to_be_bytes());
                out.extend_from_slice(&[0, 0, 0x40, 0, self.ttl, IPPROTO_UDP, 0, 0]);
                out.extend_from_slice(&s.octets());
                out.extend_from_slice(&d.octets());
                out.extend_from_slice(&self.ipv4_options);
                let sum = fold(ones_sum(0, &out[start..]));
                out[start + 10..start + 12].copy_from_slice(&(!sum).to_be_bytes());
                out.extend_from_slice(&udp);
            }
            (s, d) => {
                let (s, d) = (Addr::from(s).0, Addr::from(d).0);
                out.extend_from_slice(&ETH_P_IPV6.to_be_bytes());
                let udp = self.udp(&s, &d, payload);
                let extensions: usize = self.ipv6_extensions.iter().map(|(_, b)| b.len()).sum();
                let first = self.ipv6_extensions.first().map_or(IPPROTO_UDP, |(n, _)| *n);
                out.extend_from_slice(&[0x60, 0, 0, 0]);
                out.extend_from_slice(&clamp16(extensions + udp.len()).to_be_bytes());
                out.extend_from_slice(&[first, self.ttl]);
                out.extend_from_slice(&s);
                out.extend_from_slice(&d);
                for (i, (_, bytes)) in self.ipv6_extensions.iter().enumerate() {
                    let at = out.len();
                    out.extend_from_slice(bytes);
                    if let Some(b) = out.get_mut(at) {
                        *b = self.ipv6_extensions.get(i + 1).map_or(IPPROTO_UDP, |(n, _)| *n);
                    }
                }
                out.extend_from_slice(&udp);
            }
        }
        out
    }

    /// Returns the UDP header and the payload. The addresses go into the checksum only.
    fn udp(&self, src: &[u8], dst: &[u8], payload: &[u8]) -> Vec<u8> {
        let length = clamp16(8 + payload.len());
        let mut udp = Vec::with_capacity(8 + payload.len());
        udp.extend_from_slice(&self.src_port.to_be_bytes());
        udp.extend_from_slice(&self.dst_port.to_be_bytes());
        udp.extend_from_slice(&length.to_be_bytes());
        udp.extend_from_slice(&[0, 0]);
        udp.extend_from_slice(payload);
        if self.checksum {
            let pseudo = ones_sum(ones_sum(u32::from(IPPROTO_UDP) + u32::from(length), src), dst);
            // A checksum that is computed as zero is sent as all ones (RFC 768).
            let sum = match !fold(ones_sum(pseudo, &udp)) {
                0 => 0xffff,
                s => s,
            };
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        udp
    }
}

fn clamp16(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

/// Adds the big-endian 16-bit words of `bytes` to `start` (RFC 1071). An odd last byte is padded with zero.
pub fn ones_sum(start: u32, bytes: &[u8]) -> u32 {
    let mut sum = u64::from(start);
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff_ffff {
        sum = (sum & 0xffff_ffff) + (sum >> 32);
    }
    sum as u32
}

/// Folds a sum to 16 bits, in ones' complement (RFC 1071).
pub fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
