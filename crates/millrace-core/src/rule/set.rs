//! A compiled rule set.

use super::eval::FastPath;
use super::facts::Facts;
use super::program::Program;
use super::state::RuleState;
use super::verdict::Verdict;

/// A compiled rule set for a fixed number of queues.
#[derive(Debug)]
pub struct RuleSet {
    program: Program,
    fast_path: Option<FastPath>,
    /// Name and canonical text of each rule, in order.
    rules: Vec<(String, String)>,
    warnings: Vec<String>,
}

impl RuleSet {
    pub(super) fn new(program: Program, rules: Vec<(String, String)>, warnings: Vec<String>) -> Self {
        RuleSet { fast_path: FastPath::of(&program), program, rules, warnings }
    }

    /// The program that [`RuleSet::evaluate`] runs.
    pub(super) fn program(&self) -> &Program {
        &self.program
    }

    /// Name and canonical text of a rule.
    pub(super) fn rule(&self, index: usize) -> Option<&(String, String)> {
        self.rules.get(index)
    }

    /// Fresh state for receive thread `thread`. With one thread (0) a `round_robin` starts at its first queue.
    pub fn state(&self, thread: usize) -> RuleState {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.state_seeded(thread, now.as_nanos() as u64)
    }

    /// Fresh state whose `random` starts from a seed instead of the time, so that a run can be repeated.
    pub fn state_seeded(&self, thread: usize, seed: u64) -> RuleState {
        RuleState::new(&self.program, thread, seed)
    }

    /// Names in rule order. A rule without a name is `rule1`, `rule2`, … by position; the implicit last one is `default`.
    pub fn names(&self) -> Vec<String> {
        self.rules.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Name and canonical text of every rule, in order.
    pub fn describe(&self) -> Vec<(String, String)> {
        self.rules.clone()
    }

    /// Number of rules, the implicit last one included; every [`Verdict`]'s `rule` is below it.
    #[allow(clippy::len_without_is_empty)] // A rule set is never empty.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Returns warnings about rules that are allowed but probably not meant, one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Decides about one datagram. `state` must come from this rule set.
    #[inline]
    pub fn evaluate(&self, facts: &Facts<'_>, state: &mut RuleState) -> Verdict {
        if let Some(verdict) = self.fast_path.as_ref().and_then(|fast| fast.evaluate(facts)) {
            return verdict;
        }
        self.program.run(facts, state)
    }
}
