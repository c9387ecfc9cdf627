//! Runs the stages of a compilation, from the text to a rule set.

use super::analyze::{TypedAction, TypedRule, analyze};
use super::diagnostics::Diagnostics;
use super::if_to_switch::if_to_switch;
use super::lower::lower;
use super::parse::parse;
use super::program::Program;
use super::set::RuleSet;
use crate::error::{Code, Error, Result};

/// Longest rule text, in bytes. It bounds the time and memory of a compilation. A Kubernetes ConfigMap, which holds at
/// most 1 MiB, fits four times.
const MAX_TEXT: usize = 4 << 20;

impl RuleSet {
    /// Compiles a text for a number of queues.
    ///
    /// # Errors
    /// [`Code::Rules`]; the message lists every mistake with line, column and caret.
    pub fn compile(text: &str, queues: u16) -> Result<Self> {
        let rules = front_end(text, queues)?;
        Ok(back_end(lower(&rules), rules))
    }
}

/// A number of queues from outside, where numbers have 32 bits; [`RuleSet::compile`] refuses 0.
///
/// # Errors
/// [`Code::Rules`] above 65535: a descriptor's queue number has 16 bits.
pub fn queue_count(queues: u32) -> Result<u16> {
    u16::try_from(queues).map_err(|_| {
        let message = format!("there are {queues} queues; expected at most {}", u16::MAX);
        Error::new(Code::Rules, message)
    })
}

/// The stages that can find mistakes: text → typed rules, the last of which takes every datagram.
pub(super) fn front_end(text: &str, queues: u16) -> Result<Vec<TypedRule>> {
    let fail = |message: String| Err(Error::new(Code::Rules, message));
    if queues == 0 {
        return fail("there are no queues; expected at least one".into());
    }
    if text.len() > MAX_TEXT {
        return fail(format!("the rules are {} bytes long; expected at most {MAX_TEXT}", text.len()));
    }
    let mut diagnostics = Diagnostics::default();
    let rules = parse(text, &mut diagnostics);
    if rules.is_empty() && diagnostics.is_empty() {
        return fail(
            "there are no rules; expected at least one, such as `mod(u32[0])` or `hash(flow)`".into(),
        );
    }
    let rules = analyze(text, &rules, queues, &mut diagnostics);
    if !diagnostics.is_empty() {
        return fail(diagnostics.render(text));
    }
    Ok(rules)
}

/// The stages that cannot fail: the program of `rules`, as [`lower`] made it → the rule set.
pub(super) fn back_end(mut program: Program, rules: Vec<TypedRule>) -> RuleSet {
    if_to_switch(&mut program);
    let warnings = warnings(&rules);
    RuleSet::new(program, rules.into_iter().map(|rule| (rule.name, rule.text)).collect(), warnings)
}

/// See [`RuleSet::warnings`].
fn warnings(rules: &[TypedRule]) -> Vec<String> {
    let mut reachable = rules.iter().filter(|rule| rule.reachable);
    if reachable.all(|rule| matches!(rule.action, TypedAction::Drop | TypedAction::Sample(_))) {
        return vec!["these rules drop every datagram".into()];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_count_that_does_not_fit_is_refused_not_clamped() {
        assert_eq!(queue_count(0).unwrap(), 0);
        assert_eq!(queue_count(65_535).unwrap(), 65_535);
        for (queues, message) in [
            (65_536, "there are 65536 queues; expected at most 65535"),
            (u32::MAX, "there are 4294967295 queues; expected at most 65535"),
        ] {
            let e = queue_count(queues).unwrap_err();
            assert_eq!((e.code, e.message.as_str()), (Code::Rules, message));
        }
    }
}
