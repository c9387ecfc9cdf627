//! The kernel's counters for one receiver.

use serde::Serialize;

/// Counters that the kernel keeps for one receiver's sockets and rings, in datagrams or frames, cumulative since open.
#[derive(Debug, Clone, Default, Serialize, PartialEq, Eq)]
pub struct KernelCounters {
    /// `(reason, count)` of what the kernel lost, e.g. `("xsk_rx_dropped", 3)`. The reasons never overlap, so that their
    /// sum is the loss.
    pub lost: Vec<(&'static str, u64)>,
    /// `(name, value)` of further counters, e.g. `("xsk_fill_ring_empty", 3)`. They may overlap with each other and with
    /// `lost`, so they are for diagnosis only.
    pub notes: Vec<(&'static str, u64)>,
}
