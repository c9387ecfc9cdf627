//! The refusal of a translation.

use super::super::set::RuleSet;
use std::fmt;

/// Why a rule set does not run in the kernel. It then runs in user space, whole: a translation of some of the rules, or of
/// something similar, would be another rule set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// Name of the first rule that cannot be translated.
    pub rule: String,
    /// The reason: what the kernel lacks for it.
    pub reason: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule `{}`: {}", self.rule, self.reason)
    }
}

impl std::error::Error for Unsupported {}

/// Why a node cannot be translated.
pub(crate) type Reason = String;

/// The refusal of a rule, by its index.
pub(crate) fn unsupported(set: &RuleSet, rule: u16, reason: Reason) -> Unsupported {
    let name = set.rule(rule.into()).map(|(name, _)| name.clone());
    Unsupported { rule: name.unwrap_or_else(|| format!("rule{}", u32::from(rule) + 1)), reason }
}
