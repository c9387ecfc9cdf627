//! Answers `millrace rules`: what a rule set compiles to, why it decides as it does, and its stages as text.
//!
//! The structures serialize to the JSON that `src/cli/rules.ts` reads, and that `--json` prints. Fields are declared in the
//! order in which they are printed. Numbers come with 32 bits, as the addon gets them from JavaScript; one that does not fit
//! is refused.

use super::cbpf::CbpfTarget;
use super::compile::queue_count;
use super::explain::{Explainer, RuleTrace};
use super::facts::Facts;
use super::kernel::Unsupported;
use super::set::RuleSet;
use super::verdict::Verdict;
use crate::datagram::Addr;
use crate::error::{Code, Error, Result};
use serde::Serialize;
use std::net::SocketAddr;

/// The description of a rule set before it is in force.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct CompiledRules {
    /// Rule names by index.
    pub names: Vec<String>,
    /// Warnings about rules that are allowed but probably not meant, one sentence each.
    pub warnings: Vec<String>,
}

/// The result of compiling a rule set: `millrace rules check`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct RulesReport {
    /// How many rules, from the first on, the XDP program drops by itself.
    pub early_drops: u16,
    pub rules: Vec<RuleText>,
    pub targets: Translations,
    pub warnings: Vec<String>,
}

/// Name and canonical text of a rule.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[allow(missing_docs)]
pub struct RuleText {
    pub name: String,
    pub text: String,
}

/// Whether each kind of kernel program can be made.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Translations {
    /// eBPF for a fanout group.
    pub ebpf: Translation,
    /// Classic BPF for a fanout group.
    pub fanout: Translation,
    /// Classic BPF for a SO_REUSEPORT group of one socket for each queue.
    pub reuseport: Translation,
}

/// The result of one translation.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum Translation {
    Program {
        instructions: usize,
    },
    Unsupported {
        /// Name of the first rule that cannot be translated.
        rule: String,
        #[serde(rename = "why")]
        reason: String,
    },
}

impl<T> From<std::result::Result<Vec<T>, Unsupported>> for Translation {
    fn from(program: std::result::Result<Vec<T>, Unsupported>) -> Self {
        match program {
            Ok(program) => Translation::Program { instructions: program.len() },
            Err(Unsupported { rule, reason }) => Translation::Unsupported { rule, reason },
        }
    }
}

/// The decision about one datagram, and its reasons: `millrace rules explain --hex`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Explanation {
    /// The rules that were tried, in order; the last of them decided.
    pub trials: Vec<RuleTrace>,
    /// The decision.
    pub verdict: ExplainedVerdict,
}

/// A verdict, without the rule, which is the last of [`Explanation::trials`].
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum ExplainedVerdict {
    /// The fields are those of [`Verdict::Queue`].
    Queue { key: u32, queue: u16, spill: Option<(u16, u16)> },
    /// `drop` is always true.
    Drop { drop: bool },
}

/// A datagram as it is given on the command line.
#[derive(Debug, Clone, Copy)]
pub struct DatagramText<'a> {
    /// UDP payload.
    pub payload: &'a [u8],
    /// `address:port`; an IPv6 address in brackets.
    pub source: &'a str,
    /// `address:port`; an IPv6 address in brackets.
    pub destination: &'a str,
    /// Rx queue, up to 65535.
    pub rx_queue: u32,
    /// CPU of the receive thread, up to 65535.
    pub cpu: u32,
}

impl DatagramText<'_> {
    fn facts(&self) -> Result<Facts<'_>> {
        let (source, destination) = (socket_address(self.source)?, socket_address(self.destination)?);
        Ok(Facts {
            payload: self.payload,
            src: Addr::from(source.ip()).0,
            dst: Addr::from(destination.ip()).0,
            src_port: source.port(),
            dst_port: destination.port(),
            rx_queue: field16("rxq", self.rx_queue)?,
            cpu: field16("cpu", self.cpu)?,
        })
    }
}

fn socket_address(text: &str) -> Result<SocketAddr> {
    text.parse().map_err(|_| {
        let message = format!("{text:?}: expected address:port, such as 10.0.0.1:5000");
        Error::new(Code::Config, message)
    })
}

/// The value of a field that has 16 bits.
fn field16(field: &str, value: u32) -> Result<u16> {
    u16::try_from(value).map_err(|_| {
        Error::new(Code::Config, format!("{field} {value}: expected a number from 0 to {}", u16::MAX))
    })
}

fn compile(text: &str, queues: u32) -> Result<RuleSet> {
    RuleSet::compile(text, queue_count(queues)?)
}

/// The command does not know how many sockets there will be, and takes as many as there are queues.
fn one_socket_per_queue(queues: u32) -> Result<CbpfTarget> {
    Ok(CbpfTarget::Reuseport { sockets: queue_count(queues)? })
}

/// Compiles, and lists the names.
///
/// # Errors
/// [`Code::Rules`]: what is wrong with the rules, or a queue count above 65535.
pub fn names(text: &str, queues: u32) -> Result<CompiledRules> {
    let set = compile(text, queues)?;
    Ok(CompiledRules { names: set.names(), warnings: set.warnings().to_vec() })
}

/// Compiles, and tries every translation.
///
/// # Errors
/// Those of [`names`].
pub fn check(text: &str, queues: u32) -> Result<RulesReport> {
    let set = compile(text, queues)?;
    Ok(RulesReport {
        early_drops: set.early_drop().map_or(0, |early| early.rules()),
        rules: set.describe().into_iter().map(|(name, text)| RuleText { name, text }).collect(),
        targets: Translations {
            ebpf: set.to_ebpf().into(),
            fanout: set.to_cbpf(CbpfTarget::Fanout).into(),
            reuseport: set.to_cbpf(one_socket_per_queue(queues)?).into(),
        },
        warnings: set.warnings().to_vec(),
    })
}

