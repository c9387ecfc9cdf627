//! Rules that can never match: because their condition contradicts itself, or because rules before them take everything
//! they could. Never a false alarm; what is too intricate is let pass.

use super::super::ast::Rule;
use super::super::program::MAX_PAYLOAD;
use super::super::report::Report;
use super::region::{Id, Region, at_least};
use super::sets::{Cover, Set};
use super::takes::{Regions, key};
use super::types::{Act, Cond};
use std::collections::{BTreeSet, HashMap};

/// Subjects of one box of which all combinations are looked up.
const MOST_SUBJECTS: usize = 6;
/// Hiding rules that a message names.
const NAMED: usize = 3;

/// A rule that takes datagrams for certain: its name and line.
type Hider = (String, usize);

/// What all rules so far take of one subject (or of the length), and which of them takes what.
#[derive(Default)]
struct Taken {
    all: Cover,
    by: Vec<(Set, usize)>,
    /// Only together do these take their sets.
    together: Vec<(Set, usize)>,
}

impl Taken {
    fn add(&mut self, set: &Set, who: usize) {
        self.all.add(set);
        self.by.push((set.clone(), who));
    }

    /// Others take a set together: all values of some subject.
    fn add_together(&mut self, set: &Set, others: &Taken) {
        self.all.add(set);
        self.together.extend(others.by.iter().map(|(_, who)| (set.clone(), *who)));
    }

    /// Who takes the set: one if one does, else all that have a part in it.
    fn who(&self, set: &Set) -> BTreeSet<usize> {
        if let Some((_, one)) = self.by.iter().find(|(taken, _)| taken.contains(set)) {
            return BTreeSet::from([*one]);
        }
        let all = self.by.iter().chain(&self.together);
        all.filter(|(taken, _)| !taken.intersection(set).is_empty()).map(|(_, who)| *who).collect()
    }
}

/// Which rules hide which.
pub(super) struct Hiding {
    /// Where the lines of the text end, to look up line numbers without counting anew for every rule.
    lines: Vec<u32>,
    /// The rule after which nothing can match.
    pub(super) end: Option<Hider>,
    /// Canonical conditions of rules that take all they match.
    seen: HashMap<String, Hider>,
    regions: Regions,
    hiders: Vec<Hider>,
    /// Boxes with no bound but on the length.
    by_length: Taken,
    /// Boxes with one bound, and no more on the length than that asks for.
    by_subject: HashMap<Id, Taken>,
    /// All others, by their subjects.
    by_subjects: HashMap<Vec<Id>, Vec<(Region, usize)>>,
}

impl Hiding {
    pub(super) fn new(text: &str) -> Self {
        Hiding {
            lines: text.match_indices('\n').map(|(at, _)| at as u32).collect(),
            end: None,
            seen: HashMap::new(),
            regions: Regions::new(),
            hiders: Vec::new(),
            by_length: Taken::default(),
            by_subject: HashMap::new(),
            by_subjects: HashMap::new(),
        }
    }

    /// Whether rules that only together take everything have done so.
    pub(super) fn complete(&self) -> bool {
        self.by_length.all.contains(&at_least(0))
    }

    /// What can be said of a rule whatever is wrong with it otherwise; true when it is hidden.
    pub(super) fn check(&self, rule: &Rule, name: &str, report: &mut Report) -> bool {
        let (hidden_by, why) = if let Some(end) = &self.end {
            (end, "takes every datagram")
        } else if let Some(same) = rule.condition.as_ref().and_then(|c| self.seen.get(&c.to_string())) {
            (same, "has the same condition")
        } else {
            return false;
        };
        let (by, line) = hidden_by;
        let message = format!("rule `{name}` can never match: rule `{by}` (line {line}) {why}");
        report.push(rule.span, message, format!("expected this rule before `{by}`, or not at all"));
        true
    }

