//! UMEM (af_xdp.rst, "UMEM"): the packet memory of one AF_XDP socket, divided into frames of equal size.
//!
//! Ownership of a frame is a value. [`Frame`] is a frame that user space owns, [`RxDescriptor`] one that came by the rx ring
//! and whose data may be read; a frame of the kernel (on the fill ring, in a driver's hands, on the rx ring) has no value.
//! Neither type can be copied, so a frame cannot be given to the kernel twice and is not read after it was given, as long as
//! each descriptor is used with the UMEM of its ring and the kernel keeps the promise that `Umem::reclaim` names:
//!
//! ```text
//!   Frame ── Umem::give_back, Umem::top_up ──► fill ring ──► kernel ──► rx ring
//!     ▲                                                                   │ ConsumerRing::consume
//!     └───────────────────── Umem::reclaim ◄───────────────────── RxDescriptor
//! ```
//!
//! `reclaim` consists of `RxDescriptor::into_frame` and of counting. The counting loop for benches (`counting.rs`) calls
//! `into_frame` alone; it reads no data.

use std::{io, ops::Add, slice};

use super::ring::ProducerRing;
use crate::error::{Code, Error, Result};
use crate::sys::mapping::Mapping;

/// Bytes of a frame (`chunk_size` of `struct xdp_umem_reg`). The kernel requires a power of two between 2,048 and the page
/// size. Larger frames would take more memory for the same number of datagrams; smaller ones are refused.
pub const FRAME_BYTES: u32 = 2048;
/// Bytes the kernel keeps free in front of the data (`XDP_PACKET_HEADROOM`); the rest is room for the Ethernet frame.
pub const KERNEL_HEADROOM: u32 = 256;

/// Masks an address in the UMEM down to the start of its frame.
const FRAME_MASK: u64 = !(FRAME_BYTES as u64 - 1);

/// A frame that user space owns, by the offset of its first byte in the UMEM. It is the entry of the fill ring as well.
#[derive(Debug, PartialEq, Eq)]
#[repr(transparent)]
#[must_use = "a frame that is dropped is never given back to the kernel"]
pub(super) struct Frame(u64);

#[cfg(test)]
impl Frame {
    /// The frame at an offset in the UMEM.
    pub(super) fn at(address: u64) -> Self {
        Frame(address)
    }
}

/// A descriptor of the rx ring (`struct xdp_desc`), and with it the ownership of its frame. The kernel filled it in, so
/// that [`Umem`] verifies its address and length before it reads anything.
#[derive(Debug)]
#[repr(transparent)]
#[must_use = "the frame of a descriptor that is dropped is never given back to the kernel"]
pub(super) struct RxDescriptor(libc::xdp_desc);

impl RxDescriptor {
    /// True when the packet continues in the next descriptor (XDP_PKT_CONTD, Linux 6.6).
    #[inline]
    pub(super) fn is_continued(&self) -> bool {
        self.0.options & libc::XDP_PKT_CONTD != 0
    }

    /// Offset of the data in the UMEM.
    pub(super) fn address(&self) -> u64 {
        self.0.addr
    }

    /// Turns the descriptor into the [`Frame`] that holds its data, without counting it in a [`Umem`].
    #[inline]
    pub(super) fn into_frame(self) -> Frame {
        Frame(self.0.addr & FRAME_MASK)
    }

    /// The descriptor that the kernel would produce.
    #[cfg(test)]
    pub(super) fn new(addr: u64, len: u32, options: u32) -> Self {
        RxDescriptor(libc::xdp_desc { addr, len, options })
    }
}

/// Packet memory, and the frames of it that are free.
#[derive(Debug)]
pub struct Umem {
    memory: Mapping,
    frames: u32,
    /// Frames for which the fill ring has had no room yet.
    free: Vec<Frame>,
    /// Frames given to the kernel and not reclaimed yet. It is never below the number of frames that the kernel can still
    /// deliver, see [`Umem::reclaim`].
    with_kernel: u32,
    /// The owner of every single frame, in debug builds: true is the kernel.
    #[cfg(debug_assertions)]
    kernel_owns: Vec<bool>,
}

