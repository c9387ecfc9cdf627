//! The contents of registers and stack slots. The stack keeps what has to survive a load, because a load may be a call.

use crate::bpf::ebpf::Reg;

/// Context: `struct __sk_buff` or `struct xdp_md`.
pub(super) const CTX: Reg = Reg::R6;
/// The number that is being calculated.
pub(super) const NUMBER: Reg = Reg::R7;
/// The UDP header: its offset from the network header, or a pointer to it.
pub(super) const UDP: Reg = Reg::R8;
/// Payload length, in bytes.
pub(super) const LENGTH: Reg = Reg::R9;

/// Stack slots, as offsets from the frame pointer.
pub(super) mod stack {
    /// The buffer that a load reads into; 8 bytes.
    pub(in crate::rule::ebpf) const BUFFER: i16 = -8;
    /// Source address, 16 bytes in network order, IPv4 mapped.
    pub(in crate::rule::ebpf) const SRC: i16 = -24;
    /// Destination address, in the same form.
    pub(in crate::rule::ebpf) const DST: i16 = -40;
    /// State of a hash.
    pub(in crate::rule::ebpf) const HASH: i16 = -48;
    /// The left operand of a comparison.
    pub(in crate::rule::ebpf) const LEFT: i16 = -56;
    /// The stack of a calculation, growing downwards: up to `MAX_TEMPORARIES` numbers.
    pub(in crate::rule::ebpf) const TEMPORARIES: i16 = -64;
}
