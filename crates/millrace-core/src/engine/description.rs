//! What the TypeScript side is told of an open engine, and of rules before they are in force.

use serde::Serialize;

use crate::{
    error::{Code, Error, Result},
    rule::RuleSet,
    rx::{BackendInfo, ladder::RefusedBackend},
};

/// What the TypeScript side needs to allocate memory, and what it shows.
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

/// What there is to know of a rule set before it is in force.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct CompiledRules {
    /// Rule names by index.
    pub names: Vec<String>,
    /// What the rules allow but probably do not mean, one sentence each.
    pub warnings: Vec<String>,
}

impl CompiledRules {
    /// Compiles a rule set for a number of queues.
    ///
    /// # Errors
    /// [`Code::Config`] for more than 65,535 queues; [`Code::Rules`] when the rules do not compile.
    pub fn new(text: &str, queues: u32) -> Result<Self> {
        let queues = u16::try_from(queues).map_err(|_| {
            Error::new(Code::Config, format!("queues = {queues}: expected at most {}", u16::MAX))
        })?;
        let rules = RuleSet::compile(text, queues)?;
        Ok(CompiledRules { names: rules.names(), warnings: rules.warnings().to_vec() })
    }
}
