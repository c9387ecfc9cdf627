//! Syntax tree → typed tree. What comes out has no mistakes left; what remains to be decided is decided by datagrams.
//!
//! `condition`, `value` and `action` say what is wrong with one rule by itself, `kind` what an expression is, `bounds` how
//! large a value can be. Whether a rule can match at all is a matter of sets of datagrams (`region`, of numbers: `sets`):
//! `takes` knows which ones a condition takes, `hiding` which ones earlier rules leave.

mod action;
mod bounds;
mod condition;
mod hiding;
mod kind;
mod region;
mod sets;
mod takes;
mod types;
mod value;

use super::ast::{Rule, Span};
use super::program::Queues;
use super::report::Report;
use hiding::Hiding;
use std::collections::HashMap;

pub(crate) use bounds::bound_of;
pub(crate) use types::{Act, By, Checked, Cond, Part, Value};

/// Rule indices are 16 bits wide and the last one is kept for `default`.
const MAX_RULES: usize = u16::MAX as usize - 1;

/// Name of the rule that takes what no other does.
pub(crate) const DEFAULT: &str = "default";

/// Checks all rules and appends the implicit last one, if it can be reached.
pub(crate) fn check(text: &str, rules: &[Rule], queues: u16, report: &mut Report) -> Vec<Checked> {
    if rules.len() > MAX_RULES {
        let span = rules.get(MAX_RULES).map_or(Span::default(), |r| r.span);
        report.push(span, "too many rules", format!("expected at most {MAX_RULES}"));
        return Vec::new();
    }
    let names = names(rules, report);
    let mut checker = Checker { queues, report };
    let mut out = Vec::with_capacity(rules.len() + 1);
    let mut hiding = Hiding::new(text);
    for (rule, name) in rules.iter().zip(names) {
        let hidden = hiding.check(rule, &name, checker.report);
        let cond = match &rule.condition {
            Some(c) => checker.cond(c),
            None => Some(Cond::Always),
        };
        let action = checker.action(&rule.action);
        let (Some(cond), Some(action)) = (cond, action) else { continue };
        if !cond.outcomes().0 {
            let span = rule.condition.as_ref().map_or(rule.span, |c| c.span);
            checker.report.push(span, format!("rule `{name}` can never match"), "this is always false");
            continue;
        }
        hiding.add(rule, &name, &cond, &action, hidden, checker.report);
        out.push(Checked { name, text: rule.to_string(), cond, action, reached: true });
    }
    if hiding.end.is_none() {
        out.push(Checked {
            name: DEFAULT.to_owned(),
            text: "else => hash(flow)".to_owned(),
            cond: Cond::Always,
            action: Act::Spread {
                by: By::Hash(vec![Part::Flow]),
                over: Queues::new(0, queues.saturating_sub(1)),
                spill: false,
            },
            reached: !hiding.complete(),
        });
    }
    out
}

/// The names, `ruleN` where there is none. Names are metric labels, so they must be unique.
fn names(rules: &[Rule], report: &mut Report) -> Vec<String> {
    let mut seen: HashMap<String, bool> = HashMap::new();
    for rule in rules.iter().filter(|r| r.name.is_none()) {
        seen.insert(format!("rule{}", rule.index + 1), false);
    }
    let mut names = Vec::with_capacity(rules.len());
    for rule in rules {
        let Some((name, span)) = &rule.name else {
            names.push(format!("rule{}", rule.index + 1));
            continue;
        };
        match seen.insert(name.clone(), true) {
            Some(true) => {
                report.push(*span, format!("the name `{name}` is used twice"), "expected another name")
            }
            Some(false) => {
                let label = "expected another name; this one is that of a rule without a name";
                report.push(*span, format!("the name `{name}` is used twice"), label);
            }
            None if name == DEFAULT && rule.condition.is_some() => {
                let label = "expected another name, or `else =>`: `default` is the rule that takes the rest";
                report.push(*span, "the name `default` is reserved", label);
            }
            None => {}
        }
        names.push(name.clone());
    }
    names
}

struct Checker<'a> {
    queues: u16,
    report: &'a mut Report,
}

impl Checker<'_> {
    fn fail<T>(&mut self, span: Span, message: impl Into<String>, label: impl Into<String>) -> Option<T> {
        self.report.push(span, message, label);
        None
    }
}
