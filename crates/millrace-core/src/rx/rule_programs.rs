//! The rules as programs that the kernel runs. They are compiled for each rule set, at the start and at each reload.
//!
//! Programs that *steer* (of a fanout group or a SO_REUSEPORT group) decide only which receive thread reads a datagram.
//! That is a matter of locality, so they may be missing or approximate: the thread evaluates the rules in any case. The
//! XDP program's early drops are final, so they are exact or absent.

use std::sync::Arc;

use libc::sock_filter;

use super::early::EarlyRules;
use crate::{
    config::{BackendChoice, EngineConfig, FanoutMode},
    error::Result,
    rule::{CbpfTarget, RuleSet},
    sys::socket,
};

/// The key in [`super::BackendInfo::granted`] whose value says where the rules run that select the receive thread.
pub const STEERING: &str = "steering";

/// A rule set's programs. Where one is missing, the error is the reason for the user.
#[derive(Debug, Clone)]
pub struct RulePrograms {
    /// Classic BPF for a fanout group. The kernel takes its result modulo the number of members
    /// (net/packet/af_packet.c, `fanout_demux_bpf`).
    pub fanout: std::result::Result<Vec<sock_filter>, String>,
    /// eBPF for a fanout group. It is made only for the modes that can use it: `rules` and `ebpf`.
    pub fanout_ebpf: std::result::Result<Vec<u64>, String>,
    /// Classic BPF for a SO_REUSEPORT group of one socket per receive thread (socket(7), SO_ATTACH_REUSEPORT_CBPF).
    pub reuseport: std::result::Result<Vec<sock_filter>, String>,
    /// The leading `drop` rules, for the XDP program; `None` where there are none or they may not be dropped early.
    pub early: Option<Arc<EarlyRules>>,
}

impl RulePrograms {
    /// Compiles every program, and has the kernel verify the classic ones on a throw-away socket: a program that the
    /// kernel refused only when the backend opens would cost the whole backend.
    pub fn from_rules(rules: &Arc<RuleSet>, config: &EngineConfig) -> Self {
        let compile = |target| {
            let program = rules.to_cbpf(target).map_err(|e| e.to_string())?;
            socket::open(libc::AF_INET, libc::SOCK_DGRAM, 0)
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
        RulePrograms { fanout, fanout_ebpf, reuseport, early: early(rules, config) }
    }
}

/// The programs of a backend that is opened without rules: none.
impl Default for RulePrograms {
    fn default() -> Self {
        RulePrograms { fanout: missing(), fanout_ebpf: missing(), reuseport: missing(), early: None }
    }
}

fn missing<T>() -> std::result::Result<T, String> {
    Err("no program was made from the rules".to_owned())
}

/// The early drops. When checksums are verified nothing is dropped early, because a datagram with a wrong checksum must
/// be counted as such and not as some rule's.
fn early(rules: &Arc<RuleSet>, config: &EngineConfig) -> Option<Arc<EarlyRules>> {
    let xdp = matches!(config.backend, BackendChoice::Xdp | BackendChoice::Auto);
    if !xdp || config.verify_checksum {
        return None;
    }
    // A process that may not create the counters' BPF map may not load an XDP program either.
    EarlyRules::new(rules).ok().flatten().map(Arc::new)
}

/// Replaces the programs of an open backend. An implementation holds no socket and no program alive: the receive threads
/// own those.
pub trait ReplacePrograms: Send {
    /// Puts the programs of another rule set in force, each in one atomic step. Returns the entry of
    /// [`super::BackendInfo::granted`] that describes what is in force now.
    ///
    /// # Errors
    /// Early drops are final, so when the kernel refuses to replace the XDP program, the old one stays and the old rules
    /// must stay as well. A steering program that cannot be replaced is given up instead, and the entry says so.
    fn replace(&self, programs: &RulePrograms) -> Result<(&'static str, String)>;
}
