//! The reasons why a frame is not delivered as a datagram.

/// The reason why a frame is not delivered. Each reason has a counter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameDrop {
    /// The frame is not UDP, or not for an address and port we listen on. That is not a loss.
    Foreign = 0,
    /// A length field contradicts another or runs past the frame.
    Malformed,
    /// The frame is a fragment. The guard socket delivers the datagram once the kernel has reassembled it.
    Fragment,
    /// The kernel gave us less than the frame, because a ring's slot or block was too small.
    Truncated,
    /// The UDP checksum is wrong. Only counted while checksums are verified.
    BadChecksum,
}

impl FrameDrop {
    /// Number of reasons, which is the length of counter arrays.
    pub const COUNT: usize = 5;
    /// All reasons, in the order of the counters.
    pub const ALL: [FrameDrop; Self::COUNT] = [
        FrameDrop::Foreign,
        FrameDrop::Malformed,
        FrameDrop::Fragment,
        FrameDrop::Truncated,
        FrameDrop::BadChecksum,
    ];

    /// Returns the metric label.
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
