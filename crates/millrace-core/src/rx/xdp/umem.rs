//! UMEM: the packet memory of one AF_XDP socket, cut into frames.
//!
//! Who owns a frame: us (free), the kernel (in the fill ring, in its hands, in the rx ring), or us again for the
//! moment a receive pass looks at it. Bytes are only ever read while we own the frame.

use std::{io, ops::Add, slice};

use crate::error::{Code, Error, Result};
use crate::sys::mapping::Mapping;

/// Bytes of a frame, a chunk in the kernel's words. Must be a power of two, at most a page.
pub const FRAME_BYTES: u32 = 2048;
/// Bytes the kernel keeps free in front of the data (`XDP_PACKET_HEADROOM`); the rest is room for the Ethernet frame.
pub const KERNEL_HEADROOM: u32 = 256;

/// The frame of a descriptor's address.
const FRAME_MASK: u64 = !(FRAME_BYTES as u64 - 1);

/// Packet memory, and which frames are free.
#[derive(Debug)]
pub struct Umem {
    memory: Mapping,
    frames: u32,
    /// Addresses of frames that are neither with the kernel nor in a receive pass.
    free: Vec<u64>,
    /// Frames given to the kernel and not received yet.
    with_kernel: u32,
    /// Debug builds know the owner of every single frame: true is the kernel.
    #[cfg(debug_assertions)]
    kernel_owns: Vec<bool>,
}

/// Where the frames are. `free + fill + rx + in_kernel = total`: `in_kernel` are frames the kernel took from the fill
/// ring and has not put into the rx ring (it keeps one back when the rx ring is full; zero-copy drivers hold many).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCensus {
    /// With us, for want of room in the fill ring.
    pub free: u32,
    /// In the fill ring.
    pub fill: u32,
    /// In the rx ring.
    pub rx: u32,
    /// With the kernel, in neither ring.
    pub in_kernel: u32,
    /// All there are.
    pub total: u32,
}

impl Add for FrameCensus {
    type Output = Self;

    fn add(self, o: Self) -> Self {
        FrameCensus {
            free: self.free + o.free,
            fill: self.fill + o.fill,
            rx: self.rx + o.rx,
            in_kernel: self.in_kernel + o.in_kernel,
            total: self.total + o.total,
        }
    }
}

impl Umem {
    /// Maps `frames` frames of [`FRAME_BYTES`], all free, on NUMA node `node` where that can be had.
    ///
    /// # Errors
    /// [`Code::Kernel`] when there is no memory.
    pub fn new(frames: u32, node: Option<u32>) -> Result<Self> {
        let len = frames as usize * FRAME_BYTES as usize;
        let memory = Mapping::anonymous_on_huge_pages(len, node).map_err(|e| {
            Error::os(Code::Kernel, format!("mapping {len} bytes of packet memory (UMEM)"), e)
        })?;
        // Popped from the end: the lowest address goes first.
        let free = (0..frames).rev().map(|i| u64::from(i) * u64::from(FRAME_BYTES)).collect();
        Ok(Umem {
            memory,
            frames,
            free,
            with_kernel: 0,
            #[cfg(debug_assertions)]
            kernel_owns: vec![false; frames as usize],
        })
    }

    /// True when the memory is on huge pages: fewer TLB misses for us and for the copying kernel.
    pub(super) fn huge_pages(&self) -> bool {
        self.memory.is_on_huge_pages()
    }

    /// `struct xdp_umem_reg` for `XDP_UMEM_REG`.
    pub(super) fn registration(&self) -> libc::xdp_umem_reg {
        libc::xdp_umem_reg {
            addr: self.memory.start().as_ptr() as u64,
            len: self.memory.len() as u64,
            chunk_size: FRAME_BYTES,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        }
    }

    /// Explains why the kernel refused the registration.
    pub(super) fn refused(&self, e: io::Error) -> Error {
        let what = format!("registering {} bytes of packet memory (UMEM)", self.memory.len());
        match e.raw_os_error() {
            Some(libc::ENOBUFS | libc::ENOMEM | libc::EPERM) => Error::os(
                Code::Permission,
                format!(
                    "{what}: the memory is pinned and counts against RLIMIT_MEMLOCK: raise it (`ulimit -l`, \
                     LimitMEMLOCK=), grant CAP_IPC_LOCK, or ask for fewer frames (xdpFrames = {})",
                    self.frames
                ),
                e,
            ),
            _ => Error::os(Code::Kernel, what, e),
        }
    }

    /// The bytes of a received descriptor, or `None` when it does not lie inside one frame.
    ///
    /// The frame must be ours: taken from the rx ring in this pass and not yet given back.
    #[inline]
    pub(super) fn bytes(&self, descriptor: &libc::xdp_desc) -> Option<&[u8]> {
        let (start, len) = (descriptor.addr, u64::from(descriptor.len));
        let frame_end = (start & FRAME_MASK).checked_add(u64::from(FRAME_BYTES))?;
        if start.checked_add(len)? > frame_end || frame_end > self.memory.len() as u64 {
            return None;
        }
        // SAFETY: checked above to lie inside the mapping, which `self` keeps. The kernel writes a frame only between
        // our putting it on the fill ring and its putting it on the rx ring; the caller is between the two others, and
        // the borrow ends before the frame is given back because that takes `&mut self`.
        Some(unsafe { slice::from_raw_parts(self.memory.start().as_ptr().add(start as usize), len as usize) })
    }

