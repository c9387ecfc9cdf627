//! The ladder: xdp, then packet, then socket. An explicit choice fails hard; only `auto` steps down, and says why.

use serde::Serialize;

use super::{BackendInfo, Opened, Steer, Steering, guard, packet, socket, xdp};
use crate::{
    config::{BackendChoice, EngineConfig},
    error::{Code, Error, Result},
};

/// A rung that `auto` tried and was refused.
#[derive(Debug, Clone, Serialize)]
pub struct Refused {
    /// Backend.
    pub backend: &'static str,
    /// Code of the error.
    pub code: &'static str,
    /// Its message.
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
    /// What the kernel granted.
    pub fn info(&self) -> &BackendInfo {
        match self {
            Backend::Xdp(o) => &o.info,
            Backend::Packet(o) => &o.info,
            Backend::Socket(o) => &o.info,
        }
    }

    /// What replaces the programs made from the rules; once.
    pub fn take_steer(&mut self) -> Option<Box<dyn Steer>> {
        match self {
            Backend::Xdp(o) => o.steer.take(),
            Backend::Packet(o) => o.steer.take(),
            Backend::Socket(o) => o.steer.take(),
        }
    }

    /// Receive threads, without the guard's.
    pub fn receivers(&self) -> usize {
        match self {
            Backend::Xdp(o) => o.receivers.len(),
            Backend::Packet(o) => o.receivers.len(),
            Backend::Socket(o) => o.receivers.len(),
        }
    }

    /// Whether a guard thread is needed.
    pub fn has_guard(&self) -> bool {
        match self {
            Backend::Xdp(o) => o.guard.is_some(),
            Backend::Packet(o) => o.guard.is_some(),
            Backend::Socket(o) => o.guard.is_some(),
        }
    }
}

/// Opens the configured backend. `steering` has the programs made from the rules.
///
/// # Errors
/// That of the chosen backend; for `auto` that of the last rung (the sockets).
pub fn open(config: &EngineConfig, steering: &Steering) -> Result<(Backend, Vec<Refused>)> {
    match config.backend {
        BackendChoice::Xdp => Ok((open_xdp(config, steering)?, Vec::new())),
        BackendChoice::Packet => Ok((Backend::Packet(packet::open_steered(config, steering)?), Vec::new())),
        BackendChoice::Socket => Ok((Backend::Socket(socket::open(config, steering)?), Vec::new())),
        BackendChoice::Auto => auto(config, steering),
    }
}

fn auto(config: &EngineConfig, steering: &Steering) -> Result<(Backend, Vec<Refused>)> {
    let mut refused = Vec::new();
    let mut note = |backend, e: Error| {
        refused.push(Refused { backend, code: e.code.as_str(), message: e.message });
    };
    if config.interface.is_none() {
        // Attaching XDP can bounce a link, and a ring on one interface hears nothing of the others: both want a name.
        let why = "MILLRACE_INTERFACE is not set; name the interface to receive from";
        note("xdp", Error::new(Code::Config, why));
        note("packet", Error::new(Code::Config, why));
    } else {
        match open_xdp(config, steering) {
            Ok(backend) => return Ok((backend, refused)),
            Err(e) => note("xdp", e),
        }
        match packet::open_steered(config, steering) {
            Ok(opened) => return Ok((Backend::Packet(opened), refused)),
            Err(e) => note("packet", e),
        }
    }
    Ok((Backend::Socket(socket::open(config, steering)?), refused))
}

/// The guard first: a port that another process owns must be found before the interface is touched.
fn open_xdp(config: &EngineConfig, steering: &Steering) -> Result<Backend> {
    let guard = guard::open_for_xdp(config)?;
    let mut opened = xdp::open_steered(config, steering)?;
    opened.guard = Some(guard);
    Ok(Backend::Xdp(opened))
}
