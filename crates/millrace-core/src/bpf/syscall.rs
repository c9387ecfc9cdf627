//! The system call bpf(2) itself: commands, attributes, descriptors and errors.
//!
//! The kernel copies `union bpf_attr` up to the size we pass and requires the rest to be zero (kernel/bpf/syscall.c,
//! `bpf_check_uarg_tail_zero`), so every command has a struct of its own with exactly the fields it uses
//! (include/uapi/linux/bpf.h). Numbers are in host order.

use std::{
    io, mem,
    os::fd::{FromRawFd, OwnedFd},
};

use crate::error::{Code, Error};

/// `enum bpf_cmd`.
pub(super) const BPF_MAP_CREATE: i32 = 0;
pub(super) const BPF_MAP_LOOKUP_ELEM: i32 = 1;
pub(super) const BPF_MAP_UPDATE_ELEM: i32 = 2;
pub(super) const BPF_MAP_DELETE_ELEM: i32 = 3;
pub(super) const BPF_PROG_LOAD: i32 = 5;
pub(super) const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
pub(super) const BPF_LINK_CREATE: i32 = 28;
pub(super) const BPF_LINK_UPDATE: i32 = 29;
/// `BPF_XDP` of `enum bpf_attach_type`: where an XDP program may be attached, and what its link is.
pub(super) const BPF_XDP: u32 = 37;

/// Makes the call and returns its result, which is not negative.
///
/// # Errors
/// The errno of bpf(2).
pub(super) fn bpf<T>(command: i32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a live, initialised `repr(C)` struct without padding, and its size is passed with it. Pointers
    // inside it are made by our callers from slices that outlive the call; the kernel writes only into buffers that
    // callers made from `&mut` and into `attr` itself.
    let rc = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, mem::size_of::<T>()) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc as i32) }
}

/// Makes the call for a command that returns a new descriptor. The kernel makes those close-on-exec.
///
/// # Errors
/// The errno of bpf(2).
pub(super) fn bpf_fd<T>(command: i32, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel just made `fd` for this call; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the error of a failed bpf(2) from its errno. `what` says what was being done.
pub(super) fn bpf_error(what: &str, e: io::Error) -> Error {
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

/// Returns the name of a map or program as the kernel requires it: at most 15 bytes (`BPF_OBJ_NAME_LEN`), the rest zero.
pub(super) fn object_name(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    for (o, b) in out[..15].iter_mut().zip(name.bytes()) {
        *o = b;
    }
    out
}
