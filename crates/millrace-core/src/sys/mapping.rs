//! mmap(2): every mapping of the crate, unmapped on drop, and the loop that requests less memory when there is not enough.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
};

/// A readable and writable mapping. It gives out raw pointers only, because the kernel writes to the memory as well.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
    huge: bool,
}

/// Bytes of the huge pages requested (MAP_HUGE_2MB). Every architecture this crate is built for has them.
const HUGE_PAGE: usize = 2 << 20;
/// Bits of the node mask given to mbind(2). A kernel has at most so many nodes (CONFIG_NODES_SHIFT is at most 10).
const MAX_NODES: usize = 1024;
/// Bits of a word of that mask (C `unsigned long`).
const WORD_BITS: usize = libc::c_ulong::BITS as usize;
/// The smallest page of any architecture: a write to one byte in each touches every page.
const SMALL_PAGE: usize = 4096;

// SAFETY: a mapping belongs to the process and not to a thread; what a `Mapping` in use gives out is raw pointers.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives out only the address and the length, which do not change.
unsafe impl Sync for Mapping {}

/// Calls `allocate` with `start` and, as long as it fails with ENOMEM, with half as many, down to `min`. Returns what
/// `allocate` returned last.
///
/// For memory that the kernel allocates in one piece or pins (the rings of packet(7), packet_mmap.rst): with less of it a
/// service drops more under load, without any it does not start.
///
/// # Errors
/// Those of `allocate`: ENOMEM only when `min` cannot be had either.
pub fn halve_on_enomem<T>(
    start: u32,
    min: u32,
    mut allocate: impl FnMut(u32) -> io::Result<T>,
) -> io::Result<T> {
    let mut count = start;
    loop {
        match allocate(count) {
            Err(e) if e.raw_os_error() == Some(libc::ENOMEM) && count > min => count = (count / 2).max(min),
            result => return result,
        }
    }
}

