//! The TPACKET_V2 ring: one slot for each frame, handed over the moment it is filled
//! (Documentation/networking/packet_mmap.rst). Where a V3 block waits for its timeout, a lone frame wakes the reader at once;
//! in exchange the ring holds a fixed number of frames of any size, and each costs a status word of its own.
//!
//! The memory order is that of [`super::ring_v3`]: acquire on a slot that became ours, release when it is given back.

use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use libc::{TP_STATUS_KERNEL, TP_STATUS_USER};

use super::{
    frame::{self, Frame},
    ring_memory::RingMemory,
};

/// The most slots read in one pass. Fewer would spread a pass's fixed cost over fewer frames; more would let the rest of the
/// receive thread wait for longer.
const PASS_SLOTS: usize = 256;
/// How long [`RingV2::settle`] waits. It must be longer than any frame is on its way from the filter to its slot, or frames
/// are left unread at the end; a longer one only delays the end.
const SETTLE: Duration = Duration::from_millis(2);

// `RingV2::status` relies on it.
const _: () = assert!(std::mem::offset_of!(libc::tpacket2_hdr, tp_status) == 0);

/// The ring of one packet socket.
pub(super) struct RingV2 {
    memory: RingMemory,
    block_bytes: usize,
    slot_bytes: usize,
    slots: usize,
    next: usize,
}

impl RingV2 {
    /// Allocates the ring of a socket with TPACKET_V2 and PACKET_VNET_HDR that is not bound yet: as many slots as fit the
    /// blocks, none across two. With too little memory it gets fewer blocks: see [`RingV2::slots`].
    ///
    /// # Errors
    /// Those of [`RingMemory::allocate`].
    pub(super) fn new(fd: &OwnedFd, block_bytes: u32, blocks: u32, slot_bytes: u32) -> io::Result<Self> {
        let slots_per_block = block_bytes / slot_bytes;
        // struct tpacket_req: block size, blocks, frame size, frames.
        let request = |blocks| [block_bytes, blocks, slot_bytes, slots_per_block * blocks];
        let memory = RingMemory::allocate(fd, block_bytes, blocks, request)?;
        let slots = slots_per_block as usize * memory.blocks();
        Ok(RingV2 {
            memory,
            block_bytes: block_bytes as usize,
            slot_bytes: slot_bytes as usize,
            slots,
            next: 0,
        })
    }

    /// Returns the number of slots that there was memory for.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Returns the offset of a slot in the mapping. Slots begin anew in each block; what is left at a block's end is unused.
    fn offset(&self, index: usize) -> usize {
        let slots_per_block = self.block_bytes / self.slot_bytes;
        index / slots_per_block * self.block_bytes + index % slots_per_block * self.slot_bytes
    }

    /// Returns the status word of a slot, which its header begins with.
    fn status(&self, index: usize) -> &AtomicU32 {
        debug_assert!(index < self.slots);
        // SAFETY: the slot lies within the mapping, 16-aligned because blocks are pages and slots multiples of 16, and
        // the mapping lives as long as self. Both sides may write the word, hence an atomic.
        unsafe { AtomicU32::from_ptr(self.memory.start().as_ptr().add(self.offset(index)).cast()) }
    }

    /// Calls `each` for every frame that is there, at most [`PASS_SLOTS`] of them, and gives the slots back. Returns how many
    /// slots were read, and how many of them held no readable frame.
    #[inline]
    pub(super) fn read_slots(&mut self, mut each: impl FnMut(&Frame<'_>)) -> (usize, usize) {
        let mut unreadable = 0;
        for read in 0..PASS_SLOTS {
            let index = self.next;
            if self.status(index).load(Ordering::Acquire) & TP_STATUS_USER == 0 {
                return (read, unreadable);
            }
            // SAFETY: the slot lies within the mapping, its memory is initialised (zeroed by the kernel), and from the
            // acquire load above to the release store below the kernel does not write to it; nor do we.
            let slot = unsafe {
                std::slice::from_raw_parts(
                    self.memory.start().as_ptr().add(self.offset(index)),
                    self.slot_bytes,
                )
            };
            match frame::read_v2(slot) {
                Some(frame) => each(&frame),
                None => unreadable += 1,
            }
            self.status(index).store(TP_STATUS_KERNEL, Ordering::Release);
            self.next = if index + 1 == self.slots { 0 } else { index + 1 };
        }
        (PASS_SLOTS, unreadable)
    }

    /// Waits until no frame can be on its way any more. Call it when a filter already drops everything.
    pub(super) fn settle(&self) {
        thread::sleep(SETTLE);
    }
}
