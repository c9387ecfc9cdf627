//! Attaching an XDP program by bpf_link (Linux 5.9; net/core/dev.c, `bpf_xdp_link_attach`).
//!
//! A link belongs to its descriptor: when the process dies, however it dies, the kernel detaches the program. One attached
//! by netlink would stay behind, go on with its early drops, and block the next user. A link never replaces a program that is
//! already there, and no other program can replace ours.

use std::{
    fmt, io,
    os::fd::{AsRawFd, OwnedFd},
};

use super::{
    program::Program,
    syscall::{BPF_LINK_CREATE, BPF_LINK_UPDATE, BPF_XDP, bpf, bpf_error, bpf_fd},
};
use crate::{
    error::{Code, Error, Result},
    net,
};

/// linux/if_link.h.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The mode of an XDP program: where in the kernel it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachMode {
    /// The program runs in the driver, before an skb exists (XDP_FLAGS_DRV_MODE).
    Native,
    /// The program runs in the stack, on every driver, when the skb was already made (XDP_FLAGS_SKB_MODE).
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

/// An attached program. Dropping it detaches.
#[derive(Debug)]
pub struct XdpLink {
    fd: OwnedFd,
}

/// The part of `union bpf_attr` that BPF_LINK_CREATE uses.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that BPF_LINK_UPDATE uses.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

impl XdpLink {
    /// Attaches `program` to the interface (BPF_LINK_CREATE). What is already attached is never touched.
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
        match bpf_fd(BPF_LINK_CREATE, &mut attr) {
            Ok(fd) => Ok(XdpLink { fd }),
            Err(e) => Err(attach_error(interface, mode, e)),
        }
    }

    /// Replaces the running program by another in one step (BPF_LINK_UPDATE): every frame meets the old one or the new one.
    /// The new one may use other maps.
    ///
    /// # Errors
    /// Those of [`XdpLink::attach`]; on an error the old program keeps running.
    pub fn update(&self, program: &Program) -> Result<()> {
        let mut attr = LinkUpdate {
            link_fd: self.fd.as_raw_fd() as u32,
            new_prog_fd: program.raw_fd(),
            flags: 0,
            old_prog_fd: 0,
        };
        match bpf(BPF_LINK_UPDATE, &mut attr) {
            Ok(_) => Ok(()),
            // The kernel returns ENOLINK when the link's interface was removed.
            Err(e) if e.raw_os_error() == Some(libc::ENOLINK) => {
                Err(Error::os(Code::Interface, "replacing our XDP program: the interface is gone", e))
            }
            Err(e) => Err(bpf_error("replacing our XDP program", e)),
        }
    }
}

/// Makes the error of a refused attachment, and names the owner of the interface where there is one.
fn attach_error(interface: &net::Interface, mode: AttachMode, e: io::Error) -> Error {
    let name = &interface.name;
    let what = format!("attaching XDP ({mode}) to {name}");
    match e.raw_os_error() {
        // EBUSY means that a link is there, or a program in the same mode; EEXIST means a program in the other mode.
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
        _ => bpf_error(&what, e),
    }
}
