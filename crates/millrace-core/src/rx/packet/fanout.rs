//! The fanout group: one set of frames, spread over the members' rings (packet(7), PACKET_FANOUT;
//! Documentation/networking/packet_mmap.rst).
//!
//! Which member gets a datagram never matters for the result, because the rules decide its queue in user space. The mode is a
//! matter of locality and of even load.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use libc::{
    PACKET_FANOUT, PACKET_FANOUT_CPU, PACKET_FANOUT_FLAG_DEFRAG, PACKET_FANOUT_FLAG_IGNORE_OUTGOING,
    PACKET_FANOUT_FLAG_ROLLOVER, PACKET_FANOUT_FLAG_UNIQUEID, PACKET_FANOUT_HASH, PACKET_FANOUT_LB,
    PACKET_FANOUT_QM, PACKET_FANOUT_RND, PACKET_FANOUT_ROLLOVER, SOL_PACKET,
};

use super::fanout_program::{FanoutProgram, Selector};
use crate::{
    config::{EngineConfig, FanoutFlag, FanoutMode},
    error::{Code, Error, Result},
    rx::RulePrograms,
    sys::socket,
};

/// The parameters of a group. They are kept to make the next group when a member dies, and a reload of the rules changes them.
pub(super) struct FanoutSpec {
    mode: FanoutMode,
    flags: u32,
    /// Number of members, at least 1.
    members: u16,
    program: Mutex<FanoutProgram>,
}

/// A group that its members have joined.
#[derive(Debug, Clone, Copy)]
pub(super) struct FanoutGroup {
    /// Its id; 0 is a valid one.
    pub(super) id: u16,
    /// The mode in force.
    pub(super) mode: FanoutMode,
    /// `PACKET_FANOUT_FLAG_*` in force.
    flags: u32,
}

impl FanoutGroup {
    /// Returns true when the group's hook skips outgoing frames (since Linux 6.2). Otherwise the members' filters drop them, a
    /// little later.
    pub(super) fn ignores_outgoing(&self) -> bool {
        self.flags & PACKET_FANOUT_FLAG_IGNORE_OUTGOING != 0
    }

    /// Returns true when a frame may go to another member than the mode says, because that one is full.
    pub(super) fn rolls_over(&self) -> bool {
        self.mode == FanoutMode::Rollover || self.flags & PACKET_FANOUT_FLAG_ROLLOVER != 0
    }

    /// Returns the names of the flags in force, as in the configuration.
    pub(super) fn flag_names(&self) -> String {
        let known = [
            (PACKET_FANOUT_FLAG_ROLLOVER, "rollover"),
            (PACKET_FANOUT_FLAG_DEFRAG, "defrag"),
            (PACKET_FANOUT_FLAG_UNIQUEID, "uniqueid"),
            (PACKET_FANOUT_FLAG_IGNORE_OUTGOING, "ignore_outgoing"),
        ];
        let on: Vec<_> =
            known.iter().filter(|(bit, _)| self.flags & bit != 0).map(|(_, name)| *name).collect();
        if on.is_empty() { "none".into() } else { on.join(",") }
    }
}

