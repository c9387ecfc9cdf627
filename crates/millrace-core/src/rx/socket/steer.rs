//! The rules' program in SO_REUSEPORT groups (socket(7), `SO_ATTACH_REUSEPORT_CBPF`).

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Weak},
};

use crate::{
    error::Result,
    rx::{ReplacePrograms, RulePrograms},
    sys::socket,
};

/// `SO_DETACH_REUSEPORT_BPF` (asm-generic/socket.h), since Linux 5.3.
const SO_DETACH_REUSEPORT_BPF: libc::c_int = 68;

/// The sockets of each group. They belong to their receivers: a socket kept open here would go on taking its share when its
/// thread is gone.
#[derive(Default)]
pub(super) struct Groups(Vec<Vec<Weak<OwnedFd>>>);

impl Groups {
    pub(super) fn push(&mut self, group: Vec<Weak<OwnedFd>>) {
        self.0.push(group);
    }

    /// A socket of each group that has one left; what is set on it holds for the group.
    fn members(&self) -> impl Iterator<Item = Arc<OwnedFd>> {
        self.0.iter().filter_map(|group| group.iter().find_map(Weak::upgrade))
    }

    fn detach(&self) -> io::Result<()> {
        self.members().try_for_each(|member| {
            match socket::set_int(&member, libc::SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0) {
                // There was none.
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
                result => result,
            }
        })
    }
}

impl ReplacePrograms for Groups {
    fn replace(&self, steering: &RulePrograms) -> Result<(&'static str, String)> {
        let said = match &steering.reuseport {
            Ok(program) => self
                .members()
                .try_for_each(|member| socket::attach_cbpf(&member, libc::SO_ATTACH_REUSEPORT_CBPF, program))
                .map(|()| "rules, classic BPF".to_owned()),
            Err(why) => self.detach().map(|()| format!("the kernel's hash, not rules: {why}")),
        };
        // A matter of locality alone: the receive threads evaluate the rules in any case.
        Ok(("steering", said.unwrap_or_else(|e| format!("the rules of before, if any: {e}"))))
    }
}
