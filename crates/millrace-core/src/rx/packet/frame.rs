//! The header of one frame in a TPACKET_V3 block or a TPACKET_V2 slot. It is read byte by byte with every offset checked, so
//! that nothing in here is unsafe whatever the block holds.
//!
//! The layout is that of Documentation/networking/packet_mmap.rst and linux/if_packet.h, in host order but for the protocol:
//! `tpacket3_hdr` (48 bytes) or `tpacket2_hdr` (32) · `sockaddr_ll` (20) · … · `virtio_net_hdr` (10, just before `tp_mac`) ·
//! frame at `tp_mac`.

use libc::{TP_STATUS_CSUM_VALID, TP_STATUS_CSUMNOTREADY, TP_STATUS_TS_SOFTWARE, TP_STATUS_VLAN_VALID};

use crate::{
    datagram::Timestamp,
    protocol::{ETH_P_8021AD, ETH_P_8021Q},
};

/// Offset of the `sockaddr_ll` in a V3 record: `TPACKET_ALIGN(sizeof(struct tpacket3_hdr))`.
const SLL_V3: usize = 48;
/// Offset of the `sockaddr_ll` in a V2 slot: `TPACKET_ALIGN(sizeof(struct tpacket2_hdr))`.
const SLL_V2: usize = 32;
/// Bytes that are read of the `sockaddr_ll`: up to the packet type.
const SLL_BYTES: usize = 12;
/// Bytes of `struct virtio_net_hdr` (PACKET_VNET_HDR).
const VNET: usize = 10;
/// `VIRTIO_NET_HDR_GSO_UDP_L4` (linux/virtio_net.h).
const GSO_UDP_L4: u8 = 5;
/// `VIRTIO_NET_HDR_GSO_ECN`, a bit that may be set beside the type.
const GSO_ECN: u8 = 0x80;
/// The VLAN's number in a tag; a tag of VLAN 0 carries a priority and no VLAN (IEEE 802.1Q).
const VLAN_ID: u16 = 0x0fff;
/// The last of the packet types that come in, PACKET_MULTICAST: host and broadcast are below it; other host, outgoing and
/// loopback are above (linux/if_packet.h).
pub(super) const LAST_INCOMING_PKTTYPE: u8 = libc::PACKET_MULTICAST;

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<libc::tpacket3_hdr>() == SLL_V3 && SLL_V3.is_multiple_of(libc::TPACKET_ALIGNMENT));
    assert!(size_of::<libc::tpacket2_hdr>() == SLL_V2 && SLL_V2.is_multiple_of(libc::TPACKET_ALIGNMENT));
    assert!(offset_of!(libc::tpacket2_hdr, tp_len) == 4 && offset_of!(libc::tpacket2_hdr, tp_mac) == 12);
    assert!(
        offset_of!(libc::tpacket2_hdr, tp_sec) == 16 && offset_of!(libc::tpacket2_hdr, tp_vlan_tci) == 24
    );
    assert!(
        offset_of!(libc::tpacket3_hdr, hv1) == 28 && offset_of!(libc::tpacket_hdr_variant1, tp_vlan_tci) == 4
    );
    assert!(offset_of!(libc::tpacket3_hdr, tp_snaplen) == 12 && offset_of!(libc::tpacket3_hdr, tp_len) == 16);
    assert!(offset_of!(libc::tpacket3_hdr, tp_mac) == 24 && offset_of!(libc::tpacket3_hdr, tp_net) == 26);
    assert!(
        offset_of!(libc::sockaddr_ll, sll_protocol) == 2 && offset_of!(libc::sockaddr_ll, sll_hatype) == 8
    );
    assert!(offset_of!(libc::sockaddr_ll, sll_pkttype) == 10);
};

/// A frame in the ring, borrowed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// The frame from its link-layer header on. The outermost VLAN tag is not in it.
    pub(super) bytes: &'a [u8],
    /// Bytes of the link-layer header, before the network header.
    pub(super) link_header: usize,
    /// EtherType of the network header, in host order.
    pub(super) ether_type: u16,
    /// ARPHRD_* of the interface.
    pub(super) hatype: u16,
    /// `PACKET_*`, such as PACKET_HOST or PACKET_OUTGOING.
    pub(super) pkttype: u8,
    /// True when the frame belongs to a VLAN, by the tag that the kernel took out or by one that is still in the frame.
    pub(super) vlan_tagged: bool,
    /// True when the ring had no room for all of the frame (`tp_snaplen` < `tp_len`).
    pub(super) truncated: bool,
    /// Size in bytes of the datagrams that make up this UDP super-packet; 0 for an ordinary frame.
    pub(super) gso_size: usize,
    /// True when the UDP checksum is the hardware's affair: a sender on this host left it to be written by hardware
    /// (TP_STATUS_CSUMNOTREADY), or hardware has verified it (TP_STATUS_CSUM_VALID).
    pub(super) checksum_offloaded: bool,
    /// Time of arrival by the kernel's clock.
    pub(super) time: Timestamp,
    /// True when the stack stamped the time, which then is the same for every packet socket (TP_STATUS_TS_SOFTWARE). False when
    /// this ring read the clock for itself.
    pub(super) stack_stamped: bool,
}