impl FanoutSpec {
    /// Prepares the configured mode. Where its program cannot be had, the next best takes its place. `degraded` gets a sentence
    /// about it, unless the rules alone are the reason.
    pub(super) fn new(config: &EngineConfig, programs: &RulePrograms, degraded: &mut Vec<String>) -> Self {
        let members = config.rx_threads.max(1);
        let kernel = |mode| (config.fanout, FanoutProgram::mode(mode));
        let (mode, program) = match config.fanout {
            FanoutMode::Hash => kernel(PACKET_FANOUT_HASH),
            FanoutMode::Lb => kernel(PACKET_FANOUT_LB),
            FanoutMode::Cpu => kernel(PACKET_FANOUT_CPU),
            FanoutMode::Rollover => kernel(PACKET_FANOUT_ROLLOVER),
            FanoutMode::Rnd => kernel(PACKET_FANOUT_RND),
            FanoutMode::Qm => kernel(PACKET_FANOUT_QM),
            FanoutMode::Cbpf => (FanoutMode::Cbpf, FanoutProgram::classic(programs, members)),
            FanoutMode::Ebpf => match FanoutProgram::extended(programs, members) {
                Ok(program) => (FanoutMode::Ebpf, program),
                Err(e) => {
                    degraded.push(format!("fanout ebpf was refused, cbpf takes its place: {}", e.message));
                    (FanoutMode::Cbpf, FanoutProgram::classic(programs, members))
                }
            },
            // Classic BPF needs no capability, and eBPF expresses more.
            FanoutMode::Rules => match (&programs.fanout, &programs.fanout_ebpf) {
                (Err(_), Ok(_)) => (
                    FanoutMode::Rules,
                    FanoutProgram::extended(programs, members)
                        .unwrap_or_else(|_| FanoutProgram::classic(programs, members)),
                ),
                _ => (FanoutMode::Rules, FanoutProgram::classic(programs, members)),
            },
        };
        let bit = |flag: &FanoutFlag| match flag {
            FanoutFlag::Rollover => PACKET_FANOUT_FLAG_ROLLOVER,
            FanoutFlag::Defrag => PACKET_FANOUT_FLAG_DEFRAG,
            FanoutFlag::Uniqueid => PACKET_FANOUT_FLAG_UNIQUEID,
            FanoutFlag::IgnoreOutgoing => PACKET_FANOUT_FLAG_IGNORE_OUTGOING,
        };
        let flags = config.fanout_flags.iter().map(bit).fold(0, |all, f| all | f);
        FanoutSpec { mode, flags, members, program: Mutex::new(program) }
    }

    fn program(&self) -> MutexGuard<'_, FanoutProgram> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where the rules run to select a member; `None` in modes that have nothing to do with the rules.
    pub(super) fn description(&self) -> Option<String> {
        self.program().description.clone()
    }

    /// Takes the program of other rules for this group and those that follow. It stays classic or extended, because a group
    /// keeps the mode it was made with.
    pub(super) fn replace_program(&self, programs: &RulePrograms) {
        let mut program = self.program();
        match program.selector {
            Selector::Mode(_) => {}
            Selector::Classic(_) => *program = FanoutProgram::classic(programs, self.members),
            Selector::Extended(_) => {
                // A process that was allowed to load one is allowed to load another. If not, the old one stays in force.
                match FanoutProgram::extended(programs, self.members) {
                    Ok(new) => *program = new,
                    Err(e) => program.description = Some(format!("the rules of before: {}", e.message)),
                }
            }
        }
    }

    /// Gives the present program to the group of `member`, which was made with this specification.
    ///
    /// # Errors
    /// [`Code::Kernel`].
    pub(super) fn attach(&self, member: &OwnedFd, interface: &str) -> Result<()> {
        let mode = self.mode.as_str();
        let failed = |e| Error::os(Code::Kernel, format!("PACKET_FANOUT_DATA ({mode}) on {interface}"), e);
        self.program().selector.attach(member).map_err(failed)
    }

