//! The bpf(2) calls we need, each a safe function on owned descriptors.
//!
//! The kernel copies `union bpf_attr` up to the size we pass and wants the rest zero, so every call has a struct of
//! its own with exactly the fields it uses (`include/uapi/linux/bpf.h`). Numbers are host order.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::OnceLock,
};

use crate::error::{Code, Error, Result};

const BPF_MAP_CREATE: i32 = 0;
const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_MAP_DELETE_ELEM: i32 = 3;
const BPF_PROG_LOAD: i32 = 5;
#[cfg(any(test, feature = "testing"))]
const BPF_PROG_TEST_RUN: i32 = 10;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
const BPF_MAP_TYPE_PERCPU_ARRAY: u32 = 6;
/// At least as many CPUs as any kernel we may run on is built for (`CONFIG_NR_CPUS`: x86 up to 8192, arm64 4096).
const MAX_CPUS: usize = 8192;

/// Room for one value of each possible CPU: the highest number in `/sys/devices/system/cpu/possible` (such as `0-7`) and
/// one, or [`MAX_CPUS`] where that cannot be read. The kernel writes one for each CPU in it, whatever room there is.
fn cpu_values() -> usize {
    static VALUES: OnceLock<usize> = OnceLock::new();
    *VALUES.get_or_init(|| {
        let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
        let highest = text.trim().rsplit([',', '-']).next().and_then(|n| n.parse::<usize>().ok());
        highest.map_or(MAX_CPUS, |n| n.saturating_add(1).min(MAX_CPUS))
    })
}
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
const BPF_PROG_TYPE_XDP: u32 = 6;
/// `expected_attach_type` of an XDP program and `attach_type` of an XDP link.
pub(super) const BPF_XDP: u32 = 37;

/// Bytes of verifier log asked for when a load failed; the end of it, which names the fault, is what we show.
const LOG_BYTES: usize = 1 << 20;
/// Lines of verifier log shown.
const LOG_LINES: usize = 24;

/// What `XDP_PASS` and friends are called in results and in the flags of `bpf_redirect_map`.
pub mod action {
    /// Dropped.
    #[cfg(any(test, feature = "testing"))]
    pub const DROP: u32 = 1;
    /// Up the network stack.
    pub const PASS: u32 = 2;
}

/// bpf(2). Returns its non-negative result.
pub(super) fn bpf<T>(command: i32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a live, initialised `repr(C)` struct without padding, and its size is passed with it. Pointers
    // inside it are made by our callers from slices that outlive the call; the kernel writes only into buffers that
    // callers made from `&mut` and into `attr` itself.
    let rc = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, mem::size_of::<T>()) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc as i32) }
}

/// As [`bpf`] for commands that return a new descriptor (the kernel makes them close-on-exec).
pub(super) fn bpf_fd<T>(command: i32, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel just made `fd` for this call; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sorts an errno of bpf(2) into our codes. `what` says what was being done.
pub(super) fn explain(what: &str, e: io::Error) -> Error {
    match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Error::os(
            Code::Permission,
            format!(
                "{what}: needs CAP_BPF and CAP_NET_ADMIN (before Linux 5.8: CAP_SYS_ADMIN); with both, look at seccomp \
                 and, before Linux 5.11, at RLIMIT_MEMLOCK"
            ),
            e,
        ),
        Some(libc::ENOSYS) => {
            Error::os(Code::Unsupported, format!("{what}: this kernel has no bpf(2), or seccomp hides it"), e)
        }
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::E2BIG) => {
            Error::os(Code::Unsupported, format!("{what}: this kernel does not support it"), e)
        }
        _ => Error::os(Code::Kernel, what, e),
    }
}

fn object_name(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    for (o, b) in out[..15].iter_mut().zip(name.bytes()) {
        *o = b;
    }
    out
}

/// A BPF_MAP_TYPE_XSKMAP: rx queue index → AF_XDP socket.
#[derive(Debug)]
pub struct XskMap {
    fd: OwnedFd,
    entries: u32,
}

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