    /// Looks whether a rule without other mistakes can match, unless it is `hidden` already, and notes what it takes.
    pub(super) fn add(
        &mut self,
        rule: &Rule,
        name: &str,
        cond: &Cond,
        action: &Act,
        hidden: bool,
        report: &mut Report,
    ) {
        if self.end.is_some() {
            return;
        }
        let takes = self.regions.takes(cond, action);
        if let (Some(condition), Some(regions), false) = (&takes.condition, &takes.rule, hidden) {
            if regions.is_empty() {
                let span = rule.condition.as_ref().map_or(rule.span, |c| c.span);
                let label = if condition.is_empty() {
                    "no datagram meets all of this".to_owned()
                } else {
                    format!("no datagram that meets this has the {} bytes that the key needs", takes.key)
                };
                report.push(span, format!("rule `{name}` can never match"), label);
            } else if regions.iter().all(|region| self.hides(region)) {
                self.report(rule, name, regions, report);
            }
        }
        let line = self.lines.partition_point(|end| *end < rule.span.start) + 1;
        let me = (name.to_owned(), line);
        // A rule whose key may be beyond the datagram leaves the short ones to others.
        if key(action) == (0, true) {
            if matches!(cond, Cond::Always) {
                self.end = Some(me);
                return;
            }
            if let Some(condition) = &rule.condition {
                self.seen.entry(condition.to_string()).or_insert_with(|| me.clone());
            }
        }
        if let (Some(regions), true) = (takes.rule, takes.sure) {
            self.hiders.push(me);
            for region in regions {
                self.take(region);
            }
        }
    }

    /// The last hider takes a box.
    fn take(&mut self, region: Region) {
        let who = self.hiders.len() - 1;
        let (id, set) = match region.bounds.as_slice() {
            [] => return self.by_length.add(&region.len, who),
            [(id, set)] if region.len == at_least(self.regions.about(*id).need) => (*id, set),
            bounds => {
                let ids = bounds.iter().map(|(id, _)| *id).collect();
                self.by_subjects.entry(ids).or_default().push((region, who));
                return;
            }
        };
        let about = self.regions.about(id);
        let all = Set::range(0, about.max);
        let taken = self.by_subject.entry(id).or_default();
        let complete = taken.all.contains(&all);
        taken.add(set, who);
        // Whatever the subject is, it is taken: all that is long enough for it is.
        if about.sure && !complete && taken.all.contains(&all) {
            let long = Set::range(about.need.into(), MAX_PAYLOAD.into());
            self.by_length.add_together(&long, taken);
        }
    }

    /// Whether earlier rules take all of a box.
    fn hides(&mut self, region: &Region) -> bool {
        self.by_length.all.contains(&region.len)
            || self.subject_that_hides(region).is_some()
            || self.box_that_hides(region).is_some()
    }

    /// What is taken of a subject of which the box has no more than that; and what the box has of it.
    fn subject_that_hides<'a>(&'a self, region: &'a Region) -> Option<(&'a Taken, &'a Set)> {
        region.bounds.iter().find_map(|(id, set)| {
            let taken = self.by_subject.get(id)?;
            taken.all.contains(set).then_some((taken, set))
        })
    }

    /// The rule with a box around this one: its subjects are some of this one's.
    fn box_that_hides(&mut self, region: &Region) -> Option<usize> {
        if self.by_subjects.is_empty() {
            return None;
        }
        let ids: Vec<Id> = region.bounds.iter().map(|(id, _)| *id).take(MOST_SUBJECTS).collect();
        for some in 1u32..1 << ids.len() {
            let chosen: Vec<Id> =
                ids.iter().enumerate().filter(|(i, _)| some >> i & 1 == 1).map(|(_, id)| *id).collect();
            let Some(others) = self.by_subjects.get(&chosen) else { continue };
            for (other, who) in others {
                if !self.regions.spend(other.size()) {
                    return None;
                }
                if other.contains(region) {
                    return Some(*who);
                }
            }
        }
        None
    }

    fn report(&mut self, rule: &Rule, name: &str, regions: &[Region], report: &mut Report) {
        if report.is_full() {
            return report.push(rule.span, "", "");
        }
        let mut who = BTreeSet::new();
        for region in regions {
            // The nearest reason first: the same subject.
            if let Some((taken, set)) = self.subject_that_hides(region) {
                who.extend(taken.who(set));
            } else if self.by_length.all.contains(&region.len) {
                who.extend(self.by_length.who(&region.len));
            } else {
                who.extend(self.box_that_hides(region));
            }
        }
        let hiders: Vec<&Hider> = who.iter().filter_map(|who| self.hiders.get(*who)).collect();
        let mut named: Vec<String> =
            hiders.iter().take(NAMED).map(|(name, line)| format!("`{name}` (line {line})")).collect();
        let more = hiders.len() - named.len();
        if more > 0 {
            named.push(format!("{more} more"));
        }
        let last = named.pop().unwrap_or_default();
        let (by, first) = match hiders.first() {
            Some(first) if named.is_empty() => (format!("rule {last} takes"), first.0.as_str()),
            first => (
                format!("rules {} and {last} together take", named.join(", ")),
                first.map_or("", |first| first.0.as_str()),
            ),
        };
        let message = format!("rule `{name}` can never match: {by} all that it could");
        report.push(rule.span, message, format!("expected this rule before `{first}`, or not at all"));
    }
}
