//! The order of the trials, and the backend that would be opened.

use std::sync::Arc;

use super::{
    backends, interface,
    process::{self, Process},
    report::{CheckStatus, Findings, PreflightReport},
};
use crate::{
    config::{BackendChoice, EngineConfig},
    rule::RuleSet,
    rx::RulePrograms,
};

/// Tries everything. Takes a fraction of a second.
pub fn run(config: &EngineConfig) -> PreflightReport {
    let mut findings = Findings(Vec::new());
    let process = Process::current();
    process::add_capabilities(&mut findings, &process);

    let programs = match RuleSet::compile(&config.rules, config.queues) {
        Ok(rules) => RulePrograms::from_rules(&Arc::new(rules), config),
        Err(e) => {
            findings.add("rules", CheckStatus::Missing, e.message, "correct the rules");
            return PreflightReport { findings: findings.0, backend: None };
        }
    };
    let mut usable =
        Usable { socket: backends::try_socket(&mut findings, config, &programs), ..Usable::default() };
    process::try_priority(&mut findings, config);
    if let Some(interface) = &interface::inspect(&mut findings, config) {
        usable.packet = backends::try_packet(&mut findings, config, &programs);
        let guard = backends::try_guard(&mut findings, config);
        let xdp = backends::try_xdp(config, interface, &process);
        usable.xdp = xdp.is_ok() && guard;
        interface::add_zero_copy(&mut findings, config, interface);
        interface::try_settings(&mut findings, config, interface);
        match xdp {
            Ok(text) => findings.add("xdp", CheckStatus::Ok, text, ""),
            Err((why, cure)) => findings.add("xdp", CheckStatus::Missing, why, &cure),
        }
    }
    let backend = usable.choose(config);
    add_backend(&mut findings, config, backend);
    PreflightReport { findings: findings.0, backend }
}

/// Which backends can be opened.
#[derive(Default)]
struct Usable {
    xdp: bool,
    packet: bool,
    socket: bool,
}

impl Usable {
    /// The backend that [`crate::rx::ladder::open`] would open.
    fn choose(&self, config: &EngineConfig) -> Option<&'static str> {
        let xdp = self.xdp.then_some("xdp");
        let packet = self.packet.then_some("packet");
        let socket = self.socket.then_some("socket");
        match config.backend {
            BackendChoice::Xdp => xdp,
            BackendChoice::Packet => packet,
            BackendChoice::Socket => socket,
            BackendChoice::Auto if config.interface.is_none() => socket,
            BackendChoice::Auto => xdp.or(packet).or(socket),
        }
    }
}

fn add_backend(findings: &mut Findings, config: &EngineConfig, backend: Option<&str>) {
    let Some(name) = backend else {
        let why = "the configured backend cannot be opened";
        return findings.add("backend", CheckStatus::Missing, why, "see above, or MILLRACE_BACKEND=auto");
    };
    let why = match config.backend {
        BackendChoice::Auto if config.interface.is_none() => {
            format!("auto takes {name}, because MILLRACE_INTERFACE is not set")
        }
        BackendChoice::Auto => format!("auto takes {name}"),
        _ => format!("{name}, as configured"),
    };
    findings.add("backend", CheckStatus::Ok, why, "");
}
