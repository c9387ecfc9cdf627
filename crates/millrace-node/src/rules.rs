//! What `millrace rules` asks for: checks, explanations, captures, dumps. All of it off the data path.

use std::{net::SocketAddr, path::Path};

use millrace_core::{
    capture,
    datagram::Addr,
    error::{Code, Error},
    rule::{CbpfTarget, Explainer, Facts, RuleSet, Unsupported, Verdict},
};
use napi::{Result, bindgen_prelude::Uint8Array};
use napi_derive::napi;
use serde_json::{Value, json};

use crate::{error, json};

fn compile(text: &str, queues: u32) -> Result<RuleSet> {
    RuleSet::compile(text, u16::try_from(queues).unwrap_or(u16::MAX)).map_err(error)
}

/// How many sockets there are is not known here.
fn one_socket_a_queue(queues: u32) -> CbpfTarget {
    CbpfTarget::Reuseport { sockets: u16::try_from(queues).unwrap_or(u16::MAX) }
}

/// `{instructions}` or `{rule, why}`.
fn target<T>(program: std::result::Result<Vec<T>, Unsupported>) -> Value {
    match program {
        Ok(program) => json!({ "instructions": program.len() }),
        Err(e) => json!({ "rule": e.rule, "why": e.why }),
    }
}

/// Rules, warnings, and where the set runs, as JSON; throws what is wrong with the rules.
#[napi]
pub fn rules_report(text: String, queues: u32) -> Result<String> {
    let set = compile(&text, queues)?;
    let rules: Vec<Value> =
        set.describe().into_iter().map(|(name, text)| json!({ "name": name, "text": text })).collect();
    json(&json!({
        "rules": rules,
        "warnings": set.warnings(),
        "targets": {
            "fanout": target(set.to_cbpf(CbpfTarget::Fanout)),
            "reuseport": target(set.to_cbpf(one_socket_a_queue(queues))),
            "ebpf": target(set.to_ebpf()),
        },
        "earlyDrops": set.early_drop().map_or(0, |early| early.rules()),
    }))
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
    let socket = |text: &str| {
        text.parse::<SocketAddr>().map_err(|_| {
            error(Error::new(Code::Config, format!("{text:?}: expected address:port, such as 10.0.0.1:5000")))
        })
    };
    let (source, destination) = (socket(&source)?, socket(&destination)?);
    let explainer = Explainer::compile(&text, u16::try_from(queues).unwrap_or(u16::MAX)).map_err(error)?;
    let facts = Facts {
        payload: &payload,
        src: Addr::from(source.ip()).0,
        dst: Addr::from(destination.ip()).0,
        src_port: source.port(),
        dst_port: destination.port(),
        rx_queue: rxq as u16,
        cpu: cpu as u16,
    };
    let (verdict, trials) = explainer.explain(&facts, &mut explainer.rules().state_seeded(0, 0));
    let verdict = match verdict {
        Verdict::Queue { queue, spill, key, .. } => json!({ "queue": queue, "key": key, "spill": spill }),
        Verdict::Drop { .. } => json!({ "drop": true }),
    };
    json(&json!({ "verdict": verdict, "trials": trials }))
}

/// What the rules would have done with a capture file, as JSON.
#[napi]
pub fn rules_capture(text: String, queues: u32, path: String) -> Result<String> {
    let set = compile(&text, queues)?;
    let queues = u16::try_from(queues).unwrap_or(u16::MAX);
    json(&capture::analyse(&set, queues, Path::new(&path)).map_err(error)?)
}

/// A stage of the rules as text: `program`, `cbpf` (fanout), `reuseport` or `ebpf`.
#[napi]
pub fn rules_dump(text: String, queues: u32, what: String) -> Result<String> {
    let set = compile(&text, queues)?;
    let unsupported = |e: Unsupported| error(Error::new(Code::Unsupported, e.to_string()));
    match what.as_str() {
        "program" => Ok(set.dump_program()),
        "cbpf" => set.dump_cbpf(CbpfTarget::Fanout).map_err(unsupported),
        "reuseport" => set.dump_cbpf(one_socket_a_queue(queues)).map_err(unsupported),
        "ebpf" => set.dump_ebpf().map_err(unsupported),
        other => {
            let message = format!("dump {other:?}: expected program, cbpf, reuseport or ebpf");
            Err(error(Error::new(Code::Config, message)))
        }
    }
}