#[repr(C)]
struct MapElement {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl XskMap {
    /// Makes an empty map with slots `0..entries`.
    ///
    /// # Errors
    /// [`Code::Permission`], [`Code::Unsupported`] (no CONFIG_XDP_SOCKETS), [`Code::Kernel`].
    pub fn new(entries: u32) -> Result<Self> {
        let mut attr = MapCreate {
            map_type: BPF_MAP_TYPE_XSKMAP,
            key_size: 4,
            value_size: 4,
            max_entries: entries,
            map_flags: 0,
            inner_map_fd: 0,
            numa_node: 0,
            name: object_name("millrace_xsks"),
        };
        let fd = bpf_fd(BPF_MAP_CREATE, &mut attr)
            .map_err(|e| explain(&format!("creating an XSKMAP of {entries} slots"), e))?;
        Ok(XskMap { fd, entries })
    }

    /// Slots in the map.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// The descriptor's number, for [`super::ebpf::Assembler::load_map`].
    pub fn raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Puts a bound AF_XDP socket into the slot of its rx queue.
    ///
    /// # Errors
    /// [`Code::Kernel`] and the codes of [`explain`].
    pub fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<()> {
        let value = socket.as_raw_fd() as u32;
        let mut attr = MapElement {
            map_fd: self.fd.as_raw_fd() as u32,
            pad: 0,
            key: (&raw const queue) as u64,
            value: (&raw const value) as u64,
            flags: 0,
        };
        bpf(BPF_MAP_UPDATE_ELEM, &mut attr)
            .map_err(|e| explain(&format!("putting an AF_XDP socket into XSKMAP slot {queue}"), e))?;
        Ok(())
    }

    /// Empties a slot; its frames take the program's fall-back action from then on. Returns false when it was empty.
    ///
    /// # Errors
    /// [`Code::Kernel`] and the codes of [`explain`].
    pub fn remove(&self, queue: u32) -> Result<bool> {
        let mut attr = MapElement {
            map_fd: self.fd.as_raw_fd() as u32,
            pad: 0,
            key: (&raw const queue) as u64,
            value: 0,
            flags: 0,
        };
        match bpf(BPF_MAP_DELETE_ELEM, &mut attr) {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(explain(&format!("emptying XSKMAP slot {queue}"), e)),
        }
    }
}

/// A BPF_MAP_TYPE_PERCPU_ARRAY of 64-bit counters that a program adds to, each CPU for itself.
#[derive(Debug)]
pub struct CounterMap {
    fd: OwnedFd,
}

impl CounterMap {
    /// Makes `entries` counters, all 0.
    ///
    /// # Errors
    /// [`Code::Permission`], [`Code::Kernel`].
    pub fn new(entries: u32) -> Result<Self> {
        let mut attr = MapCreate {
            map_type: BPF_MAP_TYPE_PERCPU_ARRAY,
            key_size: 4,
            value_size: 8,
            max_entries: entries,
            map_flags: 0,
            inner_map_fd: 0,
            numa_node: 0,
            name: object_name("millrace_counts"),
        };
        let fd = bpf_fd(BPF_MAP_CREATE, &mut attr)
            .map_err(|e| explain(&format!("creating an array map of {entries} counters"), e))?;
        Ok(CounterMap { fd })
    }

    /// The descriptor's number, for [`super::ebpf::Assembler::load_map`].
    pub fn raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Reads the first `count` counters, each the sum over the CPUs.
    ///
    /// # Errors
    /// [`Code::Kernel`], for an index beyond the map too.
    pub fn read(&self, count: u32) -> Result<Vec<u64>> {
        let mut values = vec![0u64; cpu_values()];
        (0..count).map(|index| self.sum(index, &mut values)).collect()
    }

    /// One counter. `values` has [`cpu_values`] entries.
    fn sum(&self, index: u32, values: &mut [u64]) -> Result<u64> {
        debug_assert_eq!(values.len(), cpu_values());
        let mut attr = MapElement {
            map_fd: self.fd.as_raw_fd() as u32,
            pad: 0,
            key: (&raw const index) as u64,
            value: values.as_mut_ptr() as u64,
            flags: 0,
        };
        bpf(BPF_MAP_LOOKUP_ELEM, &mut attr)
            .map_err(|e| Error::os(Code::Kernel, format!("reading counter {index} of an array map"), e))?;
        Ok(values.iter().sum())
    }
}

/// What a program may be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Xdp,
    SocketFilter,
}

/// A loaded and verified program.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    id: u32,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Xdp => "XDP",
            Kind::SocketFilter => "socket filter",
        })
    }
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[cfg(any(test, feature = "testing"))]
#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

