//! The TPACKET_V3 ring: blocks in memory shared with the kernel, handed to and fro by a status word each
//! (Documentation/networking/packet_mmap.rst).
//!
//! Memory order: the kernel fills a block, then sets TP_STATUS_USER; we read the status with acquire, so that the block
//! is seen filled. We read the block, then store TP_STATUS_KERNEL with release, so that the kernel cannot start to
//! overwrite what is still being read. Most users of this interface rely on x86 here; ARM needs the ordering.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use super::frame::{self, Frame};
use crate::sys::socket;

/// Offsets in `struct tpacket_block_desc` of `hdr.bh1`: status, number of frames, offset of the first one.
const STATUS: usize = 8;
const NUM_PKTS: usize = 12;
const FIRST_PKT: usize = 16;
/// TP_STATUS_USER; TP_STATUS_KERNEL is 0.
const USER: u32 = 1;
const KERNEL: u32 = 0;
/// A partly filled block is handed over after this time, ms (`tp_retire_blk_tov`). It also means that a trickle of
/// frames uses up a block each millisecond: a ring of n blocks bridges a reader's pause of about n ms, however little
/// is in them (measured: 8 blocks lost frames when the machine was busy).
const RETIRE_MS: u32 = 1;
/// Unused for V3 but to check that `frame_nr` fits the blocks; any aligned size that divides a block will do.
const FRAME_BYTES: u32 = 2048;
/// How long [`RingV3::settle`] waits for the last block. Before Linux 6.18 the timer ran on jiffies: up to 8 ms.
const SETTLE: Duration = Duration::from_millis(50);

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(libc::tpacket_block_desc, hdr) == STATUS);
    assert!(offset_of!(libc::tpacket_hdr_v1, block_status) == 0);
    assert!(STATUS + offset_of!(libc::tpacket_hdr_v1, num_pkts) == NUM_PKTS);
    assert!(STATUS + offset_of!(libc::tpacket_hdr_v1, offset_to_first_pkt) == FIRST_PKT);
};

/// The mapped ring of one packet socket.
pub(super) struct RingV3 {
    base: NonNull<u8>,
    block_bytes: usize,
    blocks: usize,
    next: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread; the kernel side is synchronised by the
// status words.
unsafe impl Send for RingV3 {}

impl RingV3 {
    /// Allocates the ring in the kernel and maps it. With too little memory it halves the number of blocks down to
    /// two; [`RingV3::blocks`] says what came out. The socket must have TPACKET_V3 and
    /// PACKET_VNET_HDR set and not be bound yet.
    pub(super) fn new(fd: &OwnedFd, block_bytes: u32, blocks: u32) -> io::Result<Self> {
        let mut blocks = blocks;
        loop {
            match Self::try_new(fd, block_bytes, blocks) {
                Err(e) if e.raw_os_error() == Some(libc::ENOMEM) && blocks > 2 => blocks /= 2,
                other => return other,
            }
        }
    }

    fn try_new(fd: &OwnedFd, block_bytes: u32, blocks: u32) -> io::Result<Self> {
        let frames = block_bytes / FRAME_BYTES * blocks;
        // struct tpacket_req3: block size, blocks, frame size, frames, retire timeout ms, private bytes, features.
        let request = [block_bytes, blocks, FRAME_BYTES, frames, RETIRE_MS, 0, 0];
        socket::set_words(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let (block_bytes, blocks) = (block_bytes as usize, blocks as usize);
        let base = map(fd, block_bytes * blocks).inspect_err(|_| {
            // Give the blocks back, so that a smaller ring may be tried; if that fails, so will the next try.
            let _ = socket::set_words(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &[0u32; 7]);
        })?;
        Ok(RingV3 { base, block_bytes, blocks, next: 0 })
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// A 32-bit word of the header of block `index`.
    fn word(&self, index: usize, offset: usize) -> &AtomicU32 {
        debug_assert!(index < self.blocks && offset <= FIRST_PKT);
        // SAFETY: the offset is within the mapping (a block is at least a page), 4-aligned because blocks are pages
        // and the header offsets multiples of four, and the mapping lives as long as self. Both sides may write the
        // word, hence an atomic.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(index * self.block_bytes + offset).cast()) }
    }

    /// The next block, when the kernel has handed it over. One load when it has not.
    #[inline]
    pub(super) fn take(&mut self) -> Option<Block<'_>> {
        let index = self.next;
        if self.word(index, STATUS).load(Ordering::Acquire) & USER == 0 {
            return None;
        }
        self.next = if index + 1 == self.blocks { 0 } else { index + 1 };
        Some(Block { ring: self, index })
    }

    /// Waits until no frame is left in a block that the kernel still holds. Call it when a filter already drops
    /// everything: then it ends within two retire timeouts.
    pub(super) fn settle(&self) {
        let tick = Duration::from_millis(u64::from(RETIRE_MS));
        for _ in 0..SETTLE.as_millis() / tick.as_millis() {
            // At least once: a frame may be on its way through the filter's successor on another CPU right now.
            thread::sleep(tick);
            // We zero the count when we give a block back and the kernel when it opens one, so a count in a block of
            // the kernel's means frames.
            let open = |i: usize| {
                self.word(i, STATUS).load(Ordering::Acquire) & USER == 0
                    && self.word(i, NUM_PKTS).load(Ordering::Relaxed) != 0
            };
            if !(0..self.blocks).any(open) {
                return;
            }
        }
    }
}

/// Maps the ring of a packet socket; whoever owns the result unmaps it.
pub(super) fn map(fd: &OwnedFd, bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new shared mapping at an address of the kernel's choice; it aliases no Rust object. A length beyond the
    // ring's is refused by the kernel.
    let base = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))
}

impl Drop for RingV3 {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `try_new`; every borrow of it (a `Block`) borrowed self and has ended.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.block_bytes * self.blocks) };
    }
}

/// A block that is ours until dropped.
pub(super) struct Block<'r> {
    ring: &'r RingV3,
    index: usize,
}

impl Block<'_> {
    /// How many frames the kernel announced; looks at none of them.
    #[cfg(feature = "bench")]
    pub(super) fn announced(&self) -> usize {
        self.ring.word(self.index, NUM_PKTS).load(Ordering::Relaxed) as usize
    }

    /// Calls `each` for every frame; returns how many the kernel announced and how many could not be read.
    #[inline]
    pub(super) fn for_each(&self, mut each: impl FnMut(&Frame<'_>)) -> (usize, usize) {
        let announced = self.ring.word(self.index, NUM_PKTS).load(Ordering::Relaxed) as usize;
        let mut offset = self.ring.word(self.index, FIRST_PKT).load(Ordering::Relaxed) as usize;
        // SAFETY: the block lies within the mapping, its memory is initialised (zeroed by the kernel), and while the
        // status says USER, from the acquire load in `take` to the release store in `drop`, the kernel does not write
        // to it; nor do we until then.
        let bytes = unsafe {
            let start = self.ring.base.as_ptr().add(self.index * self.ring.block_bytes);
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
        self.ring.word(self.index, STATUS).store(KERNEL, Ordering::Release);
    }
}
