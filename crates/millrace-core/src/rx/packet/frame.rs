//! One frame of a TPACKET_V3 block or a TPACKET_V2 slot: header → metadata and bytes. Plain byte reading, every offset checked, so that
//! nothing in here is unsafe whatever the block holds.
//!
//! Layout (Documentation/networking/packet_mmap.rst, if_packet.h), all in host order but the protocol:
//! `tpacket3_hdr` (48 bytes) or `tpacket2_hdr` (32) · `sockaddr_ll` (20) · … · `virtio_net_hdr` (10, just before `tp_mac`) · frame at `tp_mac`.

use crate::{
    datagram::Timestamp,
    protocol::{ETH_P_8021AD, ETH_P_8021Q},
};

/// `TPACKET_ALIGN(sizeof(struct tpacket3_hdr))`: where the address is.
const SLL: usize = 48;
/// The same for `struct tpacket2_hdr`.
const SLL_V2: usize = 32;
/// Bytes read of the address: up to the packet type.
const SLL_BYTES: usize = 12;
/// Size of `struct virtio_net_hdr` (PACKET_VNET_HDR).
const VNET: usize = 10;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`, and the bit that may be or-ed to it (ECN).
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// The VLAN's number in a tag; a tag of VLAN 0 carries a priority and no VLAN (IEEE 802.1Q).
const VLAN_ID: u16 = 0x0fff;

/// Bits of the frame's status (if_packet.h).
const CSUMNOTREADY: u32 = 1 << 3;
const VLAN_VALID: u32 = 1 << 4;
const CSUM_VALID: u32 = 1 << 7;
const TS_SOFTWARE: u32 = 1 << 29;

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<libc::tpacket3_hdr>() == SLL && SLL.is_multiple_of(libc::TPACKET_ALIGNMENT));
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

/// A frame in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// From the link-layer header on; the outermost VLAN tag is not in it.
    pub(super) bytes: &'a [u8],
    /// Bytes of link-layer header before the network header.
    pub(super) link_header: usize,
    /// EtherType of the network header, host order.
    pub(super) ether_type: u16,
    /// ARPHRD_* of the interface.
    pub(super) hatype: u16,
    /// PACKET_HOST, PACKET_OUTGOING, …
    pub(super) pkttype: u8,
    /// It is a VLAN's: of the tag that the kernel took out, or of one still in the frame.
    pub(super) tagged: bool,
    /// The kernel had to cut the frame.
    pub(super) truncated: bool,
    /// Size of the datagrams that make up this UDP super-packet, bytes; 0 for an ordinary frame.
    pub(super) gso_size: usize,
    /// The UDP checksum is not for us to verify: not written yet (TP_STATUS_CSUMNOTREADY: a sender on this host left it to
    /// hardware), or verified by hardware (TP_STATUS_CSUM_VALID).
    pub(super) checksum_settled: bool,
    /// Kernel time of arrival.
    pub(super) time: Timestamp,
    /// The time is the stack's (TP_STATUS_TS_SOFTWARE), the same for every packet socket; else the ring's own.
    pub(super) stamped: bool,
}

/// The fields of a frame header that both versions have.
struct Header {
    status: u32,
    snaplen: u32,
    length: u32,
    mac: u16,
    net: u16,
    /// The VLAN tag, when the status says that there is one.
    vlan: u16,
    time: Timestamp,
    /// Where the `sockaddr_ll` is.
    sll: usize,
}

/// Reads the V3 frame header at `offset` of a block; also returns the distance to the next one, 0 for the last.
/// PACKET_VNET_HDR must be on. `None` when the header points out of the block.
#[inline]
pub(super) fn read_v3(block: &[u8], offset: usize) -> Option<(Frame<'_>, usize)> {
    let record = block.get(offset..)?;
    let h: &[u8; SLL] = record.first_chunk()?;
    let header = Header {
        status: u32_at(h, 20),
        snaplen: u32_at(h, 12),
        length: u32_at(h, 16),
        mac: u16_at(h, 24),
        net: u16_at(h, 26),
        vlan: u32_at(h, 32) as u16,
        time: Timestamp { secs: u32_at(h, 4), nanos: u32_at(h, 8) },
        sll: SLL,
    };
    Some((read(record, &header)?, u32_at(h, 0) as usize))
}

/// Reads the V2 frame header at the start of a slot. PACKET_VNET_HDR must be on. `None` when the header points out of
/// the slot.
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

/// The rest, which is the same in both versions.
#[inline]
fn read<'a>(record: &'a [u8], h: &Header) -> Option<Frame<'a>> {
    let (mac, net) = (usize::from(h.mac), usize::from(h.net));
    let bytes = record.get(mac..mac.checked_add(h.snaplen as usize)?)?;
    let sll: &[u8; SLL_BYTES] = record.get(h.sll..)?.first_chunk()?;
    // flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; byte order of the host.
    let v: &[u8; VNET] = record.get(mac.checked_sub(VNET)?..)?.first_chunk()?;
    let super_packet = v[1] & !GSO_ECN == GSO_UDP_L4;
    let gso_size = if super_packet { usize::from(u16::from_ne_bytes([v[4], v[5]])) } else { 0 };
    let ether_type = u16::from_be_bytes([sll[2], sll[3]]);
    Some(Frame {
        bytes,
        link_header: net.checked_sub(mac)?,
        ether_type,
        tagged: (h.status & VLAN_VALID != 0 && h.vlan & VLAN_ID != 0)
            || matches!(ether_type, ETH_P_8021Q | ETH_P_8021AD),
        hatype: u16_at(sll, 8),
        pkttype: sll[10],
        truncated: h.length > h.snaplen,
        gso_size,
        checksum_settled: h.status & (CSUMNOTREADY | CSUM_VALID) != 0,
        time: h.time,
        stamped: h.status & TS_SOFTWARE != 0,
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
            read_v3(&v3, 0).unwrap().0.tagged
        };
        assert!(tagged(VLAN_VALID, 0x6005, 0x0800) && tagged(0, 0, 0x8100) && tagged(VLAN_VALID, 0, 0x88a8));
        assert!(!tagged(0, 5, 0x0800) && !tagged(VLAN_VALID, 0x6000, 0x0800));
    }

    #[test]
    fn both_versions_hold_the_same() {
        let mut v2 = vec![0u8; 256];
        (v2[0], v2[24]) = (VLAN_VALID as u8, 5);
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
        (v3[20], v3[32]) = (VLAN_VALID as u8, 5);
        let (a, b) = (read_v2(&v2).unwrap(), read_v3(&v3, 0).unwrap().0);
        assert_eq!(Frame { bytes: &[], ..a }, Frame { bytes: &[], ..b });
        assert!(a.truncated && a.tagged && a.pkttype == 4 && a.bytes.len() == 60);
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
