//! `millrace check`: what this host, this process and this configuration allow, found out by trying and not by comparing
//! versions. Nothing is attached to an interface and nothing is left behind.

use std::fs;
use std::sync::Arc;

use serde::Serialize;

use crate::{
    bpf::{
        Program, XskMap, action,
        xdp_program::{self, Spec},
    },
    config::{BackendChoice, BusyPoll, EngineConfig, ZeroCopy},
    error::{Code, Result},
    net::{Interface, UdpHash},
    real_time_messages,
    rule::RuleSet,
    rx::{BackendInfo, Steering, guard, packet, socket, xdp},
    sys::scheduling,
};

/// A verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Works, with less than there could be.
    Degraded,
    /// Not there.
    Missing,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// Verdict.
    pub state: State,
    /// Why.
    pub why: String,
    /// What to do about it; empty when all is well.
    pub cure: String,
}

/// The whole table.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// In the order in which they were looked at.
    pub findings: Vec<Finding>,
    /// Backend that would be opened now: the configured one, or the choice of `auto`. None when there is none.
    pub backend: Option<&'static str>,
}

/// Capabilities we have a use for: bit, name, use.
const CAPABILITIES: [(u32, &str, &str); 5] = [
    (13, "CAP_NET_RAW", "packet and xdp"),
    (12, "CAP_NET_ADMIN", "xdp, receive buffers beyond net.core.rmem_max, preferred busy-polling"),
    (39, "CAP_BPF", "xdp and fanout ebpf"),
    (14, "CAP_IPC_LOCK", "packet memory of xdp beyond RLIMIT_MEMLOCK"),
    (10, "CAP_NET_BIND_SERVICE", "ports below net.ipv4.ip_unprivileged_port_start"),
];
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;
const CAP_IPC_LOCK: u32 = 14;
/// Bytes of rings tried for packet: enough to see that memory can be had, little enough to have no effect.
const TRIAL_BLOCKS: u32 = 4;

struct Table(Vec<Finding>);

impl Table {
    fn add(&mut self, name: impl Into<String>, state: State, why: impl Into<String>, cure: &str) {
        self.0.push(Finding { name: name.into(), state, why: why.into(), cure: cure.into() });
    }

    /// A backend that opened: itself, and a line for each thing not granted.
    fn opened(&mut self, info: &BackendInfo) {
        self.add(info.backend, State::Ok, format!("opens: {}", info.mode), "");
        for (_, value) in info.granted.iter().filter(|(what, _)| what == "steering") {
            self.add(info.backend, State::Ok, format!("steers by {value}"), "");
        }
        for what in &info.degraded {
            self.add(info.backend, State::Degraded, what.clone(), "see the line");
        }
    }
}

/// Looks at everything. Takes a fraction of a second.
pub fn run(config: &EngineConfig) -> Report {
    let mut table = Table(Vec::new());
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective =
        status_field(&status, "CapEff").and_then(|f| u64::from_str_radix(f, 16).ok()).unwrap_or(0);
    capabilities(&mut table, effective);

    let steering = match RuleSet::compile(&config.rules, config.queues) {
        Ok(rules) => Steering::from_rules(&Arc::new(rules), config),
        Err(e) => {
            table.add("rules", State::Missing, e.message, "correct the rules");
            return Report { findings: table.0, backend: None };
        }
    };
    let socket = match socket::open(config, &steering) {
        Ok(opened) => {
            table.opened(&opened.info);
            true
        }
        Err(e) => {
            table.add("socket", State::Missing, e.message.clone(), cure(e.code));
            false
        }
    };
    priority(&mut table, config);
    let interface = interface(&mut table, config);
    let (mut packet, mut xdp) = (false, false);
    if let Some(interface) = &interface {
        packet = try_packet(&mut table, config, &steering);
        let guard = guard(&mut table, config);
        let attempt = try_xdp(config, interface, effective, &status);
        xdp = attempt.is_ok() && guard;
        zero_copy(&mut table, config, interface);
        settings(&mut table, config, interface);
        match attempt {
            Ok(text) => table.add("xdp", State::Ok, text, ""),
            Err((why, cure)) => table.add("xdp", State::Missing, why, &cure),
        }
    }

    let backend = match config.backend {
        BackendChoice::Xdp => xdp.then_some("xdp"),
        BackendChoice::Packet => packet.then_some("packet"),
        BackendChoice::Socket => socket.then_some("socket"),
        BackendChoice::Auto if config.interface.is_none() => socket.then_some("socket"),
        BackendChoice::Auto => {
            let ladder = [(xdp, "xdp"), (packet, "packet"), (socket, "socket")];
            ladder.into_iter().find(|(usable, _)| *usable).map(|(_, name)| name)
        }
    };
    match (backend, config.backend) {
        (Some(name), BackendChoice::Auto) if config.interface.is_none() => {
            let why = format!("auto takes {name}, because MILLRACE_INTERFACE is not set");
            table.add("backend", State::Ok, why, "");
        }
        (Some(name), BackendChoice::Auto) => {
            table.add("backend", State::Ok, format!("auto takes {name}"), "")
        }
        (Some(name), _) => table.add("backend", State::Ok, format!("{name}, as configured"), ""),
        (None, _) => table.add(
            "backend",
            State::Missing,
            "the configured backend cannot be opened",
            "see above, or MILLRACE_BACKEND=auto",
        ),
    }
    Report { findings: table.0, backend }
}