    /// Writes a descriptor's bytes as the kernel would.
    #[cfg(test)]
    pub(super) fn write(&mut self, descriptor: &libc::xdp_desc, bytes: &[u8]) {
        assert_eq!(self.bytes(descriptor).map(<[u8]>::len), Some(bytes.len()));
        // SAFETY: `bytes` found the range inside the mapping; `&mut self` says that nobody borrows from it.
        unsafe {
            let to = self.memory.start().as_ptr().add(descriptor.addr as usize);
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    /// Notes that the kernel gave this descriptor's frame to us. Returns the frame's address, or `None` for one that
    /// lies outside the UMEM.
    #[inline]
    pub(super) fn received(&mut self, address: u64) -> Option<u64> {
        let frame = address & FRAME_MASK;
        if frame >= self.memory.len() as u64 {
            return None;
        }
        #[cfg(debug_assertions)]
        {
            let owned = &mut self.kernel_owns[(frame / u64::from(FRAME_BYTES)) as usize];
            assert!(std::mem::replace(owned, false), "frame at {frame:#x} received twice");
        }
        self.with_kernel -= 1;
        Some(frame)
    }

    /// Notes that these frames are on the fill ring now.
    #[inline]
    pub(super) fn handed_over(&mut self, frames: &[u64]) {
        #[cfg(debug_assertions)]
        for frame in frames {
            let owned = &mut self.kernel_owns[(frame / u64::from(FRAME_BYTES)) as usize];
            assert!(!std::mem::replace(owned, true), "frame at {frame:#x} given to the kernel twice");
        }
        self.with_kernel += frames.len() as u32;
    }

    /// Keeps frames for which the fill ring had no room.
    #[inline]
    pub(super) fn keep(&mut self, frames: &[u64]) {
        self.free.extend_from_slice(frames);
    }

    /// Takes up to `count` free frames.
    #[inline]
    pub(super) fn take_free(&mut self, count: usize) -> std::vec::Drain<'_, u64> {
        let rest = self.free.len().saturating_sub(count);
        self.free.drain(rest..)
    }

    /// Free frames.
    #[inline]
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Counts the frames, given what is in the two rings; meaningful between receive passes.
    pub(super) fn census(&self, fill: u32, rx: u32) -> FrameCensus {
        FrameCensus {
            free: self.free.len() as u32,
            fill,
            rx,
            in_kernel: self.with_kernel.saturating_sub(fill + rx),
            total: self.frames,
        }
    }

    /// True when every frame is accounted for: all free ones and all with the kernel make the total.
    pub(super) fn conserved(&self) -> bool {
        self.free.len() as u32 + self.with_kernel == self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(addr: u64, len: u32) -> libc::xdp_desc {
        libc::xdp_desc { addr, len, options: 0 }
    }

    #[test]
    fn descriptors_outside_a_frame_have_no_bytes() {
        let u = Umem::new(4, None).unwrap();
        assert_eq!(u.bytes(&descriptor(256, 1500)).unwrap().len(), 1500);
        assert_eq!(u.bytes(&descriptor(3 * 2048 + 256, 1792)).unwrap().len(), 1792);
        for (addr, len) in
            [(256, 1793), (4 * 2048, 1), (3 * 2048, 2049), (u64::MAX, 1), (u64::MAX - 4096, 8), (0, u32::MAX)]
        {
            assert!(u.bytes(&descriptor(addr, len)).is_none(), "{addr} {len}");
        }
    }

    #[test]
    fn frames_are_conserved() {
        let mut u = Umem::new(4, None).unwrap();
        let mut taken: Vec<u64> = u.take_free(3).collect();
        taken.sort_unstable();
        assert_eq!((taken.as_slice(), u.free()), (&[0, 2048, 4096][..], 1));
        assert!(!u.conserved());
        u.handed_over(&taken);
        assert!(u.conserved());
        assert_eq!(u.census(2, 1), FrameCensus { free: 1, fill: 2, rx: 1, in_kernel: 0, total: 4 });
        assert_eq!(u.received(2048 + 256), Some(2048));
        u.keep(&[2048]);
        assert!(u.conserved());
        assert_eq!(u.census(1, 0).in_kernel, 1);
        assert_eq!(u.received(4 * 2048), None);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "received twice")]
    fn a_frame_received_twice_is_noticed() {
        let mut u = Umem::new(2, None).unwrap();
        let taken: Vec<u64> = u.take_free(1).collect();
        u.handed_over(&taken);
        u.received(taken[0]);
        u.received(taken[0]);
    }
}
