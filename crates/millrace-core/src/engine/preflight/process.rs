//! The privileges of this process: capabilities, seccomp, the limit of locked memory, real-time priority.

use std::fs;

use super::{
    super::real_time_messages,
    report::{CheckStatus, Findings},
};
use crate::{
    config::{BusyPoll, EngineConfig},
    sys::scheduling,
};

/// Capabilities that Millrace has a use for: bit (linux/capability.h), name, use.
const CAPABILITIES: [(u32, &str, &str); 5] = [
    (13, "CAP_NET_RAW", "packet and xdp"),
    (12, "CAP_NET_ADMIN", "xdp, receive buffers beyond net.core.rmem_max, preferred busy-polling"),
    (CAP_BPF, "CAP_BPF", "xdp and fanout ebpf"),
    (CAP_IPC_LOCK, "CAP_IPC_LOCK", "packet memory of xdp beyond RLIMIT_MEMLOCK"),
    (10, "CAP_NET_BIND_SERVICE", "ports below net.ipv4.ip_unprivileged_port_start"),
];
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;
const CAP_IPC_LOCK: u32 = 14;

/// Field `Seccomp` of a thread that runs under a filter: SECCOMP_MODE_FILTER (proc_pid_status(5)).
const SECCOMP_FILTER: &str = "2";

/// The calling thread's capabilities and limits.
pub(super) struct Process {
    /// Effective capabilities, one bit each; 0 when they cannot be read.
    effective: u64,
    /// Whether a seccomp filter is installed, which may hide system calls.
    pub(super) seccomp_filter: bool,
}

impl Process {
    /// Reads `/proc/thread-self/status`.
    pub(super) fn current() -> Self {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let effective =
            status_field(&status, "CapEff").and_then(|f| u64::from_str_radix(f, 16).ok()).unwrap_or(0);
        Process { effective, seccomp_filter: status_field(&status, "Seccomp") == Some(SECCOMP_FILTER) }
    }

    fn has(&self, capability: u32) -> bool {
        self.effective & 1 << capability != 0
    }

    /// Whether it may use bpf(2); CAP_SYS_ADMIN includes CAP_BPF (capabilities(7)).
    pub(super) fn may_use_bpf(&self) -> bool {
        self.has(CAP_BPF) || self.has(CAP_SYS_ADMIN)
    }

    /// Limit of locked memory in bytes that applies to this process; `None` when there is none.
    pub(super) fn memory_lock_limit(&self) -> Option<u64> {
        if self.has(CAP_IPC_LOCK) { None } else { memlock() }
    }
}

/// Adds a line for each capability.
pub(super) fn add_capabilities(findings: &mut Findings, process: &Process) {
    for (bit, name, used_for) in CAPABILITIES {
        if process.has(bit) || (bit == CAP_BPF && process.may_use_bpf()) {
            findings.add(name, CheckStatus::Ok, format!("for {used_for}"), "");
        } else {
            let cure = "add it to securityContext.capabilities (root), or as ambient or file capability";
            findings.add(name, CheckStatus::Missing, format!("needed for {used_for}"), cure);
        }
    }
}

/// Tries whether receive threads would get the configured real-time priority.
pub(super) fn try_priority(findings: &mut Findings, config: &EngineConfig) {
    let Some(priority) = config.rx_priority else { return };
    match scheduling::probe_fifo(priority) {
        Ok(()) if config.busy_poll == BusyPoll::Always => {
            let cure = "MILLRACE_BUSY_POLL=adaptive, or CPUs of their own by MILLRACE_RX_CPUS";
            findings.add("priority", CheckStatus::Degraded, real_time_messages::FIFO_WITHOUT_SLEEP, cure);
        }
        Ok(()) => findings.add("priority", CheckStatus::Ok, format!("SCHED_FIFO {priority} can be had"), ""),
        Err(e) => {
            let cure = "grant CAP_SYS_NICE, raise RLIMIT_RTPRIO, or leave MILLRACE_RX_PRIORITY unset";
            findings.add(
                "priority",
                CheckStatus::Degraded,
                real_time_messages::fifo_refused(priority, &e),
                cure,
            );
        }
    }
}

fn status_field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// RLIMIT_MEMLOCK in bytes from proc_pid_limits(5); `None` when unlimited.
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
