//! The fanout group: one set of frames, spread over the members' rings (Documentation/networking/packet_mmap.rst).
//!
//! Which member sees a datagram never matters for the result, because the rules decide its queue in user space: the
//! mode is a matter of locality and of even load.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use libc::{
    PACKET_FANOUT, PACKET_FANOUT_CBPF, PACKET_FANOUT_CPU, PACKET_FANOUT_DATA, PACKET_FANOUT_EBPF,
    PACKET_FANOUT_FLAG_DEFRAG, PACKET_FANOUT_FLAG_ROLLOVER, PACKET_FANOUT_FLAG_UNIQUEID, PACKET_FANOUT_HASH,
    PACKET_FANOUT_LB, PACKET_FANOUT_QM, PACKET_FANOUT_RND, PACKET_FANOUT_ROLLOVER, SOL_PACKET, sock_filter,
};

use crate::{
    bpf::syscall::Program,
    config::{EngineConfig, FanoutFlag, FanoutMode},
    error::{Code, Error, Result},
    rule::{CbpfTarget, RuleSet},
    rx::RulePrograms,
    sys::socket,
};

/// PACKET_FANOUT_FLAG_IGNORE_OUTGOING, since Linux 6.2.
const IGNORE_OUTGOING: u32 = 0x4000;

/// What decides, ready to be handed to the kernel.
#[derive(Clone)]
enum Demux {
    /// The kernel's own mode, `PACKET_FANOUT_*`.
    Kernel(u32),
    /// A classic program, attached to the group after joining.
    Classic(Vec<sock_filter>),
    /// An eBPF program. The group holds a reference of its own to it.
    Extended(Arc<Program>),
}

impl Demux {
    /// `PACKET_FANOUT_*`.
    fn kind(&self) -> u32 {
        match self {
            Demux::Kernel(kind) => *kind,
            Demux::Classic(_) => PACKET_FANOUT_CBPF,
            Demux::Extended(_) => PACKET_FANOUT_EBPF,
        }
    }

    /// Gives the program to the whole group of this member.
    fn attach(&self, member: &OwnedFd) -> io::Result<()> {
        match self {
            Demux::Kernel(_) => Ok(()),
            Demux::Classic(program) => socket::set_program(member, SOL_PACKET, PACKET_FANOUT_DATA, program),
            Demux::Extended(program) => {
                socket::set_int(member, SOL_PACKET, PACKET_FANOUT_DATA, program.as_fd().as_raw_fd())
            }
        }
    }
}

/// What a group is to be; kept to make it anew when a member dies, and changed by a reload of the rules.
pub(super) struct Wanted {
    mode: FanoutMode,
    flags: u32,
    /// Members, at least 1.
    members: u16,
    program: Mutex<Chosen>,
}

/// What decides, and what is said about it (nothing where the rules have no part in it).
#[derive(Clone)]
struct Chosen {
    demux: Demux,
    says: Option<String>,
}

/// The key in [`crate::rx::BackendInfo::granted`].
pub(super) const GRANTED: &str = "steering";

/// A joined group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// Group id; 0 is a valid one.
    pub(super) id: u16,
    /// The mode in force.
    pub(super) mode: FanoutMode,
    /// `PACKET_FANOUT_FLAG_*` in force.
    flags: u32,
}

impl Group {
    /// The group's hook skips outgoing frames. Without it the members' filters drop them, a little later.
    pub(super) fn ignores_outgoing(&self) -> bool {
        self.flags & IGNORE_OUTGOING != 0
    }

    /// A frame may go to another member than the mode says, because that one is full.
    pub(super) fn rolls_over(&self) -> bool {
        self.mode == FanoutMode::Rollover || self.flags & PACKET_FANOUT_FLAG_ROLLOVER != 0
    }

    /// Names of the flags, as in the configuration.
    pub(super) fn flag_names(&self) -> String {
        let known = [
            (PACKET_FANOUT_FLAG_ROLLOVER, "rollover"),
            (PACKET_FANOUT_FLAG_DEFRAG, "defrag"),
            (PACKET_FANOUT_FLAG_UNIQUEID, "uniqueid"),
            (IGNORE_OUTGOING, "ignore_outgoing"),
        ];
        let on: Vec<_> =
            known.iter().filter(|(bit, _)| self.flags & bit != 0).map(|(_, name)| *name).collect();
        if on.is_empty() { "none".into() } else { on.join(",") }
    }
}

