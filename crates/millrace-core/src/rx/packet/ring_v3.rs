//! The TPACKET_V3 ring: blocks of many frames, each handed over as a whole by its status word
//! (Documentation/networking/packet_mmap.rst).
//!
//! Memory order: the kernel fills a block, then sets TP_STATUS_USER; we read the status with acquire, so that the block
//! is seen filled. We read the block, then store TP_STATUS_KERNEL with release, so that the kernel cannot start to
//! overwrite what is still being read. Most users of this interface rely on x86 here; ARM needs the ordering.

use std::{
    io,
    mem::offset_of,
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

/// Offset of the block's status in `struct tpacket_block_desc`, whose `hdr.bh1` is a `struct tpacket_hdr_v1`.
const STATUS: usize =
    offset_of!(libc::tpacket_block_desc, hdr) + offset_of!(libc::tpacket_hdr_v1, block_status);
/// Offset of the number of frames in the block.
const NUM_PKTS: usize =
    offset_of!(libc::tpacket_block_desc, hdr) + offset_of!(libc::tpacket_hdr_v1, num_pkts);
/// Offset of the offset of the first frame.
const FIRST_PKT: usize =
    offset_of!(libc::tpacket_block_desc, hdr) + offset_of!(libc::tpacket_hdr_v1, offset_to_first_pkt);
/// The time after which the kernel hands over a block that is not full, in ms (`tp_retire_blk_tov`). A lone frame waits for
/// about this long, and 1 is the least there is: 0 lets the kernel choose. A trickle of frames uses up one block for each of
/// these times, so a ring of n blocks bridges a reader's pause of about n ms, however little is in them (measured: 8 blocks
/// lost frames when the machine was busy). A higher value bridges longer pauses and delivers later.
const RETIRE_MS: u32 = 1;
/// The frame size of the request. The kernel uses it for V3 only to check that `tp_frame_nr` fits the blocks, so any aligned
/// size that divides a block will do.
const FRAME_BYTES: u32 = 2048;
/// The longest that [`RingV3::settle`] waits for the last block. The kernel hands that over within two periods of the retire
/// timer: 2 ms, and before Linux 6.18, where the timer ran on jiffies, up to 8 ms (at HZ=250). Too low a value would leave
/// frames unread at the end; too high a one delays the end where a block never comes.
const SETTLE: Duration = Duration::from_millis(50);

// `RingV3::word` relies on it.
const _: () = {
    assert!(STATUS.is_multiple_of(4) && NUM_PKTS.is_multiple_of(4) && FIRST_PKT.is_multiple_of(4));
    assert!(STATUS < FIRST_PKT && NUM_PKTS < FIRST_PKT);
};

/// The ring of one packet socket.
pub(super) struct RingV3 {
    memory: RingMemory,
    block_bytes: usize,
    next: usize,
}

impl RingV3 {
    /// Allocates the ring of a socket with TPACKET_V3 and PACKET_VNET_HDR that is not bound yet. With too little memory it
    /// gets fewer blocks: see [`RingV3::blocks`].
    ///
    /// # Errors
    /// Those of [`RingMemory::allocate`].
    pub(super) fn new(fd: &OwnedFd, block_bytes: u32, blocks: u32) -> io::Result<Self> {
        // struct tpacket_req3: block size, blocks, frame size, frames, retire timeout ms, private bytes, features.
        let request =
            |blocks| [block_bytes, blocks, FRAME_BYTES, block_bytes / FRAME_BYTES * blocks, RETIRE_MS, 0, 0];
        let memory = RingMemory::allocate(fd, block_bytes, blocks, request)?;
        Ok(RingV3 { memory, block_bytes: block_bytes as usize, next: 0 })
    }

    /// Returns the number of blocks that there was memory for.
    pub(super) fn blocks(&self) -> usize {
        self.memory.blocks()
    }

    /// Returns a 32-bit word of the header of block `index`.
    fn word(&self, index: usize, offset: usize) -> &AtomicU32 {
        debug_assert!(index < self.blocks() && offset <= FIRST_PKT);
        // SAFETY: the offset is within the mapping (a block is at least a page), 4-aligned because blocks are pages
        // and the header offsets multiples of four, and the mapping lives as long as self. Both sides may write the
        // word, hence an atomic.
        unsafe {
            AtomicU32::from_ptr(self.memory.start().as_ptr().add(index * self.block_bytes + offset).cast())
        }
    }

    /// Returns the next block when the kernel has handed it over. It costs one load when it has not.
    #[inline]
    pub(super) fn next_block(&mut self) -> Option<Block<'_>> {
        let index = self.next;
        if self.word(index, STATUS).load(Ordering::Acquire) & TP_STATUS_USER == 0 {
            return None;
        }
        self.next = if index + 1 == self.blocks() { 0 } else { index + 1 };
        Some(Block { ring: self, index })
    }

    /// Waits until no frame is left in a block that the kernel still holds. Call it when a filter already drops everything:
    /// then it ends within two retire timeouts.
    pub(super) fn settle(&self) {
        let tick = Duration::from_millis(u64::from(RETIRE_MS));
        for _ in 0..SETTLE.as_millis() / tick.as_millis() {
            // It sleeps at least once, because a frame that passed the filter before may be on its way on another CPU.
            thread::sleep(tick);
            // We zero the count when we give a block back and the kernel when it opens one, so a count in a block of the
            // kernel's means frames.
            let has_frames = |i: usize| {
                self.word(i, STATUS).load(Ordering::Acquire) & TP_STATUS_USER == 0
                    && self.word(i, NUM_PKTS).load(Ordering::Relaxed) != 0
            };
            if !(0..self.blocks()).any(has_frames) {
                return;
            }
        }
    }
}

/// A block that the kernel has handed over. Dropping it gives the block back.
pub(super) struct Block<'r> {
    ring: &'r RingV3,
    index: usize,
}

impl Block<'_> {
    /// Returns the number of frames in the block by its header, and reads none of them.
    pub(super) fn frames(&self) -> usize {
        self.ring.word(self.index, NUM_PKTS).load(Ordering::Relaxed) as usize
    }

    /// Calls `each` for every frame. Returns how many frames the header announces, and how many of them could not be read.
    #[inline]
    pub(super) fn for_each(&self, mut each: impl FnMut(&Frame<'_>)) -> (usize, usize) {
        let announced = self.frames();
        let mut offset = self.ring.word(self.index, FIRST_PKT).load(Ordering::Relaxed) as usize;
        // SAFETY: the block lies within the mapping, its memory is initialised (zeroed by the kernel), and while the
        // status says USER, from the acquire load in `next_block` to the release store in `drop`, the kernel does not write
        // to it; nor do we until then.
        let bytes = unsafe {
            let start = self.ring.memory.start().as_ptr().add(self.index * self.ring.block_bytes);
            std::slice::from_raw_parts(start, self.ring.block_bytes)
        };
        for done in 0..announced {
            let Some((frame, distance)) = frame::read_v3(bytes, offset) else {
                // Where the next one begins is unknown too.
                return (announced, announced - done);
            };
            each(&frame);
            offset = offset.saturating_add(distance);
        }
        (announced, 0)
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        self.ring.word(self.index, NUM_PKTS).store(0, Ordering::Relaxed);
        self.ring.word(self.index, STATUS).store(TP_STATUS_KERNEL, Ordering::Release);
    }
}
