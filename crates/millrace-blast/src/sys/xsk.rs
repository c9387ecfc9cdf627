//! An AF_XDP socket that only sends, in copy mode: UMEM, tx ring, completion ring, and a fill ring because bind(2)
//! wants one. No XDP program is needed to send.

use std::{
    io, mem,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering},
};

use super::socket::{bind, set_option, socket};

/// Memory shared with the kernel.
struct Area {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for Area {}

impl Area {
    fn map(len: usize, fd: Option<(RawFd, i64)>) -> io::Result<Self> {
        let (flags, fd, offset) = match fd {
            Some((fd, offset)) => (libc::MAP_SHARED, fd, offset),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
        };
        // SAFETY: a fresh mapping at an address that the kernel chooses overlaps no memory in use.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags | libc::MAP_POPULATE,
                fd,
                offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Area { base, len })
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: this is exactly the mapping made in `map`, and no pointer into it is used after the value that owns it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// One ring: indices shared with the kernel, entries of `T`.
struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    entries: NonNull<T>,
    mask: u32,
    _area: Area,
}

// SAFETY: the pointers reach only into `_area`, which moves along and is owned by this value alone.
unsafe impl<T> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    fn map(fd: RawFd, size: u32, offsets: libc::xdp_ring_offset, page: i64) -> io::Result<Self> {
        let area = Area::map(offsets.desc as usize + size as usize * mem::size_of::<T>(), Some((fd, page)))?;
        // SAFETY: the offsets came from XDP_MMAP_OFFSETS for this socket, lie inside the area just mapped for `size`
        // entries, and the kernel aligns the indices and the entries to a cache line.
        unsafe {
            Ok(Ring {
                producer: area.base.add(offsets.producer as usize).cast(),
                consumer: area.base.add(offsets.consumer as usize).cast(),
                entries: area.base.add(offsets.desc as usize).cast(),
                mask: size - 1,
                _area: area,
            })
        }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: an aligned u32 inside the mapping, which lives as long as `self`; the kernel changes it atomically.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn entry(&self, index: u32) -> *mut T {
        // SAFETY: the mask keeps the index below the number of entries mapped.
        unsafe { self.entries.as_ptr().add((index & self.mask) as usize) }
    }
}

/// The socket and everything it shares with the kernel. Field order is drop order: the socket first.
pub(crate) struct Xsk {
    fd: OwnedFd,
    tx: Ring<libc::xdp_desc>,
    completion: Ring<u64>,
    umem: Area,
    chunk: usize,
    /// Addresses of chunks the kernel does not hold.
    free: Vec<u64>,
    /// Our producer index; the shared one lags until `publish`.
    produced: u32,
}

impl Xsk {
    /// A socket on one queue of an interface with `size` (a power of two) frames of up to `chunk` bytes.
    pub(crate) fn open(ifindex: u32, queue: u32, size: u32, chunk: usize) -> io::Result<Self> {
        let fd = socket(libc::AF_XDP, libc::SOCK_RAW, 0)?;
        let raw = fd.as_raw_fd();
        let umem = Area::map(size as usize * chunk, None)?;
        let reg = libc::xdp_umem_reg {
            addr: umem.base.as_ptr() as u64,
            len: umem.len as u64,
            chunk_size: chunk as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set_option(raw, libc::SOL_XDP, libc::XDP_UMEM_REG, &reg)?;
        let entries = size as i32;
        set_option(raw, libc::SOL_XDP, libc::XDP_UMEM_FILL_RING, &1)?;
        set_option(raw, libc::SOL_XDP, libc::XDP_UMEM_COMPLETION_RING, &entries)?;
        set_option(raw, libc::SOL_XDP, libc::XDP_TX_RING, &entries)?;
        let offsets = mmap_offsets(raw)?;
        let tx = Ring::map(raw, size, offsets.tx, libc::XDP_PGOFF_TX_RING)?;
        let completion = Ring::map(raw, size, offsets.cr, libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64)?;
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: libc::XDP_COPY,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        bind(raw, &address)?;
        let free = (0..u64::from(size)).rev().map(|i| i * chunk as u64).collect();
        Ok(Xsk { fd, tx, completion, umem, chunk, free, produced: 0 })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Takes back the chunks the kernel is done with; how many are free now.
    pub(crate) fn reclaim(&mut self) -> usize {
        let ring = &self.completion;
        // Acquire: entries written before the kernel moved its index are visible. Relaxed: the consumer index is ours.
        let (end, mut at) =
            (ring.producer().load(Ordering::Acquire), ring.consumer().load(Ordering::Relaxed));
        while at != end {
            // SAFETY: entries between consumer and producer were written by the kernel and stay until we move on.
            self.free.push(unsafe { ring.entry(at).read_volatile() });
            at = at.wrapping_add(1);
        }
        // Release: our reads happen before the kernel may reuse the entries.
        ring.consumer().store(at, Ordering::Release);
        self.free.len()
    }

    /// Puts one frame of `len` bytes, written by `write`, on the tx ring. False when no chunk is free.
    #[inline]
    pub(crate) fn enqueue(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> bool {
        assert!(len <= self.chunk);
        let Some(address) = self.free.pop() else { return false };
        debug_assert!(address as usize + self.chunk <= self.umem.len);
        // SAFETY: `address` is the start of a chunk inside the area, `len` is at most a chunk. The chunk is on our free
        // list, so the kernel does not read it, and no other slice into it exists: `write` returns before the next one.
        write(unsafe { std::slice::from_raw_parts_mut(self.umem.base.as_ptr().add(address as usize), len) });
        let desc = libc::xdp_desc { addr: address, len: len as u32, options: 0 };
        // SAFETY: as many ring entries exist as chunks, and each entry in flight holds one, so this entry is free. The
        // kernel reads it only after `publish`.
        unsafe { self.tx.entry(self.produced).write_volatile(desc) };
        self.produced = self.produced.wrapping_add(1);
        true
    }

    /// Shows the frames put so far to the kernel.
    pub(crate) fn publish(&self) {
        // Release: descriptors and frame bytes before the index.
        self.tx.producer().store(self.produced, Ordering::Release);
    }

    /// Published frames the kernel has not taken yet.
    pub(crate) fn pending(&self) -> u32 {
        self.produced.wrapping_sub(self.tx.consumer().load(Ordering::Acquire))
    }

    /// Makes the kernel send; it takes about 32 frames a call.
    pub(crate) fn kick(&self) -> io::Result<()> {
        // SAFETY: no buffer, no address.
        let n =
            unsafe { libc::sendto(self.fd.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn mmap_offsets(fd: RawFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: integers only; all-zero is valid.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { mem::zeroed() };
    let mut len = mem::size_of_val(&offsets) as libc::socklen_t;
    // SAFETY: pointer and length describe `offsets`; the kernel writes at most `len` bytes.
    let rc = unsafe {
        libc::getsockopt(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, (&raw mut offsets).cast(), &raw mut len)
    };
    match rc {
        0 if len as usize == mem::size_of_val(&offsets) => Ok(offsets),
        // Linux before 5.4 answers with a shorter structure.
        0 => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        _ => Err(io::Error::last_os_error()),
    }
}
