//! The rules' program that selects the socket of each datagram in a SO_REUSEPORT group (socket(7),
//! SO_ATTACH_REUSEPORT_CBPF).

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Weak},
};

use crate::{
    error::Result,
    rx::{ReplacePrograms, RulePrograms, STEERING},
    sys::socket,
};

/// `SO_DETACH_REUSEPORT_BPF` (asm-generic/socket.h), since Linux 5.3.
const SO_DETACH_REUSEPORT_BPF: libc::c_int = 68;

/// The sockets of each group. They belong to their receivers: a socket kept open here would go on receiving its share when
/// its thread has ended.
#[derive(Default)]
pub(super) struct ReuseportGroups(Vec<Vec<Weak<OwnedFd>>>);

impl ReuseportGroups {
    pub(super) fn push(&mut self, group: Vec<Weak<OwnedFd>>) {
        self.0.push(group);
    }

    /// One socket of each group that has any left. A program attached to it is that of its whole group.
    fn members(&self) -> impl Iterator<Item = Arc<OwnedFd>> {
        self.0.iter().filter_map(|group| group.iter().find_map(Weak::upgrade))
    }

    /// Leaves the selection to the kernel's hash.
    fn detach(&self) -> io::Result<()> {
        self.members().try_for_each(|member| {
            match socket::set_int(&member, libc::SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0) {
                // No program was attached.
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
                result => result,
            }
        })
    }
}

impl ReplacePrograms for ReuseportGroups {
    fn replace(&self, programs: &RulePrograms) -> Result<(&'static str, String)> {
        let granted = match &programs.reuseport {
            Ok(program) => self
                .members()
                .try_for_each(|member| socket::attach_cbpf(&member, libc::SO_ATTACH_REUSEPORT_CBPF, program))
                .map(|()| "rules, classic BPF".to_owned()),
            Err(why) => self.detach().map(|()| format!("the kernel's hash, not rules: {why}")),
        };
        // The program only decides by which thread a datagram comes. The threads evaluate the rules in any case, so a refusal
        // is no error.
        Ok((STEERING, granted.unwrap_or_else(|e| format!("the rules of before, if any: {e}"))))
    }
}