impl Wanted {
    /// Prepares the mode. Where its program cannot be had the next best takes its place, with a sentence in `degraded`
    /// where that is more than a matter of the rules.
    pub(super) fn new(config: &EngineConfig, steering: &RulePrograms, degraded: &mut Vec<String>) -> Self {
        let members = config.rx_threads.max(1);
        let kernel = |kind| (config.fanout, Chosen { demux: Demux::Kernel(kind), says: None });
        let (mode, program) = match config.fanout {
            FanoutMode::Hash => kernel(PACKET_FANOUT_HASH),
            FanoutMode::Lb => kernel(PACKET_FANOUT_LB),
            FanoutMode::Cpu => kernel(PACKET_FANOUT_CPU),
            FanoutMode::Rollover => kernel(PACKET_FANOUT_ROLLOVER),
            FanoutMode::Rnd => kernel(PACKET_FANOUT_RND),
            FanoutMode::Qm => kernel(PACKET_FANOUT_QM),
            FanoutMode::Cbpf => (FanoutMode::Cbpf, classic(steering, members)),
            FanoutMode::Ebpf => match extended(steering, members) {
                Ok(chosen) => (FanoutMode::Ebpf, chosen),
                Err(e) => {
                    degraded.push(format!("fanout ebpf was refused, cbpf takes its place: {}", e.message));
                    (FanoutMode::Cbpf, classic(steering, members))
                }
            },
            // Classic BPF needs no capability; eBPF expresses more.
            FanoutMode::Rules => match (&steering.fanout, &steering.fanout_ebpf) {
                (Err(_), Ok(_)) => (
                    FanoutMode::Rules,
                    extended(steering, members).unwrap_or_else(|_| classic(steering, members)),
                ),
                _ => (FanoutMode::Rules, classic(steering, members)),
            },
        };
        let bit = |flag: &FanoutFlag| match flag {
            FanoutFlag::Rollover => PACKET_FANOUT_FLAG_ROLLOVER,
            FanoutFlag::Defrag => PACKET_FANOUT_FLAG_DEFRAG,
            FanoutFlag::Uniqueid => PACKET_FANOUT_FLAG_UNIQUEID,
            FanoutFlag::IgnoreOutgoing => IGNORE_OUTGOING,
        };
        let flags = config.fanout_flags.iter().map(bit).fold(0, |all, f| all | f);
        Wanted { mode, flags, members, program: Mutex::new(program) }
    }

    fn program(&self) -> MutexGuard<'_, Chosen> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the rules are run to steer, for people; `None` in modes that do not ask them.
    pub(super) fn says(&self) -> Option<String> {
        self.program().says.clone()
    }

    /// Takes the programs of other rules. What kind of program it is cannot change: that is the group's.
    pub(super) fn replace(&self, steering: &RulePrograms) {
        let mut program = self.program();
        match program.demux {
            Demux::Kernel(_) => {}
            Demux::Classic(_) => *program = classic(steering, self.members),
            Demux::Extended(_) => {
                // Whoever was allowed to load one is allowed to load another; and if not, the old one steers on.
                match extended(steering, self.members) {
                    Ok(chosen) => *program = chosen,
                    Err(e) => program.says = Some(format!("the rules of before: {}", e.message)),
                }
            }
        }
    }

    /// Gives the present program to a group that was made for this.
    ///
    /// # Errors
    /// [`Code::Kernel`].
    pub(super) fn attach(&self, member: &OwnedFd, interface: &str) -> Result<()> {
        let mode = self.mode.as_str();
        let failed = |e| Error::os(Code::Kernel, format!("PACKET_FANOUT_DATA ({mode}) on {interface}"), e);
        self.program().demux.attach(member).map_err(failed)
    }

    /// Joins bound sockets to a new group, in order: the position is the member's index. Flags and modes that this
    /// kernel does not know (EINVAL) are left out; `degraded` says which.
    ///
    /// The id is the kernel's choice (UNIQUEID), since pods with hostNetwork share one space of ids. Without that
    /// flag it comes from process, interface and `generation` (the old group still lives when the new one is made), and a
    /// foreign group of the same id and mode would be joined unnoticed.
    pub(super) fn join(
        &self,
        generation: u32,
        members: &[OwnedFd],
        interface: &str,
        ifindex: u32,
        degraded: &mut Vec<String>,
    ) -> Result<Group> {
        let Some((first, others)) = members.split_first() else {
            return Err(Error::new(Code::State, "a fanout group needs a member"));
        };
        let kind = self.program().demux.kind();
        let own_id = (std::process::id() ^ ifindex << 8 ^ generation << 12) as u16;
        let mut last = None;
        for (mode, kind) in [(self.mode, kind), (FanoutMode::Hash, PACKET_FANOUT_HASH)] {
            for flags in without_young_flags(self.flags) {
                let id = if flags & PACKET_FANOUT_FLAG_UNIQUEID != 0 { 0 } else { own_id };
                match set(first, id, kind | flags) {
                    Ok(()) => {
                        self.report(mode, flags, degraded);
                        return self.complete(Group { id, mode, flags }, kind, first, others, interface);
                    }
                    // An unknown mode or flag; an interface that is down gives EINVAL too (before 6.13), every time.
                    Err(e) if e.raw_os_error() == Some(libc::EINVAL) => last = Some(e),
                    Err(e) => return Err(refused(e, interface, 0)),
                }
            }
        }
        Err(refused(last.unwrap_or_else(|| libc_error(libc::EINVAL)), interface, 0))
    }

