//! The words of scratch memory, in which the program's prologue puts the fields that the rules read.

use super::super::kernel::HeaderFields;
use super::target::CbpfTarget;

/// Words of scratch memory (`BPF_MEMWORDS` in linux/filter.h).
pub(super) const SCRATCH_WORDS: u32 = 16;

/// Numbers of scratch words.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) target: CbpfTarget,
    /// Offset of the UDP header in the packet ([`CbpfTarget::Fanout`]).
    pub(super) udp_offset: u32,
    /// Length of the payload ([`CbpfTarget::Fanout`]).
    pub(super) length: u32,
    /// The first of the four words of the source address, if a rule reads it.
    pub(super) src: Option<u32>,
    /// The same for the destination address.
    pub(super) dst: Option<u32>,
    /// The first of two words, source port and destination port ([`CbpfTarget::Reuseport`]).
    pub(super) ports: Option<u32>,
}

impl Layout {
    /// The layout, and how many words it occupies.
    pub(super) fn new(target: CbpfTarget, fields: HeaderFields) -> (Self, u32) {
        let fanout = target == CbpfTarget::Fanout;
        let mut used = if fanout { 2 } else { 0 };
        let mut allocate = |wanted: bool, words: u32| {
            let at = used;
            used += if wanted { words } else { 0 };
            wanted.then_some(at)
        };
        let (src, dst) = (allocate(fields.src, 4), allocate(fields.dst, 4));
        let ports = allocate(fields.ports && !fanout, 2);
        (Layout { target, udp_offset: 0, length: 1, src, dst, ports }, used)
    }

    pub(super) fn fanout(&self) -> bool {
        self.target == CbpfTarget::Fanout
    }
}