impl Mapping {
    /// Zeroed private memory, populated at once so that no page fault comes later. With `node` its pages are preferably of
    /// that NUMA node; where mbind(2) is refused they are of whichever node the kernel chooses. The memory is not inherited
    /// by child processes.
    ///
    /// # Errors
    /// The errno of mmap(2) or madvise(2).
    pub fn anonymous(len: usize, node: Option<u32>) -> io::Result<Self> {
        let map = Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)?;
        map.prepare(node);
        match map.populate() {
            // Linux before 5.14 does not know MADV_POPULATE_WRITE. Ordinary pages exist as soon as they are written to; a
            // host that has none left kills a process instead of returning an error.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => map.touch(),
            populated => populated?,
        }
        Ok(map)
    }

    /// Maps memory as [`Mapping::anonymous`] does, on 2 MiB pages when the length is a multiple of them, the host has reserved
    /// some (`vm.nr_hugepages`; in a pod also the resource `hugepages-2Mi`) and this process may have them.
    ///
    /// mmap(2) promises huge pages that the first touch may not get: a cgroup's limit (`hugetlb.2MB.max`) or a NUMA
    /// policy without a page left ends in SIGBUS, and MAP_POPULATE does not report it. MADV_POPULATE_WRITE (Linux
    /// 5.14, madvise(2)) does; a kernel without it gets ordinary pages.
    ///
    /// # Errors
    /// Those of [`Mapping::anonymous`].
    pub fn anonymous_on_huge_pages(len: usize, node: Option<u32>) -> io::Result<Self> {
        Self::huge_or_ordinary(len, node, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB)
    }

    fn huge_or_ordinary(len: usize, node: Option<u32>, huge: i32) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | huge;
        if len.is_multiple_of(HUGE_PAGE)
            && let Ok(mut map) = Self::map(len, flags, -1, 0)
        {
            map.prepare(node);
            if map.populate().is_ok() {
                map.huge = true;
                return Ok(map);
            }
        }
        Self::anonymous(len, node)
    }

    /// Memory of a descriptor, shared with the kernel, from `offset` on (MAP_SHARED). For the ring of a packet socket, whose
    /// pages the kernel maps during the call (`packet_mmap`); its offset is 0.
    ///
    /// # Errors
    /// The errno of mmap(2): EINVAL when the descriptor has less memory than `len`.
    pub fn shared(fd: BorrowedFd<'_>, len: usize, offset: u64) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED, fd.as_raw_fd(), offset)
    }

    /// Maps memory as [`Mapping::shared`] does, populated at once (MAP_POPULATE), as the rings of an AF_XDP socket need it
    /// (af_xdp.rst).
    ///
    /// # Errors
    /// Those of [`Mapping::shared`].
    pub fn shared_populated(fd: BorrowedFd<'_>, len: usize, offset: u64) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    fn map(len: usize, flags: i32, fd: i32, offset: u64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a null hint lets the kernel choose unused addresses, so no memory in use is replaced, and a new mapping
        // aliases no Rust object; the result is compared with MAP_FAILED before it is used.
        let start = unsafe { libc::mmap64(ptr::null_mut(), len, protection, flags, fd, offset as i64) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))?;
        Ok(Mapping { start, len, huge: false })
    }

    /// Everything that must be set before the first touch.
    fn prepare(&self, node: Option<u32>) {
        if let Some(node) = node {
            // A refusal is reported once for all mappings, by who tries `prefer_node` on one page.
            let _ = self.prefer_node(node);
        }
        self.exclude_from_children();
    }

    /// Faults every page in, writable, or returns why one cannot be had (MADV_POPULATE_WRITE).
    fn populate(&self) -> io::Result<()> {
        // SAFETY: the range is exactly this mapping; the call changes which pages are there and not what is in them.
        let rc = unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_POPULATE_WRITE) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Writes a zero to every page of a new mapping. For ordinary pages only: a huge one might not exist, and the write
    /// would end in SIGBUS.
    fn touch(&self) {
        for at in (0..self.len).step_by(SMALL_PAGE) {
            // SAFETY: the byte is inside this mapping, which is new and so all zero already; nothing else has its address.
            unsafe { self.start.as_ptr().add(at).write_volatile(0) };
        }
    }

    /// Prefers `node` for pages that do not exist yet (mbind(2), MPOL_PREFERRED): when the node is full, memory of another
    /// one is taken.
    ///
    /// # Errors
    /// The errno of mbind(2): EPERM under a seccomp profile, ENOSYS without CONFIG_NUMA.
    pub(crate) fn prefer_node(&self, node: u32) -> io::Result<()> {
        let mut mask: [libc::c_ulong; MAX_NODES / WORD_BITS] = [0; MAX_NODES / WORD_BITS];
        let word = mask.get_mut(node as usize / WORD_BITS).ok_or(io::ErrorKind::InvalidInput)?;
        *word = 1 << (node as usize % WORD_BITS);
        // SAFETY: the range is exactly this mapping; the mask outlives the call, which only reads it, and holds MAX_NODES
        // bits. The kernel reads one bit less than `maxnode` says.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.start.as_ptr(),
                self.len,
                libc::MPOL_PREFERRED as libc::c_ulong,
                mask.as_ptr(),
                MAX_NODES as libc::c_ulong + 1,
                0,
            )
        };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Leaves the memory out of children (MADV_DONTFORK, madvise(2)). The kernel pins the pages of packet memory, and
    /// fork(2) copies pinned pages at once: tens of milliseconds for a hundred megabytes, in which all threads that touch
    /// memory wait. A refusal is ignored; forking is slow then.
    fn exclude_from_children(&self) {
        // SAFETY: the range is exactly this mapping, and only a child of fork(2) finds nothing there. No child uses it: what
        // runs between fork(2) and execve(2) knows no mapping of this crate.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_DONTFORK) };
    }

    /// True when the memory is on huge pages.
    pub fn is_on_huge_pages(&self) -> bool {
        self.huge
    }

    /// Address of the first byte; page aligned.
    #[inline]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// False: mmap(2) refuses a length of zero.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that mmap(2) returned, unmapped once. Code that derives pointers from it owns the
        // mapping, or an Arc of it, for as long as it uses them.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_as_many_are_asked_for_as_long_as_memory_is_short() {
        let enomem = || io::Error::from_raw_os_error(libc::ENOMEM);
        let asked = |start, min, fits: u32| {
            let mut asked = Vec::new();
            let result = halve_on_enomem(start, min, |count| {
                asked.push(count);
                if count <= fits { Ok(count) } else { Err(enomem()) }
            });
            (result.map_err(|e| e.raw_os_error()), asked)
        };
        assert_eq!(asked(16, 2, 16), (Ok(16), vec![16]));
        assert_eq!(asked(16, 2, 5), (Ok(4), vec![16, 8, 4]));
        assert_eq!(asked(5, 2, 0), (Err(Some(libc::ENOMEM)), vec![5, 2]));
        assert_eq!(asked(3, 2, 2), (Ok(2), vec![3, 2]));
        assert_eq!(asked(1, 2, 0), (Err(Some(libc::ENOMEM)), vec![1]), "fewer than the least are not halved");
        let mut calls = 0;
        let other = halve_on_enomem(16, 2, |_| {
            calls += 1;
            Err::<(), _>(io::Error::from_raw_os_error(libc::EINVAL))
        });
        assert_eq!((other.unwrap_err().raw_os_error(), calls), (Some(libc::EINVAL), 1));
    }

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
        let (mut mode, mut mask) = (-1i32, [0 as libc::c_ulong; MAX_NODES / WORD_BITS]);
        // MPOL_F_ADDR: the policy of the mapping that holds this address (get_mempolicy(2)).
        const MPOL_F_ADDR: libc::c_ulong = 2;
        // SAFETY: mode and mask are writable and alive through the call, the mask has MAX_NODES bits; the address is
        // inside the mapping.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut mode,
                mask.as_mut_ptr(),
                MAX_NODES as libc::c_ulong,
                map.start().as_ptr(),
                MPOL_F_ADDR,
            )
        };
        if rc < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
            crate::testing::skip("this kernel has no CONFIG_NUMA");
            return;
        }
        assert_eq!(rc, 0, "get_mempolicy: {}", io::Error::last_os_error());
        assert_eq!((mode, mask[0]), (libc::MPOL_PREFERRED, 1));
        assert!(map.prefer_node(0).is_ok());
        assert!(map.prefer_node(1 << 20).is_err(), "no such node");
    }

    /// Huge pages without a reservation. With one, mmap(2) itself would refuse, and only a cgroup with a limit would show
    /// what happens at the first touch.
    const UNRESERVED: i32 = libc::MAP_HUGETLB | libc::MAP_HUGE_2MB | libc::MAP_NORESERVE;

    /// More bytes than this host has huge pages for; None, and the test is skipped, where the kernel makes them on demand.
    fn too_many() -> Option<usize> {
        let read = |file| std::fs::read_to_string(format!("/proc/sys/vm/{file}")).unwrap_or_default();
        let pages: usize = read("nr_hugepages").trim().parse().unwrap_or(0);
        if read("nr_overcommit_hugepages").trim() != "0" {
            crate::testing::skip("vm.nr_overcommit_hugepages is not 0");
            return None;
        }
        Some((pages + 8) * HUGE_PAGE)
    }

    #[test]
    fn huge_pages_that_are_not_there_are_an_error_and_not_a_sigbus() {
        let Some(len) = too_many() else { return };
        let map = Mapping::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | UNRESERVED, -1, 0).unwrap();
        assert!(map.populate().is_err(), "{len} bytes of huge pages");
    }

    #[test]
    fn ordinary_pages_take_their_place_and_every_byte_can_be_used() {
        let Some(len) = too_many() else { return };
        let map = Mapping::huge_or_ordinary(len, None, UNRESERVED).unwrap();
        assert!(!map.is_on_huge_pages());
        map.touch();
        for at in (0..len).step_by(SMALL_PAGE) {
            // SAFETY: the byte is inside the mapping, and nothing else has its address.
            assert_eq!(unsafe { map.start().as_ptr().add(at).read_volatile() }, 0);
        }
    }
}
