//! The entries of [`crate::rx::BackendInfo`] that the engine itself adds, whichever backend is open.

use std::collections::HashSet;

use super::real_time_messages;
use crate::{
    config::{BusyPoll, EngineConfig},
    rx::{BackendInfo, xdp},
    sys::scheduling,
};

/// Entries that the engine adds to those of the backend, with the same meaning as in [`BackendInfo`].
#[derive(Default)]
pub(super) struct EngineGrants {
    granted: Vec<(String, String)>,
    degraded: Vec<String>,
}

impl EngineGrants {
    /// Finds out whether so many receive threads may have the configured real-time priority. Returns the priority they
    /// are to have.
    pub(super) fn request_priority(&mut self, config: &EngineConfig, receivers: usize) -> Option<u8> {
        let priority = config.rx_priority?;
        if let Err(e) = scheduling::probe_fifo(priority) {
            self.degraded.push(real_time_messages::fifo_refused(priority, &e));
            return None;
        }
        self.granted.push(("receive threads".into(), format!("SCHED_FIFO {priority}")));
        if config.busy_poll == BusyPoll::Always {
            self.degraded.push(real_time_messages::FIFO_WITHOUT_SLEEP.into());
        }
        let cpus = if config.rx_cpus.is_empty() {
            scheduling::allowed_cpus().map_or(receivers, |cpus| cpus.len())
        } else {
            config.rx_cpus.iter().collect::<HashSet<_>>().len()
        };
        if receivers > cpus {
            self.degraded.push(real_time_messages::fifo_crowded(receivers, cpus));
        }
        Some(priority)
    }

    /// Reports configured settings of the interface that only the xdp backend applies, when another one is open.
    pub(super) fn report_unused_settings(&mut self, config: &EngineConfig, backend: &str) {
        let variables: Vec<&str> =
            xdp::napi_settings::requested(config).map(|(_, variable, _)| variable).collect();
        if !variables.is_empty() && backend != "xdp" {
            self.degraded.push(format!(
                "{}: for xdp alone, unused with {backend}; the interface was left as it is",
                variables.join(" and "),
            ));
        }
    }

    /// Adds the engine's entries to those of the backend.
    pub(super) fn append_to(&self, info: &mut BackendInfo) {
        info.granted.extend_from_slice(&self.granted);
        info.degraded.extend_from_slice(&self.degraded);
    }
}