#[repr(C)]
struct GetInfo {
    fd: u32,
    info_len: u32,
    info: u64,
}

impl Program {
    /// Verifies and loads an XDP program. `flags` is `prog_flags` (0, or `BPF_F_XDP_HAS_FRAGS`).
    ///
    /// # Errors
    /// [`Code::Permission`]; [`Code::Kernel`] with the end of the verifier's log when it refuses the program.
    pub fn load(name: &str, instructions: &[u64], flags: u32) -> Result<Self> {
        Self::load_as(Kind::Xdp, name, instructions, flags)
    }

    /// Verifies and loads a program for a socket or a fanout group (BPF_PROG_TYPE_SOCKET_FILTER). Needs CAP_BPF alone,
    /// or nothing where `kernel.unprivileged_bpf_disabled` is 0.
    ///
    /// # Errors
    /// As [`Program::load`].
    pub fn load_socket_filter(name: &str, instructions: &[u64]) -> Result<Self> {
        Self::load_as(Kind::SocketFilter, name, instructions, 0)
    }

    fn load_as(kind: Kind, name: &str, instructions: &[u64], flags: u32) -> Result<Self> {
        // The only helper we call is not GPL-only, so the program carries the project's own licence.
        let license = c"Apache-2.0";
        let mut attr = ProgLoad {
            prog_type: match kind {
                Kind::Xdp => BPF_PROG_TYPE_XDP,
                Kind::SocketFilter => BPF_PROG_TYPE_SOCKET_FILTER,
            },
            insn_cnt: instructions.len() as u32,
            insns: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: flags,
            name: object_name(name),
            prog_ifindex: 0,
            expected_attach_type: match kind {
                Kind::Xdp => BPF_XDP,
                Kind::SocketFilter => 0,
            },
        };
        let what = format!("loading the {kind} program ({} instructions)", instructions.len());
        match bpf_fd(BPF_PROG_LOAD, &mut attr) {
            Ok(fd) => Ok(Program { id: program_id(&fd)?, fd }),
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => Err(explain(&what, e)),
            Err(first) => {
                // Only now with a log: it costs time, and a good load has nothing to say.
                let mut log = vec![0u8; LOG_BYTES];
                (attr.log_level, attr.log_size) = (1, log.len() as u32);
                attr.log_buf = log.as_mut_ptr() as u64;
                let e = bpf_fd(BPF_PROG_LOAD, &mut attr).err().unwrap_or(first);
                let end = log.iter().position(|&b| b == 0).unwrap_or(log.len());
                let text = String::from_utf8_lossy(&log[..end]);
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
                Err(Error::os(Code::Kernel, format!("{what}: the verifier refused it:\n  {tail}\n"), e))
            }
        }
    }

    /// The kernel's id of the program, as `ip link` and `bpftool` show it.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn raw_fd(&self) -> u32 {
        self.fd.as_raw_fd() as u32
    }

    /// Runs the program once on `frame` (at least 14 bytes, the kernel refuses less), on rx queue 0 of `lo`, and
    /// returns its verdict ([`action`]), or what a socket filter returns. Nothing is sent anywhere. For tests.
    ///
    /// # Errors
    /// [`Code::Permission`], [`Code::Unsupported`], [`Code::Kernel`].
    #[cfg(any(test, feature = "testing"))]
    pub fn test_run(&self, frame: &[u8]) -> Result<u32> {
        let mut attr = TestRun {
            prog_fd: self.raw_fd(),
            retval: 0,
            data_size_in: frame.len() as u32,
            data_size_out: 0,
            data_in: frame.as_ptr() as u64,
            data_out: 0,
            repeat: 1,
            duration: 0,
            ctx_size_in: 0,
            ctx_size_out: 0,
            ctx_in: 0,
            ctx_out: 0,
        };
        bpf(BPF_PROG_TEST_RUN, &mut attr)
            .map_err(|e| explain(&format!("test run of a BPF program on {} bytes", frame.len()), e))?;
        Ok(attr.retval)
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn program_id(fd: &OwnedFd) -> Result<u32> {
    // struct bpf_prog_info begins with `type` and `id`; the kernel fills as much as we have room for.
    let mut info = [0u32; 2];
    let mut attr = GetInfo {
        fd: fd.as_raw_fd() as u32,
        info_len: mem::size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map_err(|e| explain("reading a BPF program's id", e))?;
    Ok(info[1])
}