    /// Joins bound sockets to a new group, in order: the position is the member's index. Flags and modes that this
    /// kernel does not know (EINVAL) are left out, and `degraded` says which.
    ///
    /// The kernel chooses the id (PACKET_FANOUT_FLAG_UNIQUEID), because pods with hostNetwork share one space of ids. Without
    /// that flag the id comes from process, interface and `generation`, because the old group still lives when the next one is
    /// made; a foreign group of the same id and mode would be joined unnoticed.
    ///
    /// # Errors
    /// [`Code::Interface`] when the interface is down or went away, [`Code::Busy`] when the group is full or no id is free,
    /// [`Code::State`], [`Code::Kernel`].
    pub(super) fn join(
        &self,
        generation: u32,
        members: &[OwnedFd],
        interface: &str,
        ifindex: u32,
        degraded: &mut Vec<String>,
    ) -> Result<FanoutGroup> {
        let Some((first, others)) = members.split_first() else {
            return Err(Error::new(Code::State, "a fanout group needs a member"));
        };
        let own_mode = self.program().selector.mode();
        let own_id = (std::process::id() ^ ifindex << 8 ^ generation << 12) as u16;
        let mut last = None;
        for (mode, number) in [(self.mode, own_mode), (FanoutMode::Hash, PACKET_FANOUT_HASH)] {
            for flags in without_young_flags(self.flags) {
                let id = if flags & PACKET_FANOUT_FLAG_UNIQUEID != 0 { 0 } else { own_id };
                match set_fanout(first, id, number | flags) {
                    Ok(()) => {
                        self.describe_left_out(mode, flags, degraded);
                        return self.complete(
                            FanoutGroup { id, mode, flags },
                            number,
                            first,
                            others,
                            interface,
                        );
                    }
                    // The mode or a flag is unknown, or the interface is down (before Linux 6.13), and then so are all.
                    Err(e) if e.raw_os_error() == Some(libc::EINVAL) => last = Some(e),
                    Err(e) => return Err(refused(e, interface, 0)),
                }
            }
        }
        Err(refused(last.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL)), interface, 0))
    }

    /// Says in `degraded` what was left out: the mode in force is `mode`, the flags are `flags`.
    fn describe_left_out(&self, mode: FanoutMode, flags: u32, degraded: &mut Vec<String>) {
        if mode != self.mode {
            let asked = self.mode.as_str();
            degraded.push(format!("fanout {asked} is not known to this kernel: hash takes its place"));
        }
        if (self.flags & !flags) & PACKET_FANOUT_FLAG_UNIQUEID != 0 {
            degraded.push(
                "fanout flag uniqueid is not known to this kernel (4.12): another program may use the same group id"
                    .into(),
            );
        }
    }

    /// Joins the other members and attaches the program, once the first member has made the group. `mode` is the number of the
    /// mode in force.
    fn complete(
        &self,
        mut group: FanoutGroup,
        mode: u32,
        first: &OwnedFd,
        others: &[OwnedFd],
        interface: &str,
    ) -> Result<FanoutGroup> {
        group.id = socket::get_int(first, SOL_PACKET, PACKET_FANOUT)
            .map_err(|e| Error::os(Code::Kernel, "read the fanout group id back", e))?
            as u32 as u16;
        let flags = group.flags & !PACKET_FANOUT_FLAG_UNIQUEID;
        for (fd, index) in others.iter().zip(1..) {
            set_fanout(fd, group.id, mode | flags).map_err(|e| refused(e, interface, index))?;
        }
        if group.mode == self.mode {
            self.attach(first, interface)?;
        }
        Ok(group)
    }
}

/// Joins one socket (PACKET_FANOUT): the id is in the lower 16 bits, mode and flags are in the upper ones.
fn set_fanout(fd: &OwnedFd, id: u16, mode_and_flags: u32) -> io::Result<()> {
    socket::set_packet_words(fd, PACKET_FANOUT, &[u32::from(id) | mode_and_flags << 16])
}

/// Returns the flags to try, one after the other: all, then without those that came to the kernel late, youngest first
/// (ignore_outgoing in 6.2, uniqueid in 4.12).
fn without_young_flags(flags: u32) -> impl Iterator<Item = u32> {
    let mut tries = vec![
        flags,
        flags & !PACKET_FANOUT_FLAG_IGNORE_OUTGOING,
        flags & !(PACKET_FANOUT_FLAG_IGNORE_OUTGOING | PACKET_FANOUT_FLAG_UNIQUEID),
    ];
    tries.dedup();
    tries.into_iter()
}

/// Makes the error of a refused PACKET_FANOUT (net/packet/af_packet.c, `fanout_add`).
fn refused(e: io::Error, interface: &str, member: usize) -> Error {
    let (code, why) = match e.raw_os_error() {
        Some(libc::EINVAL) => (
            Code::Interface,
            "is the interface up (before Linux 6.13 joining needs that), or does another program use this group id \
             in another way?",
        ),
        Some(libc::ENOSPC) => (Code::Busy, "the group is full, or every group id is taken"),
        Some(libc::EALREADY) => (Code::State, "the socket is in a group already"),
        Some(libc::ENODEV | libc::ENXIO) => (Code::Interface, "the interface went away"),
        _ => (Code::Kernel, "unexpected"),
    };
    Error::os(code, format!("PACKET_FANOUT of member {member} on {interface}: {why}"), e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_left_out_youngest_first() {
        let all =
            PACKET_FANOUT_FLAG_UNIQUEID | PACKET_FANOUT_FLAG_IGNORE_OUTGOING | PACKET_FANOUT_FLAG_DEFRAG;
        let tries: Vec<u32> = without_young_flags(all).collect();
        assert_eq!(tries, [all, all & !PACKET_FANOUT_FLAG_IGNORE_OUTGOING, PACKET_FANOUT_FLAG_DEFRAG]);
        assert_eq!(without_young_flags(PACKET_FANOUT_FLAG_DEFRAG).count(), 1);
    }
}
