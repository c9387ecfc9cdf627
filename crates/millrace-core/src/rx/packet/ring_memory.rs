//! The memory of a ring: allocated by the kernel (PACKET_RX_RING), mapped here, unmapped on drop.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    ptr::NonNull,
};

use crate::sys::{
    mapping::{Mapping, halve_on_enomem},
    socket,
};

/// Fewest blocks of a ring: the kernel fills one while the other is read.
const MIN_BLOCKS: u32 = 2;

/// The mapped ring of one packet socket: `blocks` blocks of the same size, one behind the other.
pub(super) struct RingMemory {
    memory: Mapping,
    blocks: usize,
}

impl RingMemory {
    /// Allocates a ring of `blocks` blocks of `block_bytes` bytes, or of fewer blocks when the kernel has too little memory.
    /// `request` returns `struct tpacket_req` or `struct tpacket_req3` for a number of blocks. The socket must have its TPACKET
    /// version and PACKET_VNET_HDR set and not be bound yet.
    ///
    /// # Errors
    /// ENOMEM when there is no memory for [`MIN_BLOCKS`] blocks either; EINVAL for sizes that the kernel refuses
    /// (net/packet/af_packet.c, `packet_set_ring`).
    pub(super) fn allocate<const N: usize>(
        fd: &OwnedFd,
        block_bytes: u32,
        blocks: u32,
        request: impl Fn(u32) -> [u32; N],
    ) -> io::Result<Self> {
        halve_on_enomem(blocks, MIN_BLOCKS, |blocks| {
            let set_ring = |words: &[u32; N]| socket::set_packet_words(fd, libc::PACKET_RX_RING, words);
            set_ring(&request(blocks))?;
            let bytes = block_bytes as usize * blocks as usize;
            let memory = Mapping::shared(fd.as_fd(), bytes, 0).inspect_err(|_| {
                // A request of zeroes gives the blocks back, so that a smaller ring may be tried. If it fails, so will the
                // next try.
                let _ = set_ring(&[0; N]);
            })?;
            Ok(RingMemory { memory, blocks: blocks as usize })
        })
    }

    /// Returns the address of the first byte, which is page aligned. The memory stays mapped for as long as `self` lives.
    #[inline]
    pub(super) fn start(&self) -> NonNull<u8> {
        self.memory.start()
    }

    /// Returns the number of blocks that the kernel had memory for.
    #[inline]
    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }
}
