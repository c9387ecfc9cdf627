//! The fanout group: one set of frames, spread over the members' rings (Documentation/networking/packet_mmap.rst).

use std::os::fd::OwnedFd;

use libc::{
    PACKET_FANOUT, PACKET_FANOUT_FLAG_DEFRAG, PACKET_FANOUT_FLAG_UNIQUEID, PACKET_FANOUT_HASH, SOL_PACKET,
};

use crate::{
    error::{Code, Error, Result},
    rx::socket::sys,
};

/// PACKET_FANOUT_FLAG_IGNORE_OUTGOING, since Linux 6.2.
const IGNORE_OUTGOING: u32 = 0x4000;

/// A joined group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// Group id, chosen by the kernel; 0 is a valid one.
    pub(super) id: u16,
    /// The group's hook skips outgoing frames. Without it the members' filters drop them, a little later.
    pub(super) ignores_outgoing: bool,
}

/// Joins bound sockets to a new group, in order: the position is the member's index.
///
/// Mode hash: which member sees a datagram does not matter, because the rules decide its queue in user space. The id is
/// the kernel's choice (UNIQUEID), since pods with hostNetwork share one space of ids. DEFRAG makes IPv4 fragments
/// arrive as one frame, at the member of their flow.
pub(super) fn join(members: &[OwnedFd], interface: &str) -> Result<Group> {
    let Some((first, others)) = members.split_first() else {
        return Err(Error::new(Code::State, "a fanout group needs a member"));
    };
    let base = PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_DEFRAG;
    let set = |fd: &OwnedFd, id: u16, flags: u32| {
        sys::set_words(fd, SOL_PACKET, PACKET_FANOUT, &[u32::from(id) | flags << 16])
    };
    let mut flags = base | IGNORE_OUTGOING;
    let mut first_try = set(first, 0, flags | PACKET_FANOUT_FLAG_UNIQUEID);
    if first_try.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EINVAL)) {
        // Not known before 6.2. An interface that is down gives EINVAL too (before 6.13), and then again.
        flags = base;
        first_try = set(first, 0, flags | PACKET_FANOUT_FLAG_UNIQUEID);
    }
    first_try.map_err(|e| refused(e, interface, 0))?;
    let id = sys::get_int(first, SOL_PACKET, PACKET_FANOUT)
        .map_err(|e| Error::os(Code::Kernel, "read the fanout group id back", e))? as u32 as u16;
    for (fd, index) in others.iter().zip(1..) {
        set(fd, id, flags).map_err(|e| refused(e, interface, index))?;
    }
    Ok(Group { id, ignores_outgoing: flags & IGNORE_OUTGOING != 0 })
}

fn refused(e: std::io::Error, interface: &str, member: usize) -> Error {
    let (code, why) = match e.raw_os_error() {
        Some(libc::EINVAL) => (
            Code::Interface,
            "is the interface up? (before Linux 6.13 joining needs that; UNIQUEID needs 4.12)",
        ),
        Some(libc::ENOSPC) => (Code::Busy, "the group is full, or every group id is taken"),
        Some(libc::ENODEV | libc::ENXIO) => (Code::Interface, "the interface went away"),
        _ => (Code::Kernel, "unexpected"),
    };
    Error::os(code, format!("PACKET_FANOUT of member {member} on {interface}: {why}"), e)
}
