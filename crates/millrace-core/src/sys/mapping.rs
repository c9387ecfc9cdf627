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
/// Nodes a kernel can have (CONFIG_NODES_SHIFT is at most 10).
const MOST_NODES: usize = 1024;
/// Bits of a word of mbind's mask (C `unsigned long`).
const WORD_BITS: usize = libc::c_ulong::BITS as usize;
/// The smallest page of any architecture: touching one byte in each touches every page.
const SMALL_PAGE: usize = 4096;

// SAFETY: a mapping belongs to the process, not to a thread; the type itself reads and writes nothing.
unsafe impl Send for Mapping {}
// SAFETY: as above: a shared reference gives only the address and the length.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed private memory, populated at once so that no page fault comes later. `node` is a wish: see
    /// [`super::numa`].
    ///
    /// # Errors
    /// mmap's and madvise's errno.
    pub fn anonymous(len: usize, node: Option<u32>) -> io::Result<Self> {
        let map = Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)?;
        map.prefer(node);
        map.not_for_children();
        match map.populate() {
            // Linux before 5.14. Ordinary memory is there when it is touched: what is short ends in the OOM killer.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => map.touch(),
            populated => populated?,
        }
        Ok(map)
    }

    /// As [`Mapping::anonymous`], on 2 MiB pages when the length is a multiple of them, the host has some reserved
    /// (`vm.nr_hugepages`; in a pod also the resource `hugepages-2Mi`) and this process may have them.
    ///
    /// mmap(2) promises huge pages that the first touch may not get: a cgroup's limit (`hugetlb.2MB.max`) or a NUMA
    /// policy without a page left ends in SIGBUS, and MAP_POPULATE fails without a word. MADV_POPULATE_WRITE (Linux
    /// 5.14, madvise(2)) reports it; a kernel without it gets ordinary pages.
    ///
    /// # Errors
    /// As [`Mapping::anonymous`].
    pub fn anonymous_on_huge_pages(len: usize, node: Option<u32>) -> io::Result<Self> {
        Self::huge_or_not(len, node, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB)
    }

    fn huge_or_not(len: usize, node: Option<u32>, huge: i32) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | huge;
        if len.is_multiple_of(HUGE_PAGE)
            && let Ok(mut map) = Self::map(len, flags, -1, 0)
        {
            map.prefer(node);
            map.not_for_children();
            if map.populate().is_ok() {
                map.huge = true;
                return Ok(map);
            }
        }
        Self::anonymous(len, node)
    }

    /// Part of a descriptor (a ring of an AF_XDP socket), shared with the kernel.
    ///
    /// # Errors
    /// mmap's errno.
    pub fn shared(fd: BorrowedFd<'_>, len: usize, offset: u64) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    fn map(len: usize, flags: i32, fd: i32, offset: u64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
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

    /// Faults every page in, writable, or says why one cannot be had.
    fn populate(&self) -> io::Result<()> {
        // SAFETY: exactly our mapping; the call changes which pages are there and not what is in them.
        let rc = unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_POPULATE_WRITE) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Writes a zero to every page of a fresh mapping. For ordinary pages only: a huge one might not be there.
    fn touch(&self) {
        for at in (0..self.len).step_by(SMALL_PAGE) {
            // SAFETY: inside our mapping, fresh and so all zero already, and nobody else has its address yet.
            unsafe { self.start.as_ptr().add(at).write_volatile(0) };
        }
    }

    /// Before the first touch. Where it is refused the memory lies where the kernel puts it, and [`numa::refused`] says
    /// so, once for all mappings.
    fn prefer(&self, node: Option<u32>) {
        if let Some(node) = node {
            let _ = self.prefer_node(node);
        }
    }

    /// Prefers `node` for pages that are not there yet (mbind(2)).
    ///
    /// # Errors
    /// mbind's errno.
    pub(crate) fn prefer_node(&self, node: u32) -> io::Result<()> {
        let mut mask: [libc::c_ulong; MOST_NODES / WORD_BITS] = [0; MOST_NODES / WORD_BITS];
        let word = mask.get_mut(node as usize / WORD_BITS).ok_or(io::ErrorKind::InvalidInput)?;
        *word = 1 << (node as usize % WORD_BITS);
        // SAFETY: the range is exactly the mapping; the mask outlives the call, which only reads it, and holds MOST_NODES
        // bits. The kernel takes one less than `maxnode` says.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.start.as_ptr(),
                self.len,
                libc::MPOL_PREFERRED as libc::c_ulong,
                mask.as_ptr(),
                MOST_NODES as libc::c_ulong + 1,
                0,
            )
        };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Leaves the memory out of children (MADV_DONTFORK, madvise(2)). The kernel holds its pages for DMA, and such pages
    /// fork(2) copies one by one at once: tens of milliseconds for a hundred megabytes, in which all threads that touch
    /// memory wait. Where it is refused, forking is slow.
    fn not_for_children(&self) {
        // SAFETY: exactly our mapping, and only a child of fork(2) finds nothing there; no child uses it: what runs
        // between fork and execve knows no mapping of ours.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_DONTFORK) };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `VmFlags` of the mapping (proc(5), smaps).
    fn flags(map: &Mapping) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (start, end) = (map.start().as_ptr() as usize, map.start().as_ptr() as usize + map.len());
        let range = |line: &str| -> Option<(usize, usize)> {
            let (from, to) = line.split(' ').next()?.split_once('-')?;
            Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
        };
        let mut lines = smaps.lines();
        let holds = |line: &str| range(line).is_some_and(|(from, to)| from <= start && end <= to);
        assert!(lines.any(holds), "{start:#x}-{end:#x} in {smaps}");
        lines.find_map(|line| line.strip_prefix("VmFlags:")).unwrap().to_owned()
    }

    #[test]
    fn packet_memory_is_not_copied_to_children() {
        let map = Mapping::anonymous_on_huge_pages(HUGE_PAGE, None).unwrap();
        assert!(flags(&map).split(' ').any(|flag| flag == "dc"), "{}", flags(&map));
        let plain = Mapping::map(HUGE_PAGE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0).unwrap();
        assert!(!flags(&plain).split(' ').any(|flag| flag == "dc"), "what it would be otherwise");
    }

    #[test]
    fn the_kernel_keeps_the_preference() {
        let map = Mapping::anonymous(1 << 20, Some(0)).unwrap();
        let (mut mode, mut mask) = (-1i32, [0 as libc::c_ulong; MOST_NODES / WORD_BITS]);
        // MPOL_F_ADDR: the policy of the mapping that holds this address (get_mempolicy(2)).
        const MPOL_F_ADDR: libc::c_ulong = 2;
        // SAFETY: mode and mask are writable and alive through the call, the mask has MOST_NODES bits; the address is
        // inside the mapping.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut mode,
                mask.as_mut_ptr(),
                MOST_NODES as libc::c_ulong,
                map.start().as_ptr(),
                MPOL_F_ADDR,
            )
        };
        if rc < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
            return crate::testing::skip("this kernel has no memory policies (CONFIG_NUMA)");
        }
        assert_eq!(rc, 0, "get_mempolicy: {}", io::Error::last_os_error());
        assert_eq!((mode, mask[0]), (libc::MPOL_PREFERRED, 1));
        assert!(map.prefer_node(0).is_ok());
        assert!(map.prefer_node(1 << 20).is_err(), "no such node");
    }

    /// Huge pages nobody promised: without MAP_NORESERVE mmap itself would refuse, and what this shows would need a
    /// cgroup with a limit.
    const UNPROMISED: i32 = libc::MAP_HUGETLB | libc::MAP_HUGE_2MB | libc::MAP_NORESERVE;

    const MADE_ON_DEMAND: &str = "this host makes huge pages on demand (vm.nr_overcommit_hugepages)";

    /// More bytes than this host has huge pages for, or None where it makes them on demand.
    fn too_many() -> Option<usize> {
        let read = |file| std::fs::read_to_string(format!("/proc/sys/vm/{file}")).unwrap_or_default();
        let pages: usize = read("nr_hugepages").trim().parse().unwrap_or(0);
        (read("nr_overcommit_hugepages").trim() == "0").then_some((pages + 8) * HUGE_PAGE)
    }

    #[test]
    fn huge_pages_that_are_not_there_are_an_error_and_not_a_sigbus() {
        let Some(len) = too_many() else { return crate::testing::skip(MADE_ON_DEMAND) };
        let map = Mapping::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | UNPROMISED, -1, 0).unwrap();
        assert!(map.populate().is_err(), "{len} bytes of huge pages");
    }

    #[test]
    fn ordinary_pages_take_their_place_and_every_byte_can_be_used() {
        let Some(len) = too_many() else { return crate::testing::skip(MADE_ON_DEMAND) };
        let map = Mapping::huge_or_not(len, None, UNPROMISED).unwrap();
        assert!(!map.huge());
        map.touch();
        for at in (0..len).step_by(SMALL_PAGE) {
            // SAFETY: inside the mapping, which nobody else has.
            assert_eq!(unsafe { map.start().as_ptr().add(at).read_volatile() }, 0);
        }
    }
}
