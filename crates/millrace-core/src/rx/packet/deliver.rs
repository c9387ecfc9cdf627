//! One frame of the ring → its datagrams, or the reason why there are none.

use super::{frame::Frame, ring_listen::RingListen};
use crate::{
    datagram::{Datagram, flags},
    packet::{
        FrameDrop,
        checksum::{self, ChecksumState},
        parse_ethernet, parse_network,
    },
    rx::Sink,
};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// Gives the frame's datagrams to `sink`. `member` is the index of the ring's member in the group.
#[inline]
pub(super) fn deliver<S: Sink>(
    sink: &mut S,
    listen: &RingListen,
    member: u16,
    verify_checksum: bool,
    frame: &Frame<'_>,
) {
    // The filter drops these already; a frame may have come in before it was attached.
    if !frame.is_incoming() {
        return;
    }
    if frame.truncated {
        return sink.frame_dropped(FrameDrop::Truncated);
    }
    let ethernet = matches!(frame.hatype, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK);
    let parsed = if ethernet && frame.link_header >= ETHERNET {
        parse_ethernet(frame.bytes)
    } else {
        // Tunnels have no link-layer header, or one of their own.
        frame
            .bytes
            .get(frame.link_header..)
            .map_or(Err(FrameDrop::Malformed), |packet| parse_network(frame.ether_type, packet))
    };
    let udp = match parsed {
        Ok(udp) if listen.accepts(&udp, frame.vlan_tagged) => udp,
        Ok(_) => return sink.frame_dropped(FrameDrop::Foreign),
        Err(reason) => return sink.frame_dropped(reason),
    };
    // A super-packet has one checksum for many datagrams; what merged them (GRO) had verified them.
    if verify_checksum
        && !frame.checksum_offloaded
        && frame.gso_size == 0
        && checksum::verify(&udp) == ChecksumState::Invalid
    {
        return sink.frame_dropped(FrameDrop::BadChecksum);
    }
    let datagram = Datagram {
        payload: udp.payload,
        src: udp.src,
        dst: udp.dst,
        src_port: udp.src_port,
        dst_port: udp.dst_port,
        time: frame.time,
        rx_queue: member,
        flags: flags::KERNEL_TIME,
    };
    if frame.gso_size == 0 || udp.payload.len() <= frame.gso_size {
        return sink.datagram(&datagram);
    }
    // A super-packet (a local sender's UDP_SEGMENT, or GRO) is datagrams of gso_size bytes, the last one perhaps shorter.
    for payload in udp.payload.chunks(frame.gso_size) {
        sink.datagram(&Datagram { payload, flags: datagram.flags | flags::SPLIT, ..datagram });
    }
}
