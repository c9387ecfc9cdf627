//! Packets of the link types that we know, as datagrams. The numbers are those of <https://www.tcpdump.org/linktypes.html>.

use pcap_parser::Linktype;

use crate::{
    packet::{self, FrameDrop, Udp},
    protocol::{ETH_P_IP, ETH_P_IPV6},
};

/// Raw IP, as files have it that were written with the operating system's number (`DLT_RAW`) instead of `LINKTYPE_RAW`.
const DLT_RAW: Linktype = Linktype(12);

/// The datagram in a packet, or why there is none. A packet of an unknown link type is foreign.
pub(super) fn parse(link: Option<Linktype>, data: &[u8]) -> Result<Udp<'_>, FrameDrop> {
    let behind = |at: usize| data.get(at..).ok_or(FrameDrop::Malformed);
    let ether_type = |at: usize| {
        data.get(at..at + 2)
            .and_then(|b| b.first_chunk())
            .map(|b| u16::from_be_bytes(*b))
            .ok_or(FrameDrop::Malformed)
    };
    let by_version = |packet| match <[u8]>::first(packet).map(|b| b >> 4) {
        Some(4) => packet::parse_network(ETH_P_IP, packet),
        Some(6) => packet::parse_network(ETH_P_IPV6, packet),
        _ => Err(FrameDrop::Foreign),
    };
    match link {
        Some(Linktype::ETHERNET) => packet::parse_ethernet(data),
        Some(Linktype::LINUX_SLL) => packet::parse_network(ether_type(14)?, behind(16)?),
        Some(Linktype::LINUX_SLL2) => packet::parse_network(ether_type(0)?, behind(20)?),
        // Four bytes of address family in the byte order of the host that captured, with numbers that differ between systems;
        // the IP version tells the same.
        Some(Linktype::NULL) => by_version(behind(4)?),
        Some(Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 | DLT_RAW) => by_version(data),
        _ => Err(FrameDrop::Foreign),
    }
}
