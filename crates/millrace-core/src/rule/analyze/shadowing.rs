//! Shadowed rules: rules that can never match, because their condition contradicts itself, or because rules before them match
//! everything they could. There are no false alarms: where the analysis gives up, it reports nothing.
//!
//! Rule sets may have tens of thousands of rules, so rules are not compared with each other one by one. What earlier rules
//! match is kept as unions: of lengths, of the values of each subject, and as hyperrectangles sorted by their subjects.

use super::super::ast::Rule;
use super::super::diagnostics::Diagnostics;
use super::super::load::MAX_PAYLOAD;
use super::hyperrectangle::{HyperRectangle, SubjectId, lengths_from};
use super::interval_set::{IntervalSet, IntervalUnion};
use super::match_set::{KeyNeeds, MatchSets};
use super::typed::{Condition, TypedAction};
use std::collections::{BTreeSet, HashMap};

/// Subjects of a hyperrectangle whose combinations are looked up among earlier rules: 2^6 - 1 of them. A higher limit finds
/// more shadowed rules, and doubles the work with each subject.
const MAX_COMBINED_SUBJECTS: usize = 6;
/// Shadowing rules that a message names; it counts the others.
const MAX_NAMED: usize = 3;

/// A rule that decides about its whole match set: its name and line.
type ShadowingRule = (String, usize);

/// Index into [`Shadowing::rules`].
type RuleIndex = usize;

/// What the rules so far match of the values of one subject, or of the lengths, and which rule matches what.
#[derive(Default)]
struct Coverage {
    all: IntervalUnion,
    by_rule: Vec<(IntervalSet, RuleIndex)>,
    /// Rules that match the set only together.
    jointly: Vec<(IntervalSet, RuleIndex)>,
}

impl Coverage {
    fn add(&mut self, set: &IntervalSet, rule: RuleIndex) {
        self.all.add(set);
        self.by_rule.push((set.clone(), rule));
    }

    /// Adds a set that the rules of another coverage match together: all values of some subject.
    fn add_jointly(&mut self, set: &IntervalSet, others: &Coverage) {
        self.all.add(set);
        self.jointly.extend(others.by_rule.iter().map(|(_, rule)| (set.clone(), *rule)));
    }

    /// The rules that match the set: a single one if there is one, else all that match a part of it.
    fn rules_matching(&self, set: &IntervalSet) -> BTreeSet<RuleIndex> {
        if let Some((_, one)) = self.by_rule.iter().find(|(matched, _)| matched.contains(set)) {
            return BTreeSet::from([*one]);
        }
        let all = self.by_rule.iter().chain(&self.jointly);
        all.filter(|(matched, _)| !matched.intersection(set).is_empty()).map(|(_, rule)| *rule).collect()
    }
}

/// Collects what the rules of a set match, in their order, and reports those that can never match.
pub(super) struct Shadowing {
    /// Offsets of the line ends of the text, for line numbers.
    lines: Vec<u32>,
    /// The rule that matches every datagram, if there was one: nothing behind it can match.
    final_rule: Option<ShadowingRule>,
    /// Rules that decide about everything their condition matches, by its canonical text.
    by_condition: HashMap<String, ShadowingRule>,
    match_sets: MatchSets,
    rules: Vec<ShadowingRule>,
    /// Hyperrectangles that are bounded by the length alone.
    by_length: Coverage,
    /// Hyperrectangles that are bounded by one subject, and by no more of the length than the subject needs.
    by_subject: HashMap<SubjectId, Coverage>,
    /// All other hyperrectangles, by their subjects.
    by_subjects: HashMap<Vec<SubjectId>, Vec<(HyperRectangle, RuleIndex)>>,
}

impl Shadowing {
    pub(super) fn new(text: &str) -> Self {
        Shadowing {
            lines: text.match_indices('\n').map(|(at, _)| at as u32).collect(),
            final_rule: None,
            by_condition: HashMap::new(),
            match_sets: MatchSets::new(),
            rules: Vec::new(),
            by_length: Coverage::default(),
            by_subject: HashMap::new(),
            by_subjects: HashMap::new(),
        }
    }

    /// Whether a single rule matches every datagram.
    pub(super) fn has_final_rule(&self) -> bool {
        self.final_rule.is_some()
    }

    /// Whether the rules match every datagram only together.
    pub(super) fn matches_every_length(&self) -> bool {
        self.by_length.all.contains(&lengths_from(0))
    }

    /// Reports a rule behind the final one, and one whose condition an earlier rule has. Both can be told from the syntax, so a
    /// rule with other mistakes is reported too. Returns whether it was reported.
    pub(super) fn report_if_obvious(&self, rule: &Rule, name: &str, diagnostics: &mut Diagnostics) -> bool {
        let (shadowing, reason) = if let Some(last) = &self.final_rule {
            (last, "takes every datagram")
        } else if let Some(same) = rule.condition.as_ref().and_then(|c| self.by_condition.get(&c.to_string()))
        {
            (same, "has the same condition")
        } else {
            return false;
        };
        let (by, line) = shadowing;
        let message = format!("rule `{name}` can never match: rule `{by}` (line {line}) {reason}");
        diagnostics.push(rule.span, message, format!("expected this rule before `{by}`, or not at all"));
        true
    }

