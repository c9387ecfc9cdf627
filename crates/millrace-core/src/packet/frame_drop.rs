//! Why a frame is not delivered as a datagram.

/// Why a frame never became a datagram. Each is a counter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameDrop {
    /// Not UDP, or not for an address and port we listen on. Not a loss: others may want it.
    Foreign = 0,
    /// A length field contradicts another or runs past the frame.
    Malformed,
    /// A fragment: the guard socket delivers the whole datagram after the kernel reassembled it.
    Fragment,
    /// The kernel gave us less than the frame (ring slot or block too small).
    Truncated,
    /// A UDP checksum that was ready and wrong (only with verification on).
    BadChecksum,
}

impl FrameDrop {
    /// Number of reasons; counters are arrays of this length.
    pub const COUNT: usize = 5;
    /// All reasons, in counter order.
    pub const ALL: [FrameDrop; Self::COUNT] = [
        FrameDrop::Foreign,
        FrameDrop::Malformed,
        FrameDrop::Fragment,
        FrameDrop::Truncated,
        FrameDrop::BadChecksum,
    ];

    /// Metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            FrameDrop::Foreign => "foreign",
            FrameDrop::Malformed => "malformed",
            FrameDrop::Fragment => "fragment",
            FrameDrop::Truncated => "truncated",
            FrameDrop::BadChecksum => "bad_checksum",
        }
    }
}
