//! The TPACKET_V2 ring: one slot for each frame, handed over the moment it is filled (packet_mmap.rst). Where a V3 block
//! waits for its timeout, a lone frame wakes the reader at once; in exchange the ring holds a fixed number of frames
//! of any size, and each costs a status word of its own.
//!
//! Memory order as in [`super::ring`]: acquire on a slot that became ours, release when it is given back.

use std::{
    io,
    os::fd::OwnedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use super::{
    frame::{self, Frame},
    ring_v3::map,
};
use crate::sys::socket;

/// TP_STATUS_USER; TP_STATUS_KERNEL is 0.
const USER: u32 = 1;
const KERNEL: u32 = 0;
/// Slots taken in one pass.
const PASS_SLOTS: usize = 256;
/// Longer than any frame is on its way through the stack: when a dropping filter was attached this long ago, none comes.
const SETTLE: Duration = Duration::from_millis(2);

const _: () = assert!(std::mem::offset_of!(libc::tpacket2_hdr, tp_status) == 0);

/// The mapped ring of one packet socket.
pub(super) struct RingV2 {
    base: NonNull<u8>,
    bytes: usize,
    block_bytes: usize,
    slot_bytes: usize,
    slots: usize,
    next: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread; the kernel side is synchronised by the
// status words.
unsafe impl Send for RingV2 {}

impl RingV2 {
    /// Allocates the ring in the kernel and maps it: as many slots as fit the blocks, none across two. With too little
    /// memory it halves the number of blocks. The socket must have TPACKET_V2 and PACKET_VNET_HDR set and not be bound.
    pub(super) fn new(fd: &OwnedFd, block_bytes: u32, blocks: u32, slot_bytes: u32) -> io::Result<Self> {
        let mut blocks = blocks;
        loop {
            match Self::try_new(fd, block_bytes, blocks, slot_bytes) {
                Err(e) if e.raw_os_error() == Some(libc::ENOMEM) && blocks > 2 => blocks /= 2,
                other => return other,
            }
        }
    }

    fn try_new(fd: &OwnedFd, block_bytes: u32, blocks: u32, slot_bytes: u32) -> io::Result<Self> {
        let slots = block_bytes / slot_bytes * blocks;
        // struct tpacket_req: block size, blocks, frame size, frames.
        let request = [block_bytes, blocks, slot_bytes, slots];
        socket::set_words(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let bytes = block_bytes as usize * blocks as usize;
        let base = map(fd, bytes).inspect_err(|_| {
            // Give the blocks back, so that a smaller ring may be tried; if that fails, so will the next try.
            let _ = socket::set_words(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &[0u32; 4]);
        })?;
        Ok(RingV2 {
            base,
            bytes,
            block_bytes: block_bytes as usize,
            slot_bytes: slot_bytes as usize,
            slots: slots as usize,
            next: 0,
        })
    }

    /// Number of slots.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Offset of a slot in the mapping. Slots begin anew in each block; what is left at a block's end is unused.
    fn offset(&self, index: usize) -> usize {
        let in_block = self.block_bytes / self.slot_bytes;
        index / in_block * self.block_bytes + index % in_block * self.slot_bytes
    }

    fn status(&self, index: usize) -> &AtomicU32 {
        debug_assert!(index < self.slots);
        // SAFETY: the slot lies within the mapping, 16-aligned because blocks are pages and slots multiples of 16, and
        // the mapping lives as long as self. Both sides may write the word, hence an atomic.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(self.offset(index)).cast()) }
    }

    /// Calls `each` for every frame there is, at most a few hundred; returns how many slots were taken and how many of
    /// them could not be read.
    #[inline]
    pub(super) fn pass(&mut self, mut each: impl FnMut(&Frame<'_>)) -> (usize, usize) {
        let mut unreadable = 0;
        for taken in 0..PASS_SLOTS {
            let index = self.next;
            if self.status(index).load(Ordering::Acquire) & USER == 0 {
                return (taken, unreadable);
            }
            // SAFETY: the slot lies within the mapping, its memory is initialised (zeroed by the kernel), and from the
            // acquire load above to the release store below the kernel does not write to it; nor do we.
            let slot = unsafe {
                std::slice::from_raw_parts(self.base.as_ptr().add(self.offset(index)), self.slot_bytes)
            };
            match frame::read_v2(slot) {
                Some(frame) => each(&frame),
                None => unreadable += 1,
            }
            self.status(index).store(KERNEL, Ordering::Release);
            self.next = if index + 1 == self.slots { 0 } else { index + 1 };
        }
        (PASS_SLOTS, unreadable)
    }

    /// Waits until no frame can be on its way any more. Call it when a filter already drops everything.
    pub(super) fn settle(&self) {
        thread::sleep(SETTLE);
    }
}

impl Drop for RingV2 {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `try_new`; the slices of it live only inside `pass`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
