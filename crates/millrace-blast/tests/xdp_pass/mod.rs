//! The smallest native XDP program: XDP_PASS. It switches a veth end to NAPI with a bounded ring.
#![allow(dead_code, unreachable_pub)]

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

const BPF_PROG_LOAD: i64 = 5;
const BPF_LINK_CREATE: i64 = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 4;
/// `r0 = 2 (XDP_PASS); exit`
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// Attached until dropped (the link is not pinned).
pub struct Pass {
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Pass {
    /// Attaches to an interface of the calling thread's namespace.
    pub fn attach(interface: &str) -> Self {
        let name = CString::new(interface).unwrap();
        // SAFETY: a NUL-terminated name that is only read.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let license = c"Apache-2.0";
        // union bpf_attr for BPF_PROG_LOAD: prog_type, insn_cnt, insns, license, …
        let mut load = [0u64; 16];
        load[0] = u64::from(BPF_PROG_TYPE_XDP) | (PASS.len() as u64) << 32;
        load[1] = PASS.as_ptr() as u64;
        load[2] = license.as_ptr() as u64;
        let program = bpf(BPF_PROG_LOAD, &load).expect("BPF_PROG_LOAD");
        // union bpf_attr for BPF_LINK_CREATE: prog_fd, target_ifindex, attach_type, flags
        let mut link = [0u64; 16];
        link[0] = program.as_raw_fd() as u64 | u64::from(index) << 32;
        link[1] = u64::from(BPF_XDP) | u64::from(XDP_FLAGS_DRV_MODE) << 32;
        let link = bpf(BPF_LINK_CREATE, &link).expect("BPF_LINK_CREATE");
        Pass { _program: program, _link: link }
    }
}

fn bpf(command: i64, attributes: &[u64; 16]) -> io::Result<OwnedFd> {
    // SAFETY: pointer and length describe `attributes`; the addresses in it are of statics and locals that outlive the
    // call. Both commands return a descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
