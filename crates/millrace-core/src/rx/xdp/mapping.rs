//! mmap(2)ed memory, unmapped on drop.

use std::{io, os::fd::AsRawFd, os::fd::BorrowedFd, ptr, ptr::NonNull};

/// A readable and writable mapping. Gives out raw pointers only: the kernel writes to it as well.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
    huge: bool,
}

/// Bytes of the huge pages asked for, on every architecture we know.
const HUGE_PAGE: usize = 2 << 20;

// SAFETY: a mapping belongs to the process, not to a thread; the type itself reads and writes nothing.
unsafe impl Send for Mapping {}
// SAFETY: as above: a shared reference gives only the address and the length.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed private memory, populated at once so that no page fault comes later.
    ///
    /// # Errors
    /// mmap's errno.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    /// As [`Mapping::anonymous`], on 2 MiB pages when the length is a multiple of them and the host has some reserved
    /// (`vm.nr_hugepages`; in a pod also the resource `hugepages-2Mi`).
    ///
    /// # Errors
    /// mmap's errno.
    pub fn anonymous_on_huge_pages(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        if len.is_multiple_of(HUGE_PAGE)
            && let Ok(mut map) = Self::map(len, flags | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB, -1, 0)
        {
            map.huge = true;
            return Ok(map);
        }
        Self::anonymous(len)
    }

    /// Part of a descriptor (a ring of an AF_XDP socket), shared with the kernel.
    ///
    /// # Errors
    /// mmap's errno.
    pub fn shared(fd: BorrowedFd<'_>, len: usize, offset: u64) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED, fd.as_raw_fd(), offset)
    }

    fn map(len: usize, flags: i32, fd: i32, offset: u64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = flags | libc::MAP_POPULATE;
        // SAFETY: a null hint lets the kernel choose fresh addresses, so no memory in use is replaced; the result is
        // checked before it is used.
        let start = unsafe { libc::mmap64(ptr::null_mut(), len, protection, flags, fd, offset as i64) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => {
                Ok(Mapping { start, len, huge: false })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// True when it is on huge pages.
    pub fn huge(&self) -> bool {
        self.huge
    }

    /// First byte; page aligned.
    #[inline]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: mmap refuses a length of zero.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range mmap returned, unmapped once; whoever derived pointers from it holds an Arc of it
        // or owns it, so none is used afterwards.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