    fn report(&self, mode: FanoutMode, flags: u32, degraded: &mut Vec<String>) {
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

    /// The other members and the program, once the first one has made the group.
    fn complete(
        &self,
        mut group: Group,
        kind: u32,
        first: &OwnedFd,
        others: &[OwnedFd],
        interface: &str,
    ) -> Result<Group> {
        group.id = socket::get_int(first, SOL_PACKET, PACKET_FANOUT)
            .map_err(|e| Error::os(Code::Kernel, "read the fanout group id back", e))?
            as u32 as u16;
        let flags = group.flags & !PACKET_FANOUT_FLAG_UNIQUEID;
        for (fd, index) in others.iter().zip(1..) {
            set(fd, group.id, kind | flags).map_err(|e| refused(e, interface, index))?;
        }
        if group.mode == self.mode {
            self.attach(first, interface)?;
        }
        Ok(group)
    }
}

/// The rules in classic BPF, or else the flow's hash.
fn classic(steering: &RulePrograms, members: u16) -> Chosen {
    match &steering.fanout {
        Ok(program) => {
            Chosen { demux: Demux::Classic(program.clone()), says: Some("rules, classic BPF".into()) }
        }
        Err(why) => {
            let program = flow_hash(members).and_then(|rules| rules.to_cbpf(CbpfTarget::Fanout).ok());
            let demux = program.map_or(Demux::Kernel(PACKET_FANOUT_HASH), Demux::Classic);
            Chosen { demux, says: Some(format!("hash(flow), not rules: {why}")) }
        }
    }
}

/// The rules in eBPF, or else the flow's hash.
///
/// # Errors
/// The kernel's: [`Code::Permission`] without CAP_BPF, [`Code::Unsupported`].
fn extended(steering: &RulePrograms, members: u16) -> Result<Chosen> {
    let load = |code: &[u64]| Program::load_socket_filter("millrace_fan", code).map(Arc::new);
    let why = match &steering.fanout_ebpf {
        Ok(code) => {
            let demux = Demux::Extended(load(code)?);
            return Ok(Chosen { demux, says: Some("rules, eBPF".into()) });
        }
        Err(why) => why,
    };
    let code = flow_hash(members).and_then(|rules| rules.to_ebpf().ok());
    let code = code.ok_or_else(|| Error::new(Code::State, "hash(flow) does not compile to eBPF"))?;
    Ok(Chosen { demux: Demux::Extended(load(&code)?), says: Some(format!("hash(flow), not rules: {why}")) })
}

fn flow_hash(members: u16) -> Option<RuleSet> {
    RuleSet::compile("hash(flow)", members).ok()
}

fn set(fd: &OwnedFd, id: u16, kind_and_flags: u32) -> std::io::Result<()> {
    socket::set_words(fd, SOL_PACKET, PACKET_FANOUT, &[u32::from(id) | kind_and_flags << 16])
}

/// The flags, then without those that came late, youngest first.
fn without_young_flags(flags: u32) -> impl Iterator<Item = u32> {
    let mut tries =
        vec![flags, flags & !IGNORE_OUTGOING, flags & !(IGNORE_OUTGOING | PACKET_FANOUT_FLAG_UNIQUEID)];
    tries.dedup();
    tries.into_iter()
}

fn libc_error(errno: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno)
}

fn refused(e: std::io::Error, interface: &str, member: usize) -> Error {
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
        let all = PACKET_FANOUT_FLAG_UNIQUEID | IGNORE_OUTGOING | PACKET_FANOUT_FLAG_DEFRAG;
        let tries: Vec<u32> = without_young_flags(all).collect();
        assert_eq!(tries, [all, all & !IGNORE_OUTGOING, PACKET_FANOUT_FLAG_DEFRAG]);
        assert_eq!(without_young_flags(PACKET_FANOUT_FLAG_DEFRAG).count(), 1);
    }
}
