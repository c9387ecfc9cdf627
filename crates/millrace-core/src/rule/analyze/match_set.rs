//! Match sets: which datagrams a condition matches, and which of those its rule decides about, as unions of
//! hyperrectangles.

use super::super::load::{Load, MAX_PAYLOAD};
use super::super::operator::CmpOp;
use super::super::program::AddressField;
use super::hyperrectangle::{HyperRectangle, SubjectId, lengths_from};
use super::interval_set::IntervalSet;
use super::set_algebra::{SetAlgebra, SubjectInfo};
use super::typed::{Condition, TypedAction, TypedKey, TypedSpread, Value};
use std::collections::HashMap;

/// The bytes or fields that a test reads, apart from the length.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    Value(Value),
    /// At most sixteen bytes, as a big-endian number.
    Bytes {
        from: u16,
        len: usize,
    },
    /// More than sixteen bytes: 1 where they are these, else 0.
    Text {
        from: u16,
        text: Vec<u8>,
    },
    Address(AddressField),
    /// 1 where the comparison is true, else 0.
    Compare(CmpOp, Value, Value),
    /// 1 where the addresses are the same, else 0.
    SameAddress,
}

/// The datagrams for which a condition is true, and those for which it is false. All others are too short for it, or make it
/// divide by zero. `None` stands for a set that was not analysed: too many hyperrectangles, or no fuel.
struct Outcomes {
    yes: Option<Vec<HyperRectangle>>,
    no: Option<Vec<HyperRectangle>>,
}

/// The match set of a rule. `None` stands for a set that was not analysed.
pub(super) struct RuleMatchSet {
    /// The datagrams for which the condition is true.
    pub(super) condition: Option<Vec<HyperRectangle>>,
    /// Those of them that are long enough for the key of the action.
    pub(super) rule: Option<Vec<HyperRectangle>>,
    pub(super) key: KeyNeeds,
}

/// Calculates the match sets of one rule set.
#[derive(Debug)]
pub(super) struct MatchSets {
    ids: HashMap<Subject, SubjectId>,
    pub(super) algebra: SetAlgebra,
}

impl MatchSets {
    pub(super) fn new() -> Self {
        MatchSets { ids: HashMap::new(), algebra: SetAlgebra::new() }
    }

    /// The match set of a rule of this condition and action.
    pub(super) fn rule(&mut self, condition: &Condition, action: &TypedAction) -> RuleMatchSet {
        let condition = self.outcomes(condition).yes;
        let key = KeyNeeds::of(action);
        let long_enough = HyperRectangle::of_lengths(lengths_from(key.min_len));
        let rule = condition.as_ref().and_then(|matched| self.algebra.intersection(matched, &[long_enough]));
        RuleMatchSet { condition, rule, key }
    }

    fn outcomes(&mut self, condition: &Condition) -> Outcomes {
        match condition {
            Condition::Always => Outcomes { yes: Some(vec![HyperRectangle::all()]), no: Some(Vec::new()) },
            Condition::Never => Outcomes { yes: Some(Vec::new()), no: Some(vec![HyperRectangle::all()]) },
            Condition::Not(inner) => {
                let Outcomes { yes, no } = self.outcomes(inner);
                Outcomes { yes: no, no: yes }
            }
            Condition::And(parts) => self.sequence(parts, |outcomes| outcomes),
            // By De Morgan's law, `or` is `and` with yes and no exchanged.
            Condition::Or(parts) => {
                let swap = |Outcomes { yes, no }| Outcomes { yes: no, no: yes };
                swap(self.sequence(parts, swap))
            }
            Condition::Number { value: Value::Load(Load::Len), ranges } => {
                let set = IntervalSet::of(ranges.iter().map(|(a, b)| (u128::from(*a), u128::from(*b))));
                let (yes, no) = (set.intersection(&lengths_from(0)), set.complement(MAX_PAYLOAD.into()));
                let of_lengths = |set: IntervalSet| {
                    Some(if set.is_empty() { Vec::new() } else { vec![HyperRectangle::of_lengths(set)] })
                };
                Outcomes { yes: of_lengths(yes), no: of_lengths(no) }
            }
            Condition::Number { value, ranges } => {
                let info = SubjectInfo {
                    min_len: value.min_len(),
                    max: value.max().into(),
                    is_total: value.is_total(),
                };
                let set = IntervalSet::of(ranges.iter().map(|(a, b)| (u128::from(*a), u128::from(*b))));
                self.test(Subject::Value(value.clone()), info, set)
            }
            Condition::Compare { op, left, right } => {
                let info = SubjectInfo {
                    min_len: left.min_len().max(right.min_len()),
                    max: 1,
                    is_total: left.is_total() && right.is_total(),
                };
                self.test(Subject::Compare(*op, left.clone(), right.clone()), info, IntervalSet::range(1, 1))
            }
            Condition::Bytes { from, any } => self.bytes(*from, any),
            Condition::Address { which, ranges } => {
                let info = SubjectInfo { min_len: 0, max: u128::MAX, is_total: true };
                self.test(Subject::Address(*which), info, IntervalSet::of(ranges.iter().copied()))
            }
            Condition::SameAddress => {
                let info = SubjectInfo { min_len: 0, max: 1, is_total: true };
                self.test(Subject::SameAddress, info, IntervalSet::range(1, 1))
            }
        }
    }

