//! The two kinds of BPF maps in use (Documentation/bpf/maps.rst): AF_XDP sockets by rx queue, and counters.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use super::syscall::{
    BPF_MAP_CREATE, BPF_MAP_DELETE_ELEM, BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, bpf, bpf_error, bpf_fd,
    object_name,
};
use crate::error::{Code, Error, Result};

/// `enum bpf_map_type`.
const BPF_MAP_TYPE_PERCPU_ARRAY: u32 = 6;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;

/// At least as many CPUs as any kernel we may run on is built for (`CONFIG_NR_CPUS`: x86 up to 8192, arm64 4096). A lower
/// number would let the kernel write past a buffer where the real one cannot be read; a higher one only costs memory there.
const MAX_CPUS: usize = 8192;

/// A BPF_MAP_TYPE_XSKMAP, from the index of an rx queue to an AF_XDP socket (Documentation/bpf/map_xskmap.rst).
#[derive(Debug)]
pub struct XskMap {
    fd: OwnedFd,
    entries: u32,
}

/// The part of `union bpf_attr` that BPF_MAP_CREATE uses.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// The part of `union bpf_attr` that BPF_MAP_*_ELEM use.
#[repr(C)]
struct MapElement {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl MapElement {
    /// `key` must live until the call is made, and so must the memory that `value` is the address of.
    fn new(map: &OwnedFd, key: &u32, value: u64) -> Self {
        MapElement { map_fd: map.as_raw_fd() as u32, pad: 0, key: (&raw const *key) as u64, value, flags: 0 }
    }
}

/// Makes a map (BPF_MAP_CREATE) whose keys are 32-bit indexes.
fn create(map_type: u32, value_bytes: usize, entries: u32, name: &str) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type,
        key_size: mem::size_of::<u32>() as u32,
        value_size: value_bytes as u32,
        max_entries: entries,
        map_flags: 0,
        inner_map_fd: 0,
        numa_node: 0,
        name: object_name(name),
    };
    bpf_fd(BPF_MAP_CREATE, &mut attr)
}

impl XskMap {
    /// Makes an empty map with slots `0..entries` (BPF_MAP_CREATE).
    ///
    /// # Errors
    /// [`Code::Permission`], [`Code::Unsupported`] (no CONFIG_XDP_SOCKETS), [`Code::Kernel`].
    pub fn new(entries: u32) -> Result<Self> {
        let fd = create(BPF_MAP_TYPE_XSKMAP, mem::size_of::<u32>(), entries, "millrace_xsks")
            .map_err(|e| bpf_error(&format!("creating an XSKMAP of {entries} slots"), e))?;
        Ok(XskMap { fd, entries })
    }

    /// Returns the number of slots.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Returns the descriptor's number, for [`super::ebpf::Assembler::load_map`].
    pub fn raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Puts a bound AF_XDP socket into the slot of its rx queue (BPF_MAP_UPDATE_ELEM; net/xdp/xskmap.c).
    ///
    /// # Errors
    /// [`Code::Permission`], [`Code::Unsupported`], [`Code::Kernel`].
    pub fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<()> {
        let value = socket.as_raw_fd() as u32;
        let mut attr = MapElement::new(&self.fd, &queue, (&raw const value) as u64);
        bpf(BPF_MAP_UPDATE_ELEM, &mut attr)
            .map_err(|e| bpf_error(&format!("putting an AF_XDP socket into XSKMAP slot {queue}"), e))?;
        Ok(())
    }

    /// Empties a slot (BPF_MAP_DELETE_ELEM; net/xdp/xskmap.c): its frames take the program's fall-back action from then on.
    /// Returns false when it was empty.
    ///
    /// # Errors
    /// Those of [`XskMap::insert`].
    pub fn remove(&self, queue: u32) -> Result<bool> {
        let mut attr = MapElement::new(&self.fd, &queue, 0);
        match bpf(BPF_MAP_DELETE_ELEM, &mut attr) {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(bpf_error(&format!("emptying XSKMAP slot {queue}"), e)),
        }
    }
}

/// A BPF_MAP_TYPE_PERCPU_ARRAY of 64-bit counters that a program adds to, each CPU for itself
/// (Documentation/bpf/map_array.rst).
#[derive(Debug)]
pub struct CounterMap {
    fd: OwnedFd,
}

impl CounterMap {
    /// Makes `entries` counters, all 0 (BPF_MAP_CREATE).
    ///
    /// # Errors
    /// [`Code::Permission`], [`Code::Kernel`].
    pub fn new(entries: u32) -> Result<Self> {
        let fd = create(BPF_MAP_TYPE_PERCPU_ARRAY, mem::size_of::<u64>(), entries, "millrace_counts")
            .map_err(|e| bpf_error(&format!("creating an array map of {entries} counters"), e))?;
        Ok(CounterMap { fd })
    }

    /// Returns the descriptor's number, for [`super::ebpf::Assembler::load_map`].
    pub fn raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Reads the first `count` counters, each summed over the CPUs.
    ///
    /// # Errors
    /// [`Code::Kernel`], also when `count` is larger than the map.
    pub fn read(&self, count: u32) -> Result<Vec<u64>> {
        let mut values = vec![0u64; possible_cpus()];
        (0..count).map(|index| self.sum(index, &mut values)).collect()
    }

    /// Reads one counter (BPF_MAP_LOOKUP_ELEM) and adds up its CPUs. `values` has [`possible_cpus`] entries.
    fn sum(&self, index: u32, values: &mut [u64]) -> Result<u64> {
        debug_assert_eq!(values.len(), possible_cpus());
        let mut attr = MapElement::new(&self.fd, &index, values.as_mut_ptr() as u64);
        bpf(BPF_MAP_LOOKUP_ELEM, &mut attr)
            .map_err(|e| Error::os(Code::Kernel, format!("reading counter {index} of an array map"), e))?;
        Ok(values.iter().sum())
    }
}

/// Returns the room that a value of a per-CPU map needs, in CPUs: one more than the highest number in
/// `/sys/devices/system/cpu/possible` (such as `0-7`), or [`MAX_CPUS`] where that cannot be read. The kernel writes a value
/// for each possible CPU, whatever room there is (kernel/bpf/arraymap.c, `bpf_percpu_array_copy`).
fn possible_cpus() -> usize {
    static CPUS: OnceLock<usize> = OnceLock::new();
    *CPUS.get_or_init(|| {
        let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
        let highest = text.trim().rsplit([',', '-']).next().and_then(|n| n.parse::<usize>().ok());
        highest.map_or(MAX_CPUS, |n| n.saturating_add(1).min(MAX_CPUS))
    })
}