    /// Reports a rule that can never match, unless it is `reported` already, and adds what it matches. The rule must have no
    /// other mistakes.
    pub(super) fn add(
        &mut self,
        rule: &Rule,
        name: &str,
        condition: &Condition,
        action: &TypedAction,
        reported: bool,
        diagnostics: &mut Diagnostics,
    ) {
        if self.has_final_rule() {
            return;
        }
        let matched = self.match_sets.rule(condition, action);
        if let (Some(of_condition), Some(of_rule), false) = (&matched.condition, &matched.rule, reported) {
            if of_rule.is_empty() {
                let span = rule.condition.as_ref().map_or(rule.span, |c| c.span);
                let label = if of_condition.is_empty() {
                    "no datagram meets all of this".to_owned()
                } else {
                    let bytes = matched.key.min_len;
                    format!("no datagram that meets this has the {bytes} bytes that the key needs")
                };
                diagnostics.push(span, format!("rule `{name}` can never match"), label);
            } else if of_rule.iter().all(|part| self.is_shadowed(part)) {
                self.report(rule, name, of_rule, diagnostics);
            }
        }
        let line = self.lines.partition_point(|end| *end < rule.span.start) + 1;
        let this = (name.to_owned(), line);
        // A rule with a key in the payload leaves shorter datagrams to the rules behind it.
        if matched.key == (KeyNeeds { min_len: 0, is_total: true }) {
            if matches!(condition, Condition::Always) {
                self.final_rule = Some(this);
                return;
            }
            if let Some(condition) = &rule.condition {
                self.by_condition.entry(condition.to_string()).or_insert_with(|| this.clone());
            }
        }
        if let (Some(of_rule), true) = (matched.rule, matched.key.is_total) {
            self.rules.push(this);
            for part in of_rule {
                self.cover(part);
            }
        }
    }

    /// Adds a hyperrectangle that the last rule matches.
    fn cover(&mut self, part: HyperRectangle) {
        let rule = self.rules.len() - 1;
        let (id, set) = match part.bounds.as_slice() {
            [] => return self.by_length.add(&part.len, rule),
            [(id, set)] if part.len == lengths_from(self.match_sets.algebra.subject(*id).min_len) => {
                (*id, set)
            }
            bounds => {
                let ids = bounds.iter().map(|(id, _)| *id).collect();
                self.by_subjects.entry(ids).or_default().push((part, rule));
                return;
            }
        };
        let subject = self.match_sets.algebra.subject(id);
        let all = IntervalSet::range(0, subject.max);
        let covered = self.by_subject.entry(id).or_default();
        let was_complete = covered.all.contains(&all);
        covered.add(set, rule);
        // When all values of the subject are matched, so is every datagram that is long enough to have it.
        if subject.is_total && !was_complete && covered.all.contains(&all) {
            let long_enough = IntervalSet::range(subject.min_len.into(), MAX_PAYLOAD.into());
            self.by_length.add_jointly(&long_enough, covered);
        }
    }

    /// Whether earlier rules match all of a hyperrectangle.
    fn is_shadowed(&mut self, part: &HyperRectangle) -> bool {
        self.by_length.all.contains(&part.len)
            || self.shadowing_coverage(part).is_some()
            || self.shadowing_rectangle(part).is_some()
    }

    /// The coverage of a subject that includes all values which the hyperrectangle allows it, and those values.
    fn shadowing_coverage<'a>(&'a self, part: &'a HyperRectangle) -> Option<(&'a Coverage, &'a IntervalSet)> {
        part.bounds.iter().find_map(|(id, set)| {
            let covered = self.by_subject.get(id)?;
            covered.all.contains(set).then_some((covered, set))
        })
    }

    /// The rule with a hyperrectangle around this one. Its subjects must be among this one's.
    fn shadowing_rectangle(&mut self, part: &HyperRectangle) -> Option<RuleIndex> {
        if self.by_subjects.is_empty() {
            return None;
        }
        let ids: Vec<SubjectId> = part.bounds.iter().map(|(id, _)| *id).take(MAX_COMBINED_SUBJECTS).collect();
        for subset in 1u32..1 << ids.len() {
            let chosen: Vec<SubjectId> =
                ids.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1).map(|(_, id)| *id).collect();
            let Some(others) = self.by_subjects.get(&chosen) else { continue };
            for (other, rule) in others {
                if !self.match_sets.algebra.consume_fuel(other.interval_count()) {
                    return None;
                }
                if other.contains(part) {
                    return Some(*rule);
                }
            }
        }
        None
    }

    fn report(&mut self, rule: &Rule, name: &str, parts: &[HyperRectangle], diagnostics: &mut Diagnostics) {
        if diagnostics.is_full() {
            return diagnostics.push(rule.span, "", "");
        }
        let mut indices = BTreeSet::new();
        for part in parts {
            // Rules on the same subject explain best, so they come first.
            if let Some((covered, set)) = self.shadowing_coverage(part) {
                indices.extend(covered.rules_matching(set));
            } else if self.by_length.all.contains(&part.len) {
                indices.extend(self.by_length.rules_matching(&part.len));
            } else {
                indices.extend(self.shadowing_rectangle(part));
            }
        }
        let shadowing: Vec<&ShadowingRule> = indices.iter().filter_map(|i| self.rules.get(*i)).collect();
        let mut named: Vec<String> =
            shadowing.iter().take(MAX_NAMED).map(|(name, line)| format!("`{name}` (line {line})")).collect();
        let more = shadowing.len() - named.len();
        if more > 0 {
            named.push(format!("{more} more"));
        }
        let last = named.pop().unwrap_or_default();
        let (by, first) = match shadowing.first() {
            Some(first) if named.is_empty() => (format!("rule {last} takes"), first.0.as_str()),
            first => (
                format!("rules {} and {last} together take", named.join(", ")),
                first.map_or("", |first| first.0.as_str()),
            ),
        };
        let message = format!("rule `{name}` can never match: {by} all that it could");
        diagnostics.push(rule.span, message, format!("expected this rule before `{first}`, or not at all"));
    }
}
