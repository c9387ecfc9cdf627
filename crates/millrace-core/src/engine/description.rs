//! The description of an open engine for the TypeScript side.

use serde::Serialize;

use crate::rx::{BackendInfo, ladder::RefusedBackend};

/// The TypeScript side reads this to allocate memory and to report the start.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct EngineDescription {
    /// Bytes of memory that each queue needs.
    pub queue_bytes: usize,
    /// Number of queues.
    pub queues: usize,
    /// Number of receive threads, the guard's included.
    pub threads: usize,
    /// The backend that was opened.
    pub backend: BackendInfo,
    /// Backends that `auto` could not open.
    pub refused: Vec<RefusedBackend>,
    /// Rule names by index.
    pub rules: Vec<String>,
}