impl Frame<'_> {
    /// Returns true for a frame that came in for this host, and false for one that is outgoing or another host's.
    #[inline]
    pub(super) fn is_incoming(&self) -> bool {
        self.pkttype <= LAST_INCOMING_PKTTYPE
    }
}

/// The fields of a frame's header that both versions have.
struct Header {
    status: u32,
    snaplen: u32,
    length: u32,
    mac: u16,
    net: u16,
    /// The VLAN tag that the kernel took out, when the status says that there was one.
    vlan: u16,
    time: Timestamp,
    /// Offset of the `sockaddr_ll` in the record.
    sll: usize,
}

/// Reads the V3 frame header at `offset` of a block. Returns the frame and the distance to the next header, which is 0 for the
/// last one, or `None` when the header points out of the block. PACKET_VNET_HDR must be on.
#[inline]
pub(super) fn read_v3(block: &[u8], offset: usize) -> Option<(Frame<'_>, usize)> {
    let record = block.get(offset..)?;
    let h: &[u8; SLL_V3] = record.first_chunk()?;
    let header = Header {
        status: u32_at(h, 20),
        snaplen: u32_at(h, 12),
        length: u32_at(h, 16),
        mac: u16_at(h, 24),
        net: u16_at(h, 26),
        vlan: u32_at(h, 32) as u16,
        time: Timestamp { secs: u32_at(h, 4), nanos: u32_at(h, 8) },
        sll: SLL_V3,
    };
    Some((read(record, &header)?, u32_at(h, 0) as usize))
}

/// Reads the V2 frame header at the start of a slot. Returns `None` when the header points out of the slot. PACKET_VNET_HDR
/// must be on.
#[inline]
pub(super) fn read_v2(slot: &[u8]) -> Option<Frame<'_>> {
    let h: &[u8; SLL_V2] = slot.first_chunk()?;
    let header = Header {
        status: u32_at(h, 0),
        snaplen: u32_at(h, 8),
        length: u32_at(h, 4),
        mac: u16_at(h, 12),
        net: u16_at(h, 14),
        vlan: u16_at(h, 24),
        time: Timestamp { secs: u32_at(h, 16), nanos: u32_at(h, 20) },
        sll: SLL_V2,
    };
    read(slot, &header)
}

/// Reads what is the same in both versions: address, virtio header and frame.
#[inline]
fn read<'a>(record: &'a [u8], h: &Header) -> Option<Frame<'a>> {
    let (mac, net) = (usize::from(h.mac), usize::from(h.net));
    let bytes = record.get(mac..mac.checked_add(h.snaplen as usize)?)?;
    let sll: &[u8; SLL_BYTES] = record.get(h.sll..)?.first_chunk()?;
    // struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, in the byte order of the host.
    let v: &[u8; VNET] = record.get(mac.checked_sub(VNET)?..)?.first_chunk()?;
    let super_packet = v[1] & !GSO_ECN == GSO_UDP_L4;
    let gso_size = if super_packet { usize::from(u16::from_ne_bytes([v[4], v[5]])) } else { 0 };
    let ether_type = u16::from_be_bytes([sll[2], sll[3]]);
    Some(Frame {
        bytes,
        link_header: net.checked_sub(mac)?,
        ether_type,
        vlan_tagged: (h.status & TP_STATUS_VLAN_VALID != 0 && h.vlan & VLAN_ID != 0)
            || matches!(ether_type, ETH_P_8021Q | ETH_P_8021AD),
        hatype: u16_at(sll, 8),
        pkttype: sll[10],
        truncated: h.length > h.snaplen,
        gso_size,
        checksum_offloaded: h.status & (TP_STATUS_CSUMNOTREADY | TP_STATUS_CSUM_VALID) != 0,
        time: h.time,
        stack_stamped: h.status & TP_STATUS_TS_SOFTWARE != 0,
    })
}

