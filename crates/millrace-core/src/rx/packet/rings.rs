//! The ring of one member, of either TPACKET version.

use std::{io, os::fd::OwnedFd};

use super::{frame::Frame, ring_v2::RingV2, ring_v3::RingV3};
use crate::config::{EngineConfig, Tpacket};

/// A ring of one of the two versions.
pub(super) enum Rings {
    V3(RingV3),
    V2(RingV2),
}

impl Rings {
    /// Allocates the configured ring of a socket that is not bound yet.
    ///
    /// # Errors
    /// Those of [`super::ring_memory::RingMemory::allocate`].
    pub(super) fn new(fd: &OwnedFd, config: &EngineConfig) -> io::Result<Self> {
        let (bytes, blocks) = (config.packet_block_bytes, config.packet_blocks);
        match config.tpacket {
            Tpacket::V3 => RingV3::new(fd, bytes, blocks).map(Rings::V3),
            Tpacket::V2 => RingV2::new(fd, bytes, blocks, config.packet_slot_bytes).map(Rings::V2),
        }
    }

    /// Returns how many blocks (V3) or slots (V2) there was memory for.
    pub(super) fn capacity(&self) -> usize {
        match self {
            Rings::V3(ring) => ring.blocks(),
            Rings::V2(ring) => ring.slots(),
        }
    }

    /// Calls `each` for every frame of at most one block (V3) or 256 slots (V2), and gives them back to the kernel. Returns how
    /// many frames there were, and how many of them could not be read; the first number is 0 only when nothing was there.
    #[inline]
    pub(super) fn read_pass(&mut self, each: impl FnMut(&Frame<'_>)) -> (usize, usize) {
        match self {
            Rings::V3(ring) => {
                let Some(block) = ring.next_block() else { return (0, 0) };
                let (announced, unreadable) = block.for_each(each);
                // The kernel retires no block without frames. If one came, the pass must still not look idle.
                (announced.max(1), unreadable)
            }
            Rings::V2(ring) => ring.read_slots(each),
        }
    }

    /// Waits until all frames are in blocks or slots that the kernel has handed over. Call it when a filter already drops
    /// everything. It takes 1 to 50 ms with V3, see [`RingV3::settle`], and 2 ms with V2.
    pub(super) fn settle(&self) {
        match self {
            Rings::V3(ring) => ring.settle(),
            Rings::V2(ring) => ring.settle(),
        }
    }
}

/// The size of the ring that is requested.
pub(super) struct RequestedSize {
    /// [`Rings::capacity`] when all the memory requested is there.
    pub(super) capacity: usize,
    /// The unit of `capacity`: `blocks` or `slots`.
    pub(super) unit: &'static str,
    /// Bytes of one block or slot.
    pub(super) unit_bytes: u32,
}

impl RequestedSize {
    pub(super) fn of(config: &EngineConfig) -> Self {
        let blocks = config.packet_blocks as usize;
        match config.tpacket {
            Tpacket::V3 => {
                RequestedSize { capacity: blocks, unit: "blocks", unit_bytes: config.packet_block_bytes }
            }
            Tpacket::V2 => {
                let slots_per_block = (config.packet_block_bytes / config.packet_slot_bytes) as usize;
                RequestedSize {
                    capacity: blocks * slots_per_block,
                    unit: "slots",
                    unit_bytes: config.packet_slot_bytes,
                }
            }
        }
    }
}
