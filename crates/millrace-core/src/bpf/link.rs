//! Attaching an XDP program by bpf_link (Linux 5.9).
//!
//! A link belongs to its descriptor: when the process dies, however it dies, the kernel detaches the program. A netlink
//! attachment would stay behind and blackhole nothing but still block the next user. A link also never replaces a
//! program that is already there, and nobody can replace ours.

use std::{
    fmt, io,
    os::fd::{AsRawFd, OwnedFd},
};

use super::syscall::{self, BPF_XDP, Program};
use crate::{
    error::{Code, Error, Result},
    net,
};

const BPF_LINK_CREATE: i32 = 28;
const BPF_LINK_UPDATE: i32 = 29;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Where the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before an skb exists.
    Native,
    /// In the stack, on every driver; the skb was already made.
    Generic,
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AttachMode::Native => "native",
            AttachMode::Generic => "generic",
        })
    }
}

/// An attached program; dropping it detaches.
#[derive(Debug)]
pub struct XdpLink {
    fd: OwnedFd,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

impl XdpLink {
    /// Attaches `program` to the interface. What is already attached is never touched.
    ///
    /// # Errors
    /// [`Code::Busy`] when another program owns the interface, [`Code::Unsupported`] when the driver or its present
    /// settings cannot (the message says which), [`Code::Permission`], [`Code::Interface`], [`Code::Kernel`].
    pub fn attach(program: &Program, interface: &net::Interface, mode: AttachMode) -> Result<Self> {
        let mut attr = LinkCreate {
            prog_fd: program.raw_fd(),
            target_ifindex: interface.index,
            attach_type: BPF_XDP,
            flags: match mode {
                AttachMode::Native => XDP_FLAGS_DRV_MODE,
                AttachMode::Generic => XDP_FLAGS_SKB_MODE,
            },
        };
        match syscall::bpf_fd(BPF_LINK_CREATE, &mut attr) {
            Ok(fd) => Ok(XdpLink { fd }),
            Err(e) => Err(explain(interface, mode, e)),
        }
    }

    /// Swaps the running program for another in one step; no frame sees "no program". The maps the new one uses are
    /// its own affair.
    ///
    /// # Errors
    /// As [`XdpLink::attach`]; on an error the old program keeps running.
    pub fn update(&self, program: &Program) -> Result<()> {
        let mut attr = LinkUpdate {
            link_fd: self.fd.as_raw_fd() as u32,
            new_prog_fd: program.raw_fd(),
            flags: 0,
            old_prog_fd: 0,
        };
        match syscall::bpf(BPF_LINK_UPDATE, &mut attr) {
            Ok(_) => Ok(()),
            // What the kernel says of a link whose interface was removed.
            Err(e) if e.raw_os_error() == Some(libc::ENOLINK) => {
                Err(Error::os(Code::Interface, "replacing our XDP program: the interface is gone", e))
            }
            Err(e) => Err(syscall::explain("replacing our XDP program", e)),
        }
    }
}

fn explain(interface: &net::Interface, mode: AttachMode, e: io::Error) -> Error {
    let name = &interface.name;
    let what = format!("attaching XDP ({mode}) to {name}");
    match e.raw_os_error() {
        // EBUSY: a link is there, or a program in the same mode; EEXIST: a program in the other mode.
        Some(libc::EBUSY | libc::EEXIST) => {
            let owner = match interface.link().ok().and_then(|l| l.xdp) {
                Some(xdp) => format!("program id {} ({})", xdp.program_id, xdp.mode),
                None => "a program whose id could not be read".into(),
            };
            Error::os(
                Code::Busy,
                format!(
                    "{what}: a foreign XDP program owns the interface, {owner}; it was left untouched \
                     (`bpftool net` and `bpftool link` name its owner)"
                ),
                e,
            )
        }
        Some(libc::ERANGE) => Error::os(
            Code::Unsupported,
            format!(
                "{what}: its MTU of {} bytes is too large for the driver's single-buffer XDP; lower the MTU or use \
                 generic mode",
                interface.link().map_or(0, |l| l.mtu)
            ),
            e,
        ),
        Some(libc::ENOSPC) => Error::os(
            Code::Unsupported,
            format!("{what}: the driver needs more queues for native XDP (see `ethtool -l {name}`)"),
            e,
        ),
        Some(libc::EOPNOTSUPP) => {
            Error::os(Code::Unsupported, format!("{what}: the driver does not support it"), e)
        }
        Some(libc::EINVAL) => Error::os(
            Code::Unsupported,
            format!(
                "{what}: the driver refuses it with its present settings (LRO/GRO-HW, MTU, queue count), or the \
                 kernel is older than 5.9 and has no XDP links"
            ),
            e,
        ),
        Some(libc::ENODEV) => Error::os(Code::Interface, format!("{what}: the interface is gone"), e),
        _ => syscall::explain(&what, e),
    }
}
