//! Frame → datagram. Total: any bytes give an answer, none a panic, and never a byte from outside the frame.
//!
//! Accepted: Ethernet with up to two VLAN tags (802.1Q, 802.1ad), IPv4 with options, IPv6 with extension headers.
//! Length rules follow what the Linux UDP stack does (net/ipv4/udp.c, net/ipv6/udp.c), so that a datagram is the same
//! bytes whichever backend delivered it.

use crate::{
    datagram::Addr,
    protocol::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, IPPROTO_UDP},
};

pub mod build;
pub mod checksum;
mod frame_drop;

pub use frame_drop::FrameDrop;

/// Extension headers walked before we call a chain malformed; RFC 8200 §4.1 names at most seven, each once.
pub(crate) const MAX_EXTENSION_HEADERS: usize = 8;
/// Those that are walked: hop-by-hop options, routing, destination options.
pub(crate) const EXTENSION_HEADERS: [u8; 3] = [0, 43, 60];
/// The fragment header, which is walked in atomic fragments only.
pub(crate) const FRAGMENT_HEADER: u8 = 44;

/// A UDP datagram found in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp<'a> {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, host order.
    pub src_port: u16,
    /// Destination port, host order.
    pub dst_port: u16,
    /// The UDP header.
    pub header: &'a [u8; 8],
    /// Payload.
    pub payload: &'a [u8],
    /// IPv4 options or IPv6 extension headers were skipped.
    pub options: bool,
}

/// Parses a frame that starts with an Ethernet header.
///
/// # Errors
/// The reason why the frame is no datagram.
#[inline]
pub fn parse_ethernet(frame: &[u8]) -> Result<Udp<'_>, FrameDrop> {
    let mut ether_type = be16(frame, 12).ok_or(FrameDrop::Malformed)?;
    let mut offset = 14;
    for _ in 0..2 {
        if ether_type != ETH_P_8021Q && ether_type != ETH_P_8021AD {
            break;
        }
        ether_type = be16(frame, offset + 2).ok_or(FrameDrop::Malformed)?;
        offset += 4;
    }
    parse_network(ether_type, &frame[offset..])
}

/// Parses from the network header on.
///
/// # Errors
/// The reason why the packet is no datagram.
#[inline]
pub fn parse_network(ether_type: u16, packet: &[u8]) -> Result<Udp<'_>, FrameDrop> {
    match ether_type {
        ETH_P_IP => parse_ipv4(packet),
        ETH_P_IPV6 => parse_ipv6(packet),
        _ => Err(FrameDrop::Foreign),
    }
}

fn parse_ipv4(p: &[u8]) -> Result<Udp<'_>, FrameDrop> {
    let header: &[u8; 20] = p.first_chunk().ok_or(FrameDrop::Malformed)?;
    let ihl = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || ihl < 20 || total < ihl || total > p.len() {
        return Err(FrameDrop::Malformed);
    }
    if header[9] != IPPROTO_UDP {
        return Err(FrameDrop::Foreign);
    }
    // More-fragments flag or a non-zero offset (RFC 791 §3.1); DF and the reserved bit do not matter.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(FrameDrop::Fragment);
    }
    let src = Addr::from_v4([header[12], header[13], header[14], header[15]]);
    let dst = Addr::from_v4([header[16], header[17], header[18], header[19]]);
    parse_udp(&p[ihl..total], src, dst, ihl > 20, false)
}

fn parse_ipv6(p: &[u8]) -> Result<Udp<'_>, FrameDrop> {
    let header: &[u8; 40] = p.first_chunk().ok_or(FrameDrop::Malformed)?;
    let total = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || total > p.len() {
        return Err(FrameDrop::Malformed);
    }
    let src = Addr(*header[8..24].first_chunk().ok_or(FrameDrop::Malformed)?);
    let dst = Addr(*header[24..40].first_chunk().ok_or(FrameDrop::Malformed)?);
    // An IPv4-mapped address has no business in an IPv6 header: it would read as a forged IPv4 one. The stack drops
    // such sources too (net/ipv6/ip6_input.c).
    if src.is_v4() || dst.is_v4() {
        return Err(FrameDrop::Malformed);
    }
    let p = &p[..total];
    let (mut next, mut offset) = (header[6], 40);
    for _ in 0..=MAX_EXTENSION_HEADERS {
        match next {
            IPPROTO_UDP => return parse_udp(&p[offset..], src, dst, offset > 40, true),
            // Next header, then length in 8-byte units less one.
            kind if EXTENSION_HEADERS.contains(&kind) => {
                let ext = p.get(offset..offset + 8).ok_or(FrameDrop::Malformed)?;
                let length = (usize::from(ext[1]) + 1) * 8;
                if offset + length > p.len() {
                    return Err(FrameDrop::Malformed);
                }
                next = ext[0];
                offset += length;
            }
            FRAGMENT_HEADER => {
                let ext = p.get(offset..offset + 8).ok_or(FrameDrop::Malformed)?;
                // An atomic fragment (RFC 6946: offset 0, no more) is a whole datagram.
                if u16::from_be_bytes([ext[2], ext[3]]) & 0xfff9 != 0 {
                    return Err(FrameDrop::Fragment);
                }
                next = ext[0];
                offset += 8;
            }
            _ => return Err(FrameDrop::Foreign),
        }
    }
    Err(FrameDrop::Malformed)
}

#[inline]
fn parse_udp(segment: &[u8], src: Addr, dst: Addr, options: bool, v6: bool) -> Result<Udp<'_>, FrameDrop> {
    let header: &[u8; 8] = segment.first_chunk().ok_or(FrameDrop::Malformed)?;
    let mut length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // RFC 2675 §4: over IPv6 a length of zero means "to the end of the packet".
    if v6 && length == 0 {
        length = segment.len();
    }
    // Bytes behind the UDP length are padding, as for the kernel; a length past the packet is not.
    if length < 8 || length > segment.len() {
        return Err(FrameDrop::Malformed);
    }
    Ok(Udp {
        src,
        dst,
        src_port: u16::from_be_bytes([header[0], header[1]]),
        dst_port: u16::from_be_bytes([header[2], header[3]]),
        header,
        payload: &segment[8..length],
        options,
    })
}

#[inline]
fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