/// Which rule decides about a datagram, and why the ones before it do not. `random` always draws the same.
///
/// # Errors
/// Those of [`names`]; [`Code::Config`] for an address that cannot be read, and for a number that does not fit.
pub fn explain(text: &str, queues: u32, datagram: &DatagramText<'_>) -> Result<Explanation> {
    let facts = datagram.facts()?;
    let explainer = Explainer::compile(text, queue_count(queues)?)?;
    let (verdict, trials) = explainer.explain(&facts, &mut explainer.rules().state_seeded(0, 0));
    let verdict = match verdict {
        Verdict::Queue { queue, spill, key, .. } => ExplainedVerdict::Queue { key, queue, spill },
        Verdict::Drop { .. } => ExplainedVerdict::Drop { drop: true },
    };
    Ok(Explanation { trials, verdict })
}

/// A stage of the rules as text: `program`, `cbpf` (fanout), `reuseport` or `ebpf`.
///
/// # Errors
/// Those of [`names`]; [`Code::Unsupported`] when the program cannot be made, [`Code::Config`] for another stage.
pub fn dump(text: &str, queues: u32, stage: &str) -> Result<String> {
    let set = compile(text, queues)?;
    let program = match stage {
        "program" => Ok(set.dump_program()),
        "cbpf" => set.dump_cbpf(CbpfTarget::Fanout),
        "reuseport" => set.dump_cbpf(one_socket_per_queue(queues)?),
        "ebpf" => set.dump_ebpf(),
        other => {
            let message = format!("dump {other:?}: expected program, cbpf, reuseport or ebpf");
            return Err(Error::new(Code::Config, message));
        }
    };
    program.map_err(|e| Error::new(Code::Unsupported, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "noise: len < 4 => drop\nkey: mod(u32[0])";
    const DATAGRAM: DatagramText<'_> = DatagramText {
        payload: &[0, 0, 0, 7],
        source: "10.0.0.1:5000",
        destination: "[2001:db8::1]:6000",
        rx_queue: 65_535,
        cpu: 65_535,
    };

    fn json(value: impl Serialize) -> String {
        serde_json::to_string(&value).unwrap()
    }

    #[test]
    fn the_json_shapes() {
        assert_eq!(json(names(RULES, 4).unwrap()), r#"{"names":["noise","key","default"],"warnings":[]}"#);
        let report = check("a: len < 4 => drop\nb: round_robin", 4).unwrap();
        let why = "`round_robin` takes turns, for each receive thread";
        let refusal = format!(r#"{{"rule":"b","why":"{why}"}}"#);
        let rules = r#"[{"name":"a","text":"len < 4 => drop"},{"name":"b","text":"else => round_robin"}]"#;
        let targets = format!(r#"{{"ebpf":{refusal},"fanout":{refusal},"reuseport":{refusal}}}"#);
        assert_eq!(
            json(report),
            format!(r#"{{"earlyDrops":1,"rules":{rules},"targets":{targets},"warnings":[]}}"#)
        );
        assert_eq!(json(Translation::from(Ok::<_, Unsupported>(vec![0; 3]))), r#"{"instructions":3}"#);
        assert_eq!(
            json(explain(RULES, 4, &DATAGRAM).unwrap()),
            r#"{"trials":[{"name":"noise","outcome":"false","rule":0,"text":"len < 4 => drop","why":"len is 4"},"#.to_owned()
                + r#"{"name":"key","outcome":"matched","rule":1,"text":"else => mod(u32[0])","why":""}],"#
                + r#""verdict":{"key":7,"queue":3,"spill":null}}"#
        );
        let dropped = explain(RULES, 4, &DatagramText { payload: &[], ..DATAGRAM }).unwrap();
        assert_eq!(json(dropped.verdict), r#"{"drop":true}"#);
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused_with_what_was_given_and_what_is_expected() {
        let refused =
            |e: Error, code, message: &str| assert_eq!((e.code, e.message.as_str()), (code, message));
        let queues = "there are 65536 queues; expected at most 65535";
        refused(names(RULES, 65_536).unwrap_err(), Code::Rules, queues);
        refused(check(RULES, 65_536).unwrap_err(), Code::Rules, queues);
        refused(dump(RULES, 65_536, "program").unwrap_err(), Code::Rules, queues);
        refused(explain(RULES, 65_536, &DATAGRAM).unwrap_err(), Code::Rules, queues);
        assert!(check(RULES, 65_535).is_ok());
        let rxq = DatagramText { rx_queue: 65_536, ..DATAGRAM };
        let message = "rxq 65536: expected a number from 0 to 65535";
        refused(explain(RULES, 4, &rxq).unwrap_err(), Code::Config, message);
        let cpu = DatagramText { cpu: u32::MAX, ..DATAGRAM };
        let message = "cpu 4294967295: expected a number from 0 to 65535";
        refused(explain(RULES, 4, &cpu).unwrap_err(), Code::Config, message);
    }

    #[test]
    fn texts_that_cannot_be_read_are_refused() {
        let source = DatagramText { source: "x", ..DATAGRAM };
        let e = explain(RULES, 4, &source).unwrap_err();
        assert_eq!(
            (e.code, e.message.as_str()),
            (Code::Config, "\"x\": expected address:port, such as 10.0.0.1:5000")
        );
        let e = dump(RULES, 4, "wasm").unwrap_err();
        assert_eq!(
            (e.code, e.message.as_str()),
            (Code::Config, "dump \"wasm\": expected program, cbpf, reuseport or ebpf")
        );
        let e = dump("round_robin", 4, "cbpf").unwrap_err();
        assert_eq!(e.code, Code::Unsupported);
    }
}
