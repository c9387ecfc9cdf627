//! The rules as programs that the kernel runs, made for each rule set: at the start and at each reload.
//!
//! Programs that *steer* (a fanout group, a SO_REUSEPORT group) decide by which receive thread a datagram comes, which is a
//! matter of locality: the thread evaluates the rules in any case. The XDP program's early drops decide in earnest, and are
//! exact.

use std::sync::Arc;

use libc::sock_filter;

use super::early::EarlyRules;
use crate::{
    config::{BackendChoice, EngineConfig, FanoutMode},
    error::Result,
    rule::{CbpfTarget, RuleSet},
    sys::socket,
};

/// A rule set's programs, each with the reason why it is missing.
#[derive(Debug, Clone)]
pub struct Steering {
    /// Classic BPF for a fanout group; the kernel takes the result modulo the members.
    pub fanout: std::result::Result<Vec<sock_filter>, String>,
    /// eBPF for a fanout group; not made for modes that have no use for it.
    pub fanout_ebpf: std::result::Result<Vec<u64>, String>,
    /// Classic BPF for a SO_REUSEPORT group of one socket for each receive thread.
    pub reuseport: std::result::Result<Vec<sock_filter>, String>,
    /// Leading `drop` rules for the XDP program.
    pub early: Option<Arc<EarlyRules>>,
}

impl Steering {
    /// Compiles, and lets the kernel check classic programs: one that it refuses later would cost the backend.
    pub fn from_rules(rules: &Arc<RuleSet>, config: &EngineConfig) -> Self {
        let compile = |target| {
            let program = rules.to_cbpf(target).map_err(|e| e.to_string())?;
            socket::open_udp_v4()
                .and_then(|fd| socket::attach_cbpf(&fd, libc::SO_ATTACH_FILTER, &program))
                .map_err(|e| format!("the kernel refuses the program: {e}"))?;
            Ok(program)
        };
        let fanout = compile(CbpfTarget::Fanout);
        let fanout_ebpf = if matches!(config.fanout, FanoutMode::Rules | FanoutMode::Ebpf) {
            rules.to_ebpf().map_err(|e| e.to_string())
        } else {
            missing()
        };
        let reuseport = compile(CbpfTarget::Reuseport { sockets: config.rx_threads });
        Steering { fanout, fanout_ebpf, reuseport, early: early(rules, config) }
    }
}

/// No rules, no programs.
impl Default for Steering {
    fn default() -> Self {
        Steering { fanout: missing(), fanout_ebpf: missing(), reuseport: missing(), early: None }
    }
}

fn missing<T>() -> std::result::Result<T, String> {
    Err("no program was made from the rules".to_owned())
}

/// With checksums to verify nothing is dropped early: what is spoilt must be counted as such and not as some rule's.
fn early(rules: &Arc<RuleSet>, config: &EngineConfig) -> Option<Arc<EarlyRules>> {
    let xdp = matches!(config.backend, BackendChoice::Xdp | BackendChoice::Auto);
    if !xdp || config.verify_checksum {
        return None;
    }
    // Without the right to make a map there is no XDP program either.
    EarlyRules::new(rules).ok().flatten().map(Arc::new)
}

/// The programs of an open backend. It holds no socket and no program in use: those go with their receive threads.
pub trait Steer: Send {
    /// Puts the programs of other rules in force, each in one step. Returns what is in force now, for
    /// [`super::BackendInfo::granted`].
    ///
    /// # Errors
    /// A program that decides in earnest can neither be replaced nor taken away; the old one stays, and so must the old
    /// rules. Programs that merely steer are given up instead, and the answer says so.
    fn steer(&self, steering: &Steering) -> Result<(&'static str, String)>;
}
