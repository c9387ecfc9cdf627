//! Trials of the backends: each is opened as a start would open it, as far as that has no effect on others.

use super::{
    process::Process,
    report::{CheckStatus, Findings, cure},
};
use crate::{
    bpf::{
        Program, XskMap, action,
        xdp_program::{self, Spec},
    },
    config::{BackendChoice, EngineConfig},
    error::{Code, Error, Result},
    net::Interface,
    rx::{RulePrograms, guard, packet, socket, xdp},
};

/// Blocks of each ring when packet is tried: the smallest number that a configuration may have. It shows that ring memory
/// can be had, and takes little of it.
const TRIAL_BLOCKS: u32 = 4;

/// Opens the sockets and closes them again. False when they cannot be opened.
pub(super) fn try_socket(findings: &mut Findings, config: &EngineConfig, programs: &RulePrograms) -> bool {
    match socket::open(config, programs) {
        Ok(opened) => {
            findings.add_opened(&opened.info);
            true
        }
        Err(e) => {
            findings.add("socket", CheckStatus::Missing, e.message, cure(e.code));
            false
        }
    }
}

/// Opens small rings and closes them again. False when they cannot be opened.
pub(super) fn try_packet(findings: &mut Findings, config: &EngineConfig, programs: &RulePrograms) -> bool {
    let small = EngineConfig { packet_blocks: TRIAL_BLOCKS, ..config.clone() };
    match packet::open(&small, programs) {
        Ok(opened) => {
            findings.add_opened(&opened.info);
            true
        }
        Err(e) => {
            findings.add("packet", CheckStatus::Missing, e.message, cure(e.code));
            false
        }
    }
}

/// Binds the ports as the guard of xdp does, and joins its multicast groups. False when a start with xdp would fail.
pub(super) fn try_guard(findings: &mut Findings, config: &EngineConfig) -> bool {
    match guard::open_for_xdp(config) {
        Ok(_) => {
            let groups = match config.multicast.len() {
                0 => String::new(),
                1 => ", and one multicast group joined".into(),
                n => format!(", and {n} multicast groups joined"),
            };
            let why = format!("the ports can be held beside xdp{groups}");
            findings.add("guard", CheckStatus::Ok, why, "");
            true
        }
        Err(e) => {
            // A configuration with sockets alone loses nothing by it.
            let needed = config.backend != BackendChoice::Socket;
            let state = if needed { CheckStatus::Missing } else { CheckStatus::Degraded };
            findings.add("guard", state, format!("xdp cannot hold the ports: {}", e.message), cure(e.code));
            false
        }
    }
}

/// Tries everything that xdp needs but attaching the program and binding sockets, which can reset a link. Returns what was
/// found, or why xdp cannot be opened and what to do about it.
pub(super) fn try_xdp(
    config: &EngineConfig,
    interface: &Interface,
    process: &Process,
) -> std::result::Result<String, (String, String)> {
    let explain = |e: Error| {
        if e.code == Code::Permission && process.may_use_bpf() && process.seccomp_filter {
            let cure =
                "seccomp profile RuntimeDefault hides bpf(2) in some runtimes: allow it, or use Unconfined";
            return (e.message, cure.to_owned());
        }
        (e.message, cure(e.code).to_owned())
    };
    let queues = interface.rx_queues();
    let link = interface.link().map_err(explain)?;
    if let Some(program) = link.xdp {
        let why = format!("a foreign XDP program owns {}, id {}", interface.name, program.program_id);
        return Err((why, "`bpftool net` names its owner".into()));
    }
    load_program(config).map_err(explain)?;
    xdp::probe_socket(config.xdp_frames).map_err(explain)?;
    let umem = u64::from(queues) * u64::from(config.xdp_frames) * u64::from(xdp::umem::FRAME_BYTES);
    if let Some(limit) = process.memory_lock_limit().filter(|limit| *limit < umem) {
        let why = format!("{queues} rx queues need {umem} bytes of locked memory, RLIMIT_MEMLOCK is {limit}");
        let cure = "raise it (LimitMEMLOCK= of the container runtime), grant CAP_IPC_LOCK, or lower MILLRACE_XDP_FRAMES";
        return Err((why, cure.into()));
    }
    Ok(format!("program, map, sockets and {umem} bytes of packet memory can be had; attaching was not tried"))
}

/// Has the kernel verify a program for the listen list; it is unloaded at once.
fn load_program(config: &EngineConfig) -> Result<()> {
    let map = XskMap::new(1)?;
    let spec =
        Spec { listen: &config.listen, map_fd: map.raw_fd(), empty_slot: action::PASS, max_frame: 2048 };
    Program::load("millrace_check", &xdp_program::generate(&spec)?, 0).map(drop)
}
