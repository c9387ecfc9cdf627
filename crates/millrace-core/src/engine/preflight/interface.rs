//! The interface of xdp and packet, and settings that the configuration requires of it.

use super::report::{CheckStatus, Findings, cure};
use crate::{
    config::{BackendChoice, EngineConfig, ZeroCopy},
    net::{Interface, UdpHash},
    rx::xdp,
};

/// Finds the interface and adds what is to be known about it; `None` when there is none to receive on.
pub(super) fn inspect(findings: &mut Findings, config: &EngineConfig) -> Option<Interface> {
    let found = match &config.interface {
        Some(name) => Interface::by_name(name),
        None => Interface::of_default_route(),
    };
    let interface = match found {
        Ok(interface) => interface,
        Err(e) => {
            let state = if config.interface.is_some() { CheckStatus::Missing } else { CheckStatus::Degraded };
            let cure = "set MILLRACE_INTERFACE; without it auto uses sockets";
            findings.add("interface", state, e.message, cure);
            return None;
        }
    };
    let driver = interface.driver().unwrap_or_else(|| "unknown".into());
    add_link(findings, &interface, &driver);
    add_udp_hash(findings, &interface, &driver);
    Some(interface)
}

fn add_link(findings: &mut Findings, interface: &Interface, driver: &str) {
    let name = &interface.name;
    let link = match interface.link() {
        Ok(link) => link,
        Err(e) => return findings.add("interface", CheckStatus::Missing, e.message, cure(e.code)),
    };
    let queues = interface.rx_queues();
    let facts = format!("{name}: driver {driver}, {queues} rx queues, MTU {}, {}", link.mtu, link.operstate);
    if matches!(link.operstate, "down" | "lowerlayerdown") {
        let cure = "bring the link up: nothing arrives until then";
        findings.add("interface", CheckStatus::Degraded, facts, cure);
    } else {
        findings.add("interface", CheckStatus::Ok, facts, "");
    }
    if let Some(program) = link.xdp {
        let why = format!("program id {} ({}) is on {name}", program.program_id, program.mode);
        let cure = "`bpftool net` names its owner; Millrace never replaces it, auto takes packet";
        findings.add("foreign xdp", CheckStatus::Degraded, why, cure);
    } else {
        findings.add("foreign xdp", CheckStatus::Ok, format!("no XDP program on {name}"), "");
    }
}

fn add_udp_hash(findings: &mut Findings, interface: &Interface, driver: &str) {
    match interface.udp_hash() {
        UdpHash::Ports => {
            findings.add("rss", CheckStatus::Ok, "the NIC spreads UDP by addresses and ports", "")
        }
        UdpHash::AddressesOnly => {
            let cure = format!("ethtool -N {} rx-flow-hash udp4 sdfn (and udp6)", interface.name);
            findings.add("rss", CheckStatus::Degraded, "the NIC spreads UDP by addresses alone", &cure);
        }
        UdpHash::Unknown => {
            findings.add("rss", CheckStatus::Ok, format!("{driver} does not say how it spreads UDP"), "")
        }
    }
}

/// Adds what is to be expected of zero-copy where it is requested. Binding a socket would tell for certain, but may reset
/// the link.
pub(super) fn add_zero_copy(findings: &mut Findings, config: &EngineConfig, interface: &Interface) {
    let (trusted, why) = xdp::zero_copy_trusted(interface);
    let mut ok = |why: String| findings.add("zero-copy", CheckStatus::Ok, why, "");
    match (config.xdp_zerocopy, trusted) {
        (ZeroCopy::Off, _) => {}
        (ZeroCopy::Auto, true) => ok(format!("auto tries it: {why}")),
        (ZeroCopy::Auto, false) => ok(format!("auto copies: {why}")),
        (ZeroCopy::On, true) => ok(format!("on: {why}")),
        (ZeroCopy::On, false) => {
            let why = format!("on: {why}; without zero-copy in the driver the start fails");
            findings.add("zero-copy", CheckStatus::Degraded, why, "MILLRACE_XDP_ZEROCOPY=auto or off");
        }
    }
}

/// Tries whether the configured settings of the interface can be written.
pub(super) fn try_settings(findings: &mut Findings, config: &EngineConfig, interface: &Interface) {
    for (name, variable, value) in xdp::napi_settings::requested(config) {
        if matches!(config.backend, BackendChoice::Packet | BackendChoice::Socket) {
            let why = format!("{variable} is for xdp alone, the interface is left as it is");
            findings.add(name, CheckStatus::Degraded, why, "unset it");
            continue;
        }
        match xdp::napi_settings::probe(interface, name, value) {
            Ok(now) => findings.add(name, CheckStatus::Ok, format!("{now} now, can be set to {value}"), ""),
            Err(why) => findings.add(name, CheckStatus::Degraded, why, "see the line"),
        }
    }
}