#[inline]
fn u32_at<const N: usize>(h: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]])
}

#[inline]
fn u16_at<const N: usize>(h: &[u8; N], at: usize) -> u16 {
    u16::from_ne_bytes([h[at], h[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(snaplen: u32, length: u32, mac: u16, net: u16) -> Vec<u8> {
        let mut b = vec![0u8; 256];
        b[12..16].copy_from_slice(&snaplen.to_ne_bytes());
        b[16..20].copy_from_slice(&length.to_ne_bytes());
        b[24..26].copy_from_slice(&mac.to_ne_bytes());
        b[26..28].copy_from_slice(&net.to_ne_bytes());
        b[50..52].copy_from_slice(&0x0800u16.to_be_bytes());
        b
    }

    #[test]
    fn reads_metadata_and_gso_size() {
        let mut b = record(60, 60, 82, 96);
        b[73] = GSO_UDP_L4 | GSO_ECN;
        b[76..78].copy_from_slice(&1000u16.to_ne_bytes());
        let (f, next) = read_v3(&b, 0).unwrap();
        assert_eq!((f.bytes.len(), f.link_header, f.ether_type, f.gso_size), (60, 14, 0x0800, 1000));
        assert!(!f.truncated && next == 0);
        assert_eq!(read_v3(&record(60, 60, 82, 96), 0).unwrap().0.gso_size, 0);
        assert!(read_v3(&record(60, 61, 82, 96), 0).unwrap().0.truncated);
    }

    #[test]
    fn a_vlan_is_known_by_either_tag_and_a_priority_is_none() {
        let tagged = |status: u32, tci: u32, ether_type: u16| {
            let mut v3 = record(60, 60, 82, 96);
            v3[20..24].copy_from_slice(&status.to_ne_bytes());
            v3[32..36].copy_from_slice(&tci.to_ne_bytes());
            v3[50..52].copy_from_slice(&ether_type.to_be_bytes());
            read_v3(&v3, 0).unwrap().0.vlan_tagged
        };
        assert!(
            tagged(TP_STATUS_VLAN_VALID, 0x6005, 0x0800)
                && tagged(0, 0, 0x8100)
                && tagged(TP_STATUS_VLAN_VALID, 0, 0x88a8)
        );
        assert!(!tagged(0, 5, 0x0800) && !tagged(TP_STATUS_VLAN_VALID, 0x6000, 0x0800));
    }

    #[test]
    fn both_versions_hold_the_same() {
        let mut v2 = vec![0u8; 256];
        (v2[0], v2[24]) = (TP_STATUS_VLAN_VALID as u8, 5);
        for (at, word) in [(4, 70u32), (8, 60), (16, 5), (20, 6)] {
            v2[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        v2[12..14].copy_from_slice(&82u16.to_ne_bytes());
        v2[14..16].copy_from_slice(&96u16.to_ne_bytes());
        v2[34..36].copy_from_slice(&0x0800u16.to_be_bytes());
        (v2[42], v2[73]) = (4, GSO_UDP_L4);
        v2[76..78].copy_from_slice(&1000u16.to_ne_bytes());
        let mut v3 = record(60, 70, 82, 96);
        (v3[58], v3[73]) = (4, GSO_UDP_L4);
        v3[76..78].copy_from_slice(&1000u16.to_ne_bytes());
        v3[4] = 5;
        v3[8] = 6;
        (v3[20], v3[32]) = (TP_STATUS_VLAN_VALID as u8, 5);
        let (a, b) = (read_v2(&v2).unwrap(), read_v3(&v3, 0).unwrap().0);
        assert_eq!(Frame { bytes: &[], ..a }, Frame { bytes: &[], ..b });
        assert!(a.truncated && a.vlan_tagged && a.pkttype == 4 && a.bytes.len() == 60);
        assert_eq!(read_v2(&v2[..40]), None);
    }

    #[test]
    fn headers_that_point_out_of_the_block_are_refused() {
        for (b, offset) in [
            (record(200, 200, 82, 96), 0),
            (record(u32::MAX, 0, 82, 96), 0),
            (record(10, 10, 82, 40), 0),
            (record(10, 10, 3, 96), 0),
            (record(10, 10, u16::MAX, u16::MAX), 0),
            (record(10, 10, 82, 96), 200),
            (record(10, 10, 82, 96), usize::MAX),
        ] {
            assert_eq!(read_v3(&b, offset), None);
        }
    }
}