/// Where the frames are. `free + fill + rx + in_kernel = total`: `in_kernel` are frames the kernel took from the fill
/// ring and has not put on the rx ring (it keeps one back when the rx ring is full; zero-copy drivers hold many).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCensus {
    /// Frames of user space, for want of room on the fill ring.
    pub free: u32,
    /// Frames on the fill ring.
    pub fill: u32,
    /// Frames on the rx ring.
    pub rx: u32,
    /// Frames of the kernel that are on neither ring.
    pub in_kernel: u32,
    /// All frames.
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
        // Taken from the end, so that the lowest addresses go first.
        let free = (0..frames).rev().map(|i| Frame(u64::from(i) * u64::from(FRAME_BYTES))).collect();
        Ok(Umem {
            memory,
            frames,
            free,
            with_kernel: 0,
            #[cfg(debug_assertions)]
            kernel_owns: vec![false; frames as usize],
        })
    }

    /// True when the memory is on huge pages: user space and the copying kernel then have fewer TLB misses.
    pub(super) fn is_on_huge_pages(&self) -> bool {
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

    /// The error for an XDP_UMEM_REG that the kernel refused.
    pub(super) fn registration_error(&self, e: io::Error) -> Error {
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

    /// True when the descriptor's frame is a frame of this UMEM.
    #[inline]
    pub(super) fn contains(&self, descriptor: &RxDescriptor) -> bool {
        descriptor.0.addr & FRAME_MASK < self.memory.len() as u64
    }

    /// The data of a received descriptor, or `None` when it does not lie inside one frame of this UMEM. The descriptor must
    /// come from the rx ring of the socket that this UMEM is registered with.
    #[inline]
    pub(super) fn bytes<'a>(&'a self, descriptor: &'a RxDescriptor) -> Option<&'a [u8]> {
        let (start, len) = (descriptor.0.addr, u64::from(descriptor.0.len));
        let frame_end = (start & FRAME_MASK).checked_add(u64::from(FRAME_BYTES))?;
        if start.checked_add(len)? > frame_end || frame_end > self.memory.len() as u64 {
            return None;
        }
        // SAFETY: the range was compared above with the mapping, which `self` keeps; anonymous memory is zero until it is
        // written, so all bytes are initialised. Nothing writes to them while the borrow lives, given two premises:
        //
        // 1. The descriptor came from the rx ring of the socket that this UMEM is registered with. `RxQueue` has one socket and
        //    one UMEM, and passes descriptors of the one to the other only.
        // 2. The kernel writes to a frame only between taking it off the fill ring and putting it on the rx ring, and it
        //    produces at most one descriptor for each frame that it took.
        //
        // So the frame has left the kernel, for its descriptor exists, and it cannot return while the borrow lives: only a
        // `Frame` goes on the fill ring, and `into_frame`, which `reclaim` calls as well, takes the descriptor by value.
        // If a premise were wrong, the kernel could write to these bytes while they are read, which is a data race; the
        // slice would still lie inside the mapping.
        Some(unsafe { slice::from_raw_parts(self.memory.start().as_ptr().add(start as usize), len as usize) })
    }

    /// Takes a received frame out of the kernel's share, after its data was read. The descriptor must be one that
    /// [`Umem::contains`], from the rx ring of the socket that this UMEM is registered with.
    ///
    /// Why `with_kernel` cannot underflow: it is the number of frames handed over minus the number reclaimed, and each
    /// reclaim has a handing over before it.
    ///
    /// - A frame gets on the fill ring after [`Umem::hand_over`] only, which counts it before it is published.
    /// - The kernel produces at most one descriptor for each frame that it took off the fill ring (`__xsk_rcv` and the
    ///   zero-copy drivers allocate from the fill ring and produce what they allocated).
    /// - A descriptor is consumed once, because [`super::ring::ConsumerRing::consume`] advances, and reclaimed at most once,
    ///   because it is moved. One whose address lies outside the UMEM is not reclaimed at all: then the count stays high.
    ///
    /// The second point is the kernel's promise. Were it broken, debug builds panic here, for they know the owner of each
    /// frame. A release build would put the same frame on the fill ring twice: the kernel could write a packet to it while
    /// [`Umem::bytes`] lends out the data of another one, so that a datagram may hold bytes of both, and [`FrameCensus`] would
    /// be wrong. No access would leave the UMEM, because addresses are verified and no access depends on the count.
    #[inline]
    pub(super) fn reclaim(&mut self, descriptor: RxDescriptor) -> Frame {
        let frame = descriptor.into_frame();
        #[cfg(debug_assertions)]
        {
            let owned = &mut self.kernel_owns[(frame.0 / u64::from(FRAME_BYTES)) as usize];
            assert!(std::mem::replace(owned, false), "frame at {:#x} received twice", frame.0);
        }
        self.with_kernel -= 1;
        frame
    }

    /// Puts frames on the fill ring as far as it has room. Those that do not fit become free; `frames` is empty afterwards.
    #[inline]
    pub(super) fn give_back(&mut self, fill: &mut ProducerRing<Frame>, frames: &mut Vec<Frame>) {
        let wanted = frames.len() as u32;
        let count = fill.room(wanted).min(wanted) as usize;
        self.hand_over(&frames[..count]);
        fill.push(frames.drain(..count));
        self.free.append(frames);
    }

    /// Puts free frames on the fill ring as far as it has room.
    pub(super) fn top_up(&mut self, fill: &mut ProducerRing<Frame>) {
        let wanted = self.free.len() as u32;
        let kept = (wanted - fill.room(wanted).min(wanted)) as usize;
        if kept == self.free.len() {
            return;
        }
        // `hand_over` borrows all of `self`: the list is put back below.
        let mut free = std::mem::take(&mut self.free);
        self.hand_over(&free[kept..]);
        fill.push(free.drain(kept..));
        self.free = free;
    }

    /// Counts frames as the kernel's. Called before they are published, so that the count is never too low.
    #[inline]
    fn hand_over(&mut self, frames: &[Frame]) {
        #[cfg(debug_assertions)]
        for frame in frames {
            let owned = &mut self.kernel_owns[(frame.0 / u64::from(FRAME_BYTES)) as usize];
            assert!(!std::mem::replace(owned, true), "frame at {:#x} given to the kernel twice", frame.0);
        }
        self.with_kernel += frames.len() as u32;
    }

    /// Number of free frames.
    #[inline]
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Counts the frames, given how many the two rings show; meaningful between receive passes. While traffic flows a frame
    /// may be seen on both rings, because the kernel publishes the rx ring's producer before the fill ring's consumer
    /// (`xsk_flush`): then the rings together show more than the kernel has, and `in_kernel` is 0.
    pub(super) fn census(&self, fill: u32, rx: u32) -> FrameCensus {
        FrameCensus {
            free: self.free.len() as u32,
            fill,
            rx,
            in_kernel: self.with_kernel.saturating_sub(fill + rx),
            total: self.frames,
        }
    }

    /// True when the free frames and those of the kernel make the total: between passes user space holds no other frame.
    pub(super) fn is_conserved(&self) -> bool {
        self.free.len() as u32 + self.with_kernel == self.frames
    }
}

/// The kernel's part, without rings.
#[cfg(test)]
impl Umem {
    /// The kernel takes `count` free frames. Returns their addresses.
    pub(super) fn take_as_kernel(&mut self, count: usize) -> Vec<u64> {
        let taken = self.free.split_off(self.free.len() - count);
        self.hand_over(&taken);
        taken.into_iter().map(|frame| frame.0).collect()
    }

    /// Frees frames without a fill ring.
    pub(super) fn keep(&mut self, mut frames: Vec<Frame>) {
        self.free.append(&mut frames);
    }

    /// Writes a descriptor's data.
    pub(super) fn write(&mut self, descriptor: &RxDescriptor, bytes: &[u8]) {
        assert_eq!(self.bytes(descriptor).map(<[u8]>::len), Some(bytes.len()));
        // SAFETY: `bytes` found the range inside the mapping, and `&mut self` excludes every borrow of it.
        unsafe {
            let to = self.memory.start().as_ptr().add(descriptor.0.addr as usize);
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither kind of token can be copied: each `f` is ambiguous, and does not compile, as soon as its type is `Clone`.
    const _: fn() = || {
        trait NotClone<A> {
            fn f() {}
        }
        impl<T> NotClone<()> for T {}
        struct IsClone;
        impl<T: Clone> NotClone<IsClone> for T {}
        let _ = (<Frame as NotClone<_>>::f, <RxDescriptor as NotClone<_>>::f);
    };

    #[test]
    fn tokens_cost_nothing() {
        assert_eq!(size_of::<Frame>(), size_of::<u64>());
        assert_eq!(size_of::<RxDescriptor>(), size_of::<libc::xdp_desc>());
        assert!(!std::mem::needs_drop::<Frame>() && !std::mem::needs_drop::<RxDescriptor>());
    }

    #[test]
    fn descriptors_outside_a_frame_have_no_bytes() {
        let u = Umem::new(4, None).unwrap();
        let descriptor = |addr, len| RxDescriptor::new(addr, len, 0);
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
        let mut taken = u.take_as_kernel(3);
        taken.sort_unstable();
        assert_eq!((taken.as_slice(), u.free()), (&[0, 2048, 4096][..], 1));
        assert!(u.is_conserved());
        assert_eq!(u.census(2, 1), FrameCensus { free: 1, fill: 2, rx: 1, in_kernel: 0, total: 4 });
        let received = u.reclaim(RxDescriptor::new(2048 + 256, 60, 0));
        assert_eq!(received, Frame(2048));
        assert!(!u.is_conserved(), "one is in a pass");
        u.keep(vec![received]);
        assert!(u.is_conserved());
        assert_eq!(u.census(1, 0).in_kernel, 1);
        assert!(!u.contains(&RxDescriptor::new(4 * 2048, 0, 0)) && u.contains(&RxDescriptor::new(0, 0, 0)));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "received twice")]
    fn a_frame_received_twice_is_noticed() {
        let mut u = Umem::new(2, None).unwrap();
        let taken = u.take_as_kernel(1);
        let _ = u.reclaim(RxDescriptor::new(taken[0], 60, 0));
        let _ = u.reclaim(RxDescriptor::new(taken[0], 60, 0));
    }
}
