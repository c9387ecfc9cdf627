//! The ladder of backends: xdp, then packet, then socket. A backend that the configuration names is opened or the start
//! fails; only `auto` steps down, and records why each backend above was refused.

use serde::Serialize;

use super::{BackendInfo, Opened, ReplacePrograms, RulePrograms, guard, packet, socket, xdp};
use crate::{
    config::{BackendChoice, EngineConfig},
    error::{Code, Error, Result},
};

/// A backend that `auto` could not open.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct RefusedBackend {
    /// Name of the backend.
    #[cfg_attr(test, ts(type = "'xdp' | 'packet'"))]
    pub backend: &'static str,
    /// Code of the error in its stable text form, `MILLRACE_E_…`.
    pub code: &'static str,
    /// Message of the error.
    pub message: String,
}

/// An open backend.
pub enum Backend {
    /// AF_XDP.
    Xdp(Opened<xdp::XdpReceiver>),
    /// AF_PACKET.
    Packet(Opened<packet::PacketReceiver>),
    /// UDP sockets.
    Socket(Opened<socket::SocketReceiver>),
}

impl Backend {
    /// Returns the options and limits that the kernel granted.
    pub fn info(&self) -> &BackendInfo {
        match self {
            Backend::Xdp(o) => &o.info,
            Backend::Packet(o) => &o.info,
            Backend::Socket(o) => &o.info,
        }
    }

    /// Hands over what replaces the programs made from the rules; `None` where there is none, and from the second call
    /// on.
    pub fn take_programs(&mut self) -> Option<Box<dyn ReplacePrograms>> {
        match self {
            Backend::Xdp(o) => o.programs.take(),
            Backend::Packet(o) => o.programs.take(),
            Backend::Socket(o) => o.programs.take(),
        }
    }

    /// Number of receive threads, not counting the guard's.
    pub fn receivers(&self) -> usize {
        match self {
            Backend::Xdp(o) => o.receivers.len(),
            Backend::Packet(o) => o.receivers.len(),
            Backend::Socket(o) => o.receivers.len(),
        }
    }

    /// Whether there is a guard, which needs a thread of its own.
    pub fn has_guard(&self) -> bool {
        match self {
            Backend::Xdp(o) => o.guard.is_some(),
            Backend::Packet(o) => o.guard.is_some(),
            Backend::Socket(o) => o.guard.is_some(),
        }
    }
}

/// Opens the configured backend with the programs made from the rules. Returns as well what `auto` was refused above it.
///
/// # Errors
/// That of the chosen backend; for `auto` that of the last one, the sockets.
pub fn open(config: &EngineConfig, programs: &RulePrograms) -> Result<(Backend, Vec<RefusedBackend>)> {
    match config.backend {
        BackendChoice::Xdp => Ok((open_xdp(config, programs)?, Vec::new())),
        BackendChoice::Packet => Ok((Backend::Packet(packet::open(config, programs)?), Vec::new())),
        BackendChoice::Socket => Ok((Backend::Socket(socket::open(config, programs)?), Vec::new())),
        BackendChoice::Auto => open_best(config, programs),
    }
}

fn open_best(config: &EngineConfig, programs: &RulePrograms) -> Result<(Backend, Vec<RefusedBackend>)> {
    let mut refused = Vec::new();
    let mut refuse = |backend, e: Error| {
        refused.push(RefusedBackend { backend, code: e.code.as_str(), message: e.message });
    };
    if config.interface.is_none() {
        // `auto` touches no interface that was not named: attaching XDP can bounce a link, and a ring on one interface
        // sees nothing of the traffic on others.
        let why = "MILLRACE_INTERFACE is not set; name the interface to receive from";
        refuse("xdp", Error::new(Code::Config, why));
        refuse("packet", Error::new(Code::Config, why));
    } else {
        match open_xdp(config, programs) {
            Ok(backend) => return Ok((backend, refused)),
            Err(e) => refuse("xdp", e),
        }
        match packet::open(config, programs) {
            Ok(opened) => return Ok((Backend::Packet(opened), refused)),
            Err(e) => refuse("packet", e),
        }
    }
    Ok((Backend::Socket(socket::open(config, programs)?), refused))
}

/// Opens the guard before the XDP backend: a port that another process owns must be found before the interface is
/// touched.
fn open_xdp(config: &EngineConfig, programs: &RulePrograms) -> Result<Backend> {
    let guard = guard::open_for_xdp(config)?;
    let mut opened = xdp::open(config, programs)?;
    opened.guard = Some(guard);
    Ok(Backend::Xdp(opened))
}
