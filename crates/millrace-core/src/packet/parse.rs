//! Frame → UDP datagram. The parser is total: any bytes give an answer, none a panic, and never a byte from outside the frame.

use super::frame_drop::FrameDrop;
use crate::{
    datagram::Addr,
    protocol::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, IPPROTO_UDP},
};

/// The most extension headers of a packet that is not malformed; RFC 8200 §4.1 names at most seven, each once. Fewer would
/// refuse packets that the kernel accepts; more would let a sender make each packet cost more.
pub(crate) const MAX_EXTENSION_HEADERS: usize = 8;
/// The extension headers that are skipped: hop-by-hop options, routing, destination options (IANA protocol numbers).
pub(crate) const EXTENSION_HEADERS: [u8; 3] = [0, 43, 60];
/// The fragment header, which is skipped in atomic fragments only.
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
    /// True when IPv4 options or IPv6 extension headers were skipped.
    pub options: bool,
}

/// Parses a frame that starts with an Ethernet header, with up to two VLAN tags behind it.
///
/// # Errors
/// The reason why the frame is not a datagram.
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

/// Parses a packet that starts with the network header. `ether_type` is in host order.
///
/// # Errors
/// The reason why the packet is not a datagram.
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
    // A fragment has the more-fragments flag or an offset (RFC 791 §3.1); DF and the reserved bit do not matter.
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
    // An IPv4-mapped address in an IPv6 header would read as a forged IPv4 address. The stack drops such sources too
    // (net/ipv6/ip6_input.c, `ip6_rcv_core`).
    if src.is_v4() || dst.is_v4() {
        return Err(FrameDrop::Malformed);
    }
    let p = &p[..total];
    let (mut next, mut offset) = (header[6], 40);
    for _ in 0..=MAX_EXTENSION_HEADERS {
        match next {
            IPPROTO_UDP => return parse_udp(&p[offset..], src, dst, offset > 40, true),
            // A header begins with the next header's number and its own length in 8-byte units, less one.
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
                // An atomic fragment, with offset 0 and no more to come, is a whole datagram (RFC 6946).
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
    // Over IPv6 a length of zero means "to the end of the packet" (RFC 2675 §4).
    if v6 && length == 0 {
        length = segment.len();
    }
    // Bytes behind the UDP length are padding, as for the kernel. A length past the packet is an error.
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

/// Returns the big-endian u16 at `offset`.
#[inline]
fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}
