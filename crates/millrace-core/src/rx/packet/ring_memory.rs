//! The memory of a ring: allocated by the kernel (PACKET_RX_RING), mapped here, unmapped on drop.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr::{self, NonNull},
};

use crate::sys::socket;

/// Fewest blocks of a ring: the kernel fills one while the other is read.
const MIN_BLOCKS: u32 = 2;

/// The mapped ring of one packet socket: `blocks` blocks of the same size, one behind the other.
pub(super) struct RingMemory {
    start: NonNull<u8>,
    bytes: usize,
    blocks: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread; the type itself reads and writes nothing.
unsafe impl Send for RingMemory {}

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
        halve_on_enomem(blocks, |blocks| {
            let set_ring =
                |words: &[u32; N]| socket::set_words(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, words);
            set_ring(&request(blocks))?;
            let bytes = block_bytes as usize * blocks as usize;
            let start = map(fd, bytes).inspect_err(|_| {
                // A request of zeroes gives the blocks back, so that a smaller ring may be tried. If it fails, so will the
                // next try.
                let _ = set_ring(&[0; N]);
            })?;
            Ok(RingMemory { start, bytes, blocks: blocks as usize })
        })
    }

    /// Returns the address of the first byte, which is page aligned. The memory stays mapped for as long as `self` lives.
    #[inline]
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Returns the number of blocks that the kernel had memory for.
    #[inline]
    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }
}

impl Drop for RingMemory {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `allocate`. The rings borrow themselves for as long as they give out parts of
        // it, and own this value, so no borrow of the memory is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Calls `try_blocks` with half the blocks again and again until the kernel has the memory, down to [`MIN_BLOCKS`].
fn halve_on_enomem<T>(mut blocks: u32, try_blocks: impl Fn(u32) -> io::Result<T>) -> io::Result<T> {
    loop {
        match try_blocks(blocks) {
            Err(e) if e.raw_os_error() == Some(libc::ENOMEM) && blocks > MIN_BLOCKS => blocks /= 2,
            result => return result,
        }
    }
}

/// Maps the first `bytes` bytes of the socket's ring (mmap(2)).
fn map(fd: &OwnedFd, bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new shared mapping at an address of the kernel's choice; it aliases no Rust object. A length beyond the
    // ring's is refused by the kernel.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))
}