fn status_field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn capabilities(table: &mut Table, effective: u64) {
    let has = |bit: u32| effective & 1 << bit != 0;
    for (bit, name, used_for) in CAPABILITIES {
        if has(bit) || (bit == CAP_BPF && has(CAP_SYS_ADMIN)) {
            table.add(name, State::Ok, format!("for {used_for}"), "");
        } else {
            let cure = "add it to securityContext.capabilities (root), or as ambient or file capability";
            table.add(name, State::Missing, format!("needed for {used_for}"), cure);
        }
    }
}

const fn cure(code: Code) -> &'static str {
    match code {
        Code::Port => "stop the other program, or change MILLRACE_LISTEN",
        Code::Permission => "grant what the line names",
        Code::Interface => "check MILLRACE_INTERFACE against `ip link`",
        Code::Config => "change the configuration",
        _ => "see the line",
    }
}

/// The interface of xdp and packet, and what is to be known about it.
fn interface(table: &mut Table, config: &EngineConfig) -> Option<Interface> {
    let found = match &config.interface {
        Some(name) => Interface::by_name(name),
        None => Interface::of_default_route(),
    };
    let interface = match found {
        Ok(interface) => interface,
        Err(e) => {
            let state = if config.interface.is_some() { State::Missing } else { State::Degraded };
            table.add("interface", state, e.message, "set MILLRACE_INTERFACE; without it auto uses sockets");
            return None;
        }
    };
    let driver = interface.driver().unwrap_or_else(|| "unknown".into());
    let name = &interface.name;
    match interface.link() {
        Ok(link) => {
            let queues = interface.rx_queues();
            let facts =
                format!("{name}: driver {driver}, {queues} rx queues, MTU {}, {}", link.mtu, link.operstate);
            if matches!(link.operstate, "down" | "lowerlayerdown") {
                table.add(
                    "interface",
                    State::Degraded,
                    facts,
                    "bring the link up: nothing arrives until then",
                );
            } else {
                table.add("interface", State::Ok, facts, "");
            }
            if let Some(program) = link.xdp {
                let why = format!("program id {} ({}) is on {name}", program.program_id, program.mode);
                let cure = "`bpftool net` names its owner; Millrace never replaces it, auto takes packet";
                table.add("foreign xdp", State::Degraded, why, cure);
            } else {
                table.add("foreign xdp", State::Ok, format!("no XDP program on {name}"), "");
            }
        }
        Err(e) => table.add("interface", State::Missing, e.message, cure(e.code)),
    }
    match interface.udp_hash() {
        UdpHash::Ports => table.add("rss", State::Ok, "the NIC spreads UDP by addresses and ports", ""),
        UdpHash::AddressesOnly => {
            let cure = format!("ethtool -N {name} rx-flow-hash udp4 sdfn (and udp6)");
            table.add("rss", State::Degraded, "the NIC spreads UDP by addresses alone", &cure);
        }
        UdpHash::Unknown => {
            table.add("rss", State::Ok, format!("{driver} does not say how it spreads UDP"), "")
        }
    }
    Some(interface)
}

fn try_packet(table: &mut Table, config: &EngineConfig, steering: &Steering) -> bool {
    let small = EngineConfig { packet_blocks: TRIAL_BLOCKS, ..config.clone() };
    match packet::open_steered(&small, steering) {
        Ok(opened) => {
            table.opened(&opened.info);
            true
        }
        Err(e) => {
            table.add("packet", State::Missing, e.message, cure(e.code));
            false
        }
    }
}

/// The ports as xdp holds them, and its multicast groups. False when a start would fail.
fn guard(table: &mut Table, config: &EngineConfig) -> bool {
    match guard::open_for_xdp(config) {
        Ok(_) => {
            let groups = match config.multicast.len() {
                0 => String::new(),
                1 => ", and one multicast group joined".into(),
                n => format!(", and {n} multicast groups joined"),
            };
            table.add("guard", State::Ok, format!("the ports can be held beside xdp{groups}"), "");
            true
        }
        Err(e) => {
            // Who asks for sockets alone need not hear that others are missing something.
            let wanted = config.backend != BackendChoice::Socket;
            let state = if wanted { State::Missing } else { State::Degraded };
            table.add("guard", state, format!("xdp cannot hold the ports: {}", e.message), cure(e.code));
            false
        }
    }
}