    /// `and`: a part is evaluated where all parts before it are true. `map` is applied to the outcomes of each part.
    fn sequence(&mut self, parts: &[Condition], map: impl Fn(Outcomes) -> Outcomes) -> Outcomes {
        let mut so_far = Outcomes { yes: Some(vec![HyperRectangle::all()]), no: Some(Vec::new()) };
        for part in parts {
            let Some(reached) = so_far.yes.filter(|_| self.algebra.consume_fuel(1)) else {
                return Outcomes { yes: None, no: None };
            };
            if reached.is_empty() {
                return Outcomes { yes: Some(reached), no: so_far.no };
            }
            let Outcomes { yes, no } = map(self.outcomes(part));
            let no = no.and_then(|no| self.algebra.intersection(&reached, &no));
            so_far = Outcomes {
                yes: yes.and_then(|yes| self.algebra.intersection(&reached, &yes)),
                no: so_far.no.zip(no).and_then(|(a, b)| self.algebra.union(a, b)),
            };
        }
        so_far
    }

    /// Whether a subject is in a set.
    fn test(&mut self, subject: Subject, info: SubjectInfo, set: IntervalSet) -> Outcomes {
        let id = *self.ids.entry(subject).or_insert_with(|| self.algebra.add_subject(info));
        let all = IntervalSet::range(0, info.max);
        let within = |set: IntervalSet| {
            if set.is_empty() {
                return Vec::new();
            }
            // Where every payload that is long enough has the subject, a bound that all values meet excludes nothing.
            let bounds = if info.is_total && set == all { Vec::new() } else { vec![(id, set)] };
            vec![HyperRectangle { len: lengths_from(info.min_len), bounds }]
        };
        let (yes, no) = (set.intersection(&all), set.complement(info.max));
        Outcomes { yes: Some(within(yes)), no: Some(within(no)) }
    }

    /// Whether the payload has one of these strings, all of one length, at an offset.
    fn bytes(&mut self, from: u16, any: &[Vec<u8>]) -> Outcomes {
        let len = any.first().map_or(0, Vec::len);
        let min_len = u64::from(from) + len as u64;
        if len > 16 {
            // Longer than the numbers of an interval set: each string is a subject that is there or is not.
            let info = SubjectInfo { min_len, max: 1, is_total: true };
            let mut all = Outcomes { yes: Some(Vec::new()), no: Some(vec![HyperRectangle::all()]) };
            for text in any {
                let one =
                    self.test(Subject::Text { from, text: text.clone() }, info, IntervalSet::range(1, 1));
                all = Outcomes {
                    yes: all.yes.zip(one.yes).and_then(|(a, b)| self.algebra.union(a, b)),
                    no: all.no.zip(one.no).and_then(|(a, b)| self.algebra.intersection(&a, &b)),
                };
            }
            return all;
        }
        // `bytes[0..4] == "abcd"` and `u32[0] == 0x61626364` have the same subject, and so are found to be the same test.
        let subject = match len {
            1 => Subject::Value(Value::Load(Load::U8(from))),
            2 => Subject::Value(Value::Load(Load::U16(from))),
            4 => Subject::Value(Value::Load(Load::U32(from))),
            8 => Subject::Value(Value::Load(Load::U64(from))),
            len => Subject::Bytes { from, len },
        };
        let number = |text: &Vec<u8>| text.iter().fold(0u128, |n, b| n << 8 | u128::from(*b));
        let set = IntervalSet::of(any.iter().map(|text| (number(text), number(text))));
        let max = u128::MAX.checked_shr(128 - 8 * len as u32).unwrap_or(0);
        self.test(subject, SubjectInfo { min_len, max, is_total: true }, set)
    }
}

/// What the key of an action requires of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyNeeds {
    /// The shortest payload that has the key, in bytes; 0 for an action without a key.
    pub(super) min_len: u64,
    /// Whether the action decides about every datagram that is long enough.
    pub(super) is_total: bool,
}

impl KeyNeeds {
    pub(super) fn of(action: &TypedAction) -> KeyNeeds {
        let (min_len, is_total) = match action {
            TypedAction::Drop | TypedAction::Queue { .. } => (0, true),
            // The datagrams that it keeps go on to the next rule.
            TypedAction::Sample(_) => (0, false),
            TypedAction::Spread { by: TypedSpread::Mod(value), .. } => (value.min_len(), value.is_total()),
            TypedAction::Spread { by: TypedSpread::Hash(keys), .. } => (
                keys.iter().map(TypedKey::min_len).max().unwrap_or(0),
                keys.iter().all(|key| !matches!(key, TypedKey::Number(value) if !value.is_total())),
            ),
            TypedAction::Spread { .. } => (0, true),
        };
        KeyNeeds { min_len, is_total }
    }
}
