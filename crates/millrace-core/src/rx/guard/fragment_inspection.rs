//! The part of the selection program that finds datagrams which may have been reassembled from fragments.
//!
//! The ring has no datagram that came in fragments (but IPv4 with fanout flag defrag), while the stack has it reassembled.
//! Nothing in the reassembled packet says so; only the control message of IP_RECVFRAGSIZE or IPV6_RECVFRAGSIZE does, which a
//! program cannot read. So the program sends to the REASSEMBLED socket what *may* have been fragments, and the reader of
//! that socket discards what was not ([`super::fragments`]).

use crate::{
    bpf::classic::{Assembler, Label, NET, NEXT, code},
    packet,
    protocol::IPPROTO_UDP,
};

/// Headers that the program walks: as many extension headers as the ring's parser walks, and the header behind them.
const STEPS: usize = packet::MAX_EXTENSION_HEADERS + 1;
/// Bytes of an IPv6 header without extension headers.
const IPV6_HEADER: u32 = 40;
/// Bytes of a UDP header.
const UDP_HEADER: u32 = 8;
/// The largest UDP payload, in bytes, that no conforming sender fragments when the packet has no extension headers: the
/// packet then fits the minimum MTU of 1280 bytes (RFC 8200 §5).
const NEVER_FRAGMENTED_IPV6: u32 = 1280 - IPV6_HEADER - UDP_HEADER;

/// Which datagrams of a reuseport group go to its REASSEMBLED socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FragmentInspection {
    /// None: the fanout group reassembles IPv4 for the ring, and the guard's reuseport group has no REASSEMBLED socket.
    Nothing,
    /// All of IPv4 but empty ones. All fragments but the last hold a multiple of eight bytes (RFC 791), and the UDP header
    /// has eight, so that an empty datagram leaves nothing for a second fragment. Nothing else says that a datagram came
    /// whole: IPv4 has no minimum MTU that matters, and some senders set the bit "don't fragment" on fragments.
    NonEmptyIpv4,
    /// Those of IPv6 that are large, or have extension headers, which count for the MTU. One with a fragment header is not
    /// among them: the stack leaves that header in atomic fragments only (RFC 6946), which the ring has.
    LargeOrExtendedIpv6,
}

impl FragmentInspection {
    /// Appends the code, which jumps to one of the labels, or falls through where that means `in_ring`.
    /// `not_in_ring` is for packets whose extension headers the ring's parser does not walk.
    pub(super) fn append(
        self,
        a: &mut Assembler,
        perhaps_reassembled: Label,
        not_in_ring: Label,
        in_ring: Label,
    ) {
        match self {
            FragmentInspection::Nothing => {}
            FragmentInspection::NonEmptyIpv4 => {
                a.load_len();
                a.if_gt(0, perhaps_reassembled, in_ring);
            }
            FragmentInspection::LargeOrExtendedIpv6 => {
                inspect_ipv6(a, perhaps_reassembled, not_in_ring, in_ring);
            }
        }
    }
}

/// Walks the extension headers of an IPv6 packet as the ring's parser does ([`packet::parse_network`]).
fn inspect_ipv6(a: &mut Assembler, perhaps_reassembled: Label, not_in_ring: Label, in_ring: Label) {
    let extended = a.label();
    a.load_byte(NET + 6);
    a.if_eq(IPPROTO_UDP.into(), NEXT, extended);
    a.load_len();
    a.if_gt(NEVER_FRAGMENTED_IPV6, perhaps_reassembled, in_ring);

    a.place(extended);
    // In the loop, register A is the kind of the header at offset X.
    a.op(code::LDX_IMM, IPV6_HEADER);
    for _ in 0..STEPS {
        let walk = a.label();
        packet::EXTENSION_HEADERS.iter().for_each(|kind| a.if_eq((*kind).into(), walk, NEXT));
        a.if_eq(packet::FRAGMENT_HEADER.into(), in_ring, NEXT);
        a.if_eq(IPPROTO_UDP.into(), perhaps_reassembled, not_in_ring);
        a.place(walk);
        a.op(code::LD_B_IND, NET);
        a.op(code::ST, 0);
        // The length of an extension header is in units of eight bytes, less one (RFC 8200 §4).
        a.op(code::LD_B_IND, NET + 1);
        a.op(code::ADD, 1);
        a.op(code::LSH, 3);
        a.op(code::ADD | code::X, 0);
        a.op(code::TAX, 0);
        a.op(code::LD_MEM, 0);
    }
    a.goto(not_in_ring);
}
