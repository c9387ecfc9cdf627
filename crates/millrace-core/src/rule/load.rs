//! The numbers that one access reads.

/// A number that one access reads. The operand is the payload offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Load {
    U8(u16),
    U16(u16),
    U32(u16),
    U64(u16),
    U16Le(u16),
    U32Le(u16),
    U64Le(u16),
    Len,
    SrcPort,
    DstPort,
    RxQueue,
    Cpu,
}

/// The largest UDP payload: 65,535 bytes of UDP length less its header.
pub(crate) const MAX_PAYLOAD: u64 = 65_527;

impl Load {
    /// The largest value it can have.
    pub(crate) fn max(self) -> u64 {
        match self {
            Load::U8(_) => 0xff,
            Load::U16(_) | Load::U16Le(_) | Load::SrcPort | Load::DstPort | Load::RxQueue | Load::Cpu => {
                0xffff
            }
            Load::U32(_) | Load::U32Le(_) => 0xffff_ffff,
            Load::U64(_) | Load::U64Le(_) => u64::MAX,
            Load::Len => MAX_PAYLOAD,
        }
    }

    /// The shortest payload that has it, in bytes.
    pub(crate) fn min_len(self) -> u64 {
        match self {
            Load::U8(at) => u64::from(at) + 1,
            Load::U16(at) | Load::U16Le(at) => u64::from(at) + 2,
            Load::U32(at) | Load::U32Le(at) => u64::from(at) + 4,
            Load::U64(at) | Load::U64Le(at) => u64::from(at) + 8,
            Load::Len | Load::SrcPort | Load::DstPort | Load::RxQueue | Load::Cpu => 0,
        }
    }
}
