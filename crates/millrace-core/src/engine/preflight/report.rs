//! The report of `millrace check`, and how its lines are collected.

use serde::Serialize;

use crate::{
    error::Code,
    rx::{BackendInfo, STEERING},
};

/// The outcome of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// It is as it should be.
    Ok,
    /// It works, with less than there could be.
    Degraded,
    /// It is not available.
    Missing,
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Finding {
    /// The backend or kernel feature that the check tried.
    pub name: String,
    /// The outcome.
    pub state: CheckStatus,
    /// The reason.
    pub why: String,
    /// The remedy; empty when none is needed.
    pub cure: String,
}

/// The result of `millrace check`.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct PreflightReport {
    /// The lines, in the order in which things were tried.
    pub findings: Vec<Finding>,
    /// Backend that would be opened now: the configured one, or the choice of `auto`. None when there is none.
    #[cfg_attr(test, ts(type = "'xdp' | 'packet' | 'socket' | null"))]
    pub backend: Option<&'static str>,
}

/// The findings so far.
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    /// Adds a line.
    pub(super) fn add(
        &mut self,
        name: impl Into<String>,
        state: CheckStatus,
        why: impl Into<String>,
        cure: &str,
    ) {
        self.0.push(Finding { name: name.into(), state, why: why.into(), cure: cure.into() });
    }

    /// Adds a backend that opened: a line for itself, and one for each thing that was not granted.
    pub(super) fn add_opened(&mut self, info: &BackendInfo) {
        self.add(info.backend, CheckStatus::Ok, format!("opens: {}", info.mode), "");
        for (_, value) in info.granted.iter().filter(|(what, _)| what == STEERING) {
            self.add(info.backend, CheckStatus::Ok, format!("steers by {value}"), "");
        }
        for what in &info.degraded {
            self.add(info.backend, CheckStatus::Degraded, what.clone(), "see the line");
        }
    }
}

/// Returns the remedy for an error with this code.
pub(super) const fn cure(code: Code) -> &'static str {
    match code {
        Code::Port => "stop the other program, or change MILLRACE_LISTEN",
        Code::Permission => "grant what the line names",
        Code::Interface => "check MILLRACE_INTERFACE against `ip link`",
        Code::Config => "change the configuration",
        _ => "see the line",
    }
}