/// Whether the threads would get the priority asked for.
fn priority(table: &mut Table, config: &EngineConfig) {
    let Some(priority) = config.rx_priority else { return };
    match scheduling::probe_fifo(priority) {
        Ok(()) if config.busy_poll == BusyPoll::Always => {
            let cure = "MILLRACE_BUSY_POLL=adaptive, or CPUs of their own by MILLRACE_RX_CPUS";
            table.add("priority", State::Degraded, real_time_messages::FIFO_WITHOUT_SLEEP, cure);
        }
        Ok(()) => table.add("priority", State::Ok, format!("SCHED_FIFO {priority} can be had"), ""),
        Err(e) => {
            let cure = "grant CAP_SYS_NICE, raise RLIMIT_RTPRIO, or leave MILLRACE_RX_PRIORITY unset";
            table.add("priority", State::Degraded, real_time_messages::fifo_refused(priority, &e), cure);
        }
    }
}

/// What is to be expected of zero-copy where it is asked for; binding would tell, and may reset the link.
fn zero_copy(table: &mut Table, config: &EngineConfig, interface: &Interface) {
    let (trusted, why) = xdp::zero_copy_trusted(interface);
    match (config.xdp_zerocopy, trusted) {
        (ZeroCopy::Off, _) => {}
        (ZeroCopy::Auto, true) => table.add("zero-copy", State::Ok, format!("auto tries it: {why}"), ""),
        (ZeroCopy::Auto, false) => table.add("zero-copy", State::Ok, format!("auto copies: {why}"), ""),
        (ZeroCopy::On, true) => table.add("zero-copy", State::Ok, format!("on: {why}"), ""),
        (ZeroCopy::On, false) => {
            let why = format!("on: {why}; without zero-copy in the driver the start fails");
            table.add("zero-copy", State::Degraded, why, "MILLRACE_XDP_ZEROCOPY=auto or off");
        }
    }
}

/// Settings of the interface, where asked for.
fn settings(table: &mut Table, config: &EngineConfig, interface: &Interface) {
    for (name, variable, value) in xdp::napi_settings::requested(config) {
        if matches!(config.backend, BackendChoice::Packet | BackendChoice::Socket) {
            let why = format!("{variable} is for xdp alone, the interface is left as it is");
            table.add(name, State::Degraded, why, "unset it");
            continue;
        }
        match xdp::napi_settings::probe(interface, name, value) {
            Ok(now) => table.add(name, State::Ok, format!("{now} now, can be set to {value}"), ""),
            Err(why) => table.add(name, State::Degraded, why, "see the line"),
        }
    }
}

/// Everything but attaching and binding, which can reset a link.
fn try_xdp(
    config: &EngineConfig,
    interface: &Interface,
    effective: u64,
    status: &str,
) -> std::result::Result<String, (String, String)> {
    let explain = |e: crate::error::Error| {
        let bpf = effective & (1 << CAP_BPF | 1 << CAP_SYS_ADMIN) != 0;
        // 2: SECCOMP_MODE_FILTER (proc_pid_status(5)).
        if e.code == Code::Permission && bpf && status_field(status, "Seccomp") == Some("2") {
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
    load(config).map_err(explain)?;
    xdp::probe_socket(config.xdp_frames).map_err(explain)?;
    let umem = u64::from(queues) * u64::from(config.xdp_frames) * u64::from(xdp::umem::FRAME_BYTES);
    let limit = memlock();
    if effective & 1 << CAP_IPC_LOCK == 0 && limit.is_some_and(|limit| limit < umem) {
        let why = format!(
            "{queues} rx queues need {umem} bytes of locked memory, RLIMIT_MEMLOCK is {}",
            limit.unwrap_or(0)
        );
        let cure = "raise it (LimitMEMLOCK= of the container runtime), grant CAP_IPC_LOCK, or lower MILLRACE_XDP_FRAMES";
        return Err((why, cure.into()));
    }
    Ok(format!("program, map, sockets and {umem} bytes of packet memory can be had; attaching was not tried"))
}

fn load(config: &EngineConfig) -> Result<()> {
    let map = XskMap::new(1)?;
    let spec =
        Spec { listen: &config.listen, map_fd: map.raw_fd(), empty_slot: action::PASS, max_frame: 2048 };
    Program::load("millrace_check", &xdp_program::generate(&spec)?, 0).map(drop)
}

/// RLIMIT_MEMLOCK in bytes from proc_pid_limits(5); None when unlimited.
fn memlock() -> Option<u64> {
    let limits = fs::read_to_string("/proc/thread-self/limits").ok()?;
    limits.lines().find_map(|l| l.strip_prefix("Max locked memory"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_status_file() {
        let status = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\nCapEff:\t00000000a80425fb\n";
        assert_eq!(status_field(status, "Seccomp"), Some("2"));
        assert_eq!(status_field(status, "CapEff"), Some("00000000a80425fb"));
        assert_eq!(status_field(status, "Cap"), None);
    }
}
