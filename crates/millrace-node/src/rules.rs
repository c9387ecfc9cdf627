//! The functions behind `millrace rules`: checks, explanations, captures and dumps. None of them is on the data path. They
//! return JSON; [`millrace_core::rule::command`] and [`millrace_core::capture`] document its fields, and what is refused.

use std::path::Path;

use millrace_core::{
    capture,
    rule::{self, RuleSet, command},
};
use napi::{Result, bindgen_prelude::Uint8Array};
use napi_derive::napi;

use crate::{error, json};

/// Compiles a rule set for a number of queues: the names of its rules by index, and warnings, as JSON; throws what is wrong
/// with it.
#[napi]
pub fn compile_rules(text: String, queues: u32) -> Result<String> {
    json(&command::names(&text, queues).map_err(error)?)
}

/// Rules, warnings, and where the set runs, as JSON; throws what is wrong with the rules.
#[napi]
pub fn rules_report(text: String, queues: u32) -> Result<String> {
    json(&command::check(&text, queues).map_err(error)?)
}

/// Which rule takes a datagram, and why the ones before it do not, as JSON. `source` and `destination` are
/// `address:port`.
#[napi]
pub fn rules_explain(
    text: String,
    queues: u32,
    payload: Uint8Array,
    source: String,
    destination: String,
    rxq: u32,
    cpu: u32,
) -> Result<String> {
    let datagram = command::DatagramText {
        payload: &payload,
        source: &source,
        destination: &destination,
        rx_queue: rxq,
        cpu,
    };
    json(&command::explain(&text, queues, &datagram).map_err(error)?)
}

/// Applies the rules to a capture file and returns the `CaptureSummary` as JSON.
#[napi]
pub fn rules_capture(text: String, queues: u32, path: String) -> Result<String> {
    let queues = rule::queue_count(queues).map_err(error)?;
    let set = RuleSet::compile(&text, queues).map_err(error)?;
    json(&capture::summarize(&set, queues, Path::new(&path)).map_err(error)?)
}

/// A stage of the rules as text: `program`, `cbpf` (fanout), `reuseport` or `ebpf`.
#[napi]
pub fn rules_dump(text: String, queues: u32, what: String) -> Result<String> {
    command::dump(&text, queues, &what).map_err(error)
}
