//! BPF programs: verified, loaded, owned.

use std::{
    fmt, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use super::syscall::{BPF_OBJ_GET_INFO_BY_FD, BPF_PROG_LOAD, BPF_XDP, bpf, bpf_error, bpf_fd, object_name};
use crate::error::{Code, Error, Result};

/// `enum bpf_prog_type`.
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
const BPF_PROG_TYPE_XDP: u32 = 6;

/// Bytes of verifier log requested when a load failed. The fault is at the end of the log, which a kernel before Linux 6.4
/// leaves out where there is too little room. Too much room only costs memory for a moment.
const LOG_BYTES: usize = 1 << 20;
/// Lines of verifier log shown, from its end: enough for the instructions that lead to the fault, few enough to read.
const LOG_LINES: usize = 24;

/// The actions on a frame: the results of an XDP program, and the fall-back in the flags of `bpf_redirect_map`
/// (`enum xdp_action`).
pub mod action {
    /// `XDP_DROP`: the frame is dropped. Programs that tests run put it in an empty slot.
    #[cfg(feature = "testing")]
    pub const DROP: u32 = 1;
    /// `XDP_PASS`: the frame goes up the network stack.
    pub const PASS: u32 = 2;
}

/// The types of programs in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProgramType {
    Xdp,
    SocketFilter,
}

impl fmt::Display for ProgramType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProgramType::Xdp => "XDP",
            ProgramType::SocketFilter => "socket filter",
        })
    }
}

/// A loaded program. The kernel keeps it for as long as this value, a link or a socket refers to it.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    id: u32,
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD uses.
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

/// The part of `union bpf_attr` that BPF_OBJ_GET_INFO_BY_FD uses.
#[repr(C)]
struct GetInfo {
    fd: u32,
    info_len: u32,
    info: u64,
}

impl Program {
    /// Lets the kernel verify an XDP program and loads it (BPF_PROG_LOAD, BPF_PROG_TYPE_XDP). `flags` is `prog_flags`: 0, or
    /// `BPF_F_XDP_HAS_FRAGS`. `name` is what `bpftool prog` shows, at most 15 bytes of it.
    ///
    /// # Errors
    /// [`Code::Permission`]; [`Code::Kernel`] with the end of the verifier's log when it refuses the program.
    pub fn load(name: &str, instructions: &[u64], flags: u32) -> Result<Self> {
        Self::load_as(ProgramType::Xdp, name, instructions, flags)
    }

    /// Lets the kernel verify a program for a socket or a fanout group and loads it (BPF_PROG_LOAD,
    /// BPF_PROG_TYPE_SOCKET_FILTER). This needs CAP_BPF alone, or nothing where `kernel.unprivileged_bpf_disabled` is 0
    /// (Documentation/admin-guide/sysctl/kernel.rst).
    ///
    /// # Errors
    /// Those of [`Program::load`].
    pub fn load_socket_filter(name: &str, instructions: &[u64]) -> Result<Self> {
        Self::load_as(ProgramType::SocketFilter, name, instructions, 0)
    }

    /// Tries without a log first, because a log costs time and says nothing of a program that is accepted.
    fn load_as(program_type: ProgramType, name: &str, instructions: &[u64], flags: u32) -> Result<Self> {
        // The only helper we call is not GPL-only, so the program carries the project's own licence.
        let license = c"Apache-2.0";
        let mut attr = ProgLoad {
            prog_type: match program_type {
                ProgramType::Xdp => BPF_PROG_TYPE_XDP,
                ProgramType::SocketFilter => BPF_PROG_TYPE_SOCKET_FILTER,
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
            expected_attach_type: match program_type {
                ProgramType::Xdp => BPF_XDP,
                ProgramType::SocketFilter => 0,
            },
        };
        let what = format!("loading the {program_type} program ({} instructions)", instructions.len());
        match bpf_fd(BPF_PROG_LOAD, &mut attr) {
            Ok(fd) => Ok(Program { id: program_id(&fd)?, fd }),
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => Err(bpf_error(&what, e)),
            Err(first) => {
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

    /// Returns the kernel's id of the program, as `ip link` and `bpftool` show it.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn raw_fd(&self) -> u32 {
        self.fd.as_raw_fd() as u32
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reads the kernel's id of a program (BPF_OBJ_GET_INFO_BY_FD).
fn program_id(fd: &OwnedFd) -> Result<u32> {
    // struct bpf_prog_info begins with `type` and `id`; the kernel fills as much as we have room for.
    let mut info = [0u32; 2];
    let mut attr = GetInfo {
        fd: fd.as_raw_fd() as u32,
        info_len: mem::size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map_err(|e| bpf_error("reading a BPF program's id", e))?;
    Ok(info[1])
}
