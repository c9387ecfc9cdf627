//! The selector of a fanout group, which selects the member for a frame: one of the kernel's modes, or a program made from the
//! rules.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
};

use libc::{
    PACKET_FANOUT_CBPF, PACKET_FANOUT_DATA, PACKET_FANOUT_EBPF, PACKET_FANOUT_HASH, SOL_PACKET, sock_filter,
};

use crate::{
    bpf::Program,
    error::{Code, Error, Result},
    rule::{CbpfTarget, RuleSet},
    rx::RulePrograms,
    sys::socket,
};

/// The selector, ready to be handed to the kernel.
#[derive(Clone)]
pub(super) enum Selector {
    /// One of the kernel's own modes, `PACKET_FANOUT_*`.
    Mode(u32),
    /// A classic program, attached to the group after joining.
    Classic(Vec<sock_filter>),
    /// An eBPF program. The group holds a reference of its own to it.
    Extended(Arc<Program>),
}

/// A selector and what it has to do with the rules.
#[derive(Clone)]
pub(super) struct FanoutProgram {
    pub(super) selector: Selector,
    /// Says where the rules run; `None` in modes that have nothing to do with the rules.
    pub(super) description: Option<String>,
}

impl Selector {
    /// Returns the mode to join with, `PACKET_FANOUT_*`.
    pub(super) fn mode(&self) -> u32 {
        match self {
            Selector::Mode(mode) => *mode,
            Selector::Classic(_) => PACKET_FANOUT_CBPF,
            Selector::Extended(_) => PACKET_FANOUT_EBPF,
        }
    }

    /// Gives the program to the whole group of this member (PACKET_FANOUT_DATA), in one step.
    pub(super) fn attach(&self, member: &OwnedFd) -> io::Result<()> {
        match self {
            Selector::Mode(_) => Ok(()),
            Selector::Classic(program) => socket::set_fanout_cbpf(member, program),
            Selector::Extended(program) => {
                socket::set_int(member, SOL_PACKET, PACKET_FANOUT_DATA, program.as_fd().as_raw_fd())
            }
        }
    }
}

impl FanoutProgram {
    /// Returns a mode of the kernel.
    pub(super) fn mode(mode: u32) -> Self {
        FanoutProgram { selector: Selector::Mode(mode), description: None }
    }

    /// Returns the rules in classic BPF, or the flow's hash where they cannot be expressed.
    pub(super) fn classic(programs: &RulePrograms, members: u16) -> Self {
        match &programs.fanout {
            Ok(program) => FanoutProgram {
                selector: Selector::Classic(program.clone()),
                description: Some("rules, classic BPF".into()),
            },
            Err(why) => {
                let program = flow_hash(members).and_then(|rules| rules.to_cbpf(CbpfTarget::Fanout).ok());
                let selector = program.map_or(Selector::Mode(PACKET_FANOUT_HASH), Selector::Classic);
                FanoutProgram { selector, description: Some(format!("hash(flow), not rules: {why}")) }
            }
        }
    }

    /// Returns the rules in eBPF, or the flow's hash where they cannot be expressed.
    ///
    /// # Errors
    /// Those of [`Program::load_socket_filter`]: [`Code::Permission`] without CAP_BPF, [`Code::Unsupported`].
    pub(super) fn extended(programs: &RulePrograms, members: u16) -> Result<Self> {
        let load = |code: &[u64]| Program::load_socket_filter("millrace_fan", code).map(Arc::new);
        let why = match &programs.fanout_ebpf {
            Ok(code) => {
                let selector = Selector::Extended(load(code)?);
                return Ok(FanoutProgram { selector, description: Some("rules, eBPF".into()) });
            }
            Err(why) => why,
        };
        let code = flow_hash(members).and_then(|rules| rules.to_ebpf().ok());
        let code = code.ok_or_else(|| Error::new(Code::State, "hash(flow) does not compile to eBPF"))?;
        let selector = Selector::Extended(load(&code)?);
        Ok(FanoutProgram { selector, description: Some(format!("hash(flow), not rules: {why}")) })
    }
}

fn flow_hash(members: u16) -> Option<RuleSet> {
    RuleSet::compile("hash(flow)", members).ok()
}
