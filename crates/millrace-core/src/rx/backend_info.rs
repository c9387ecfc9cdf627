//! The options and limits that the kernel granted to a backend.

use serde::Serialize;

/// The options and limits that the kernel granted, for the log, `/metrics` and the demo.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct BackendInfo {
    /// Name of the backend.
    #[cfg_attr(test, ts(type = "'xdp' | 'packet' | 'socket'"))]
    pub backend: &'static str,
    /// How it receives, e.g. `native copy`, `generic copy`, `tpacket_v3 fanout cbpf`, `reuseport`.
    pub mode: String,
    /// Interface it is bound to; none for sockets.
    pub interface: Option<String>,
    /// `(what, value)`, read back from the kernel: ring sizes, SO_RCVBUF, busy-poll, …
    pub granted: Vec<(String, String)>,
    /// Requests that were not granted, one sentence each.
    pub degraded: Vec<String>,
}

impl BackendInfo {
    /// Replaces an entry of `granted`, or adds it.
    pub fn grant(&mut self, what: &str, value: String) {
        match self.granted.iter_mut().find(|(key, _)| key == what) {
            Some(entry) => entry.1 = value,
            None => self.granted.push((what.into(), value)),
        }
    }
}
