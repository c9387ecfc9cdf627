//! Which datagrams a condition takes, as boxes ([`super::region`]), and which of those the action of its rule does.

use super::super::ast::{BinOp, CmpOp};
use super::super::program::{Load, MAX_PAYLOAD, Which};
use super::region::{Id, Region, at_least};
use super::sets::Set;
use super::types::{Act, By, Cond, Part, Value};
use std::collections::HashMap;

/// Boxes of one condition; what would take more is not looked into.
const MOST_BOXES: usize = 32;

/// Ranges that are touched for all rules together, so that compile time stays bounded: about a second in a debug build.
/// What is left of a rule set behind that is not looked into.
const FUEL: usize = 10_000_000;

/// What a test looks at, apart from the length.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    Value(Value),
    /// At most sixteen bytes, as a number.
    Bytes {
        from: u16,
        len: usize,
    },
    /// 1 where the bytes are these.
    Text {
        from: u16,
        text: Vec<u8>,
    },
    Address(Which),
    /// 1 where it holds.
    Compare(CmpOp, Value, Value),
    SameAddress,
}

/// What is known of a subject.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    /// Bytes a datagram must have for it.
    pub(super) need: u64,
    /// Its largest value.
    pub(super) max: u128,
    /// Every datagram of that length has it: it divides by nothing that may be zero.
    pub(super) sure: bool,
}

/// The datagrams for which a condition is true, and those for which it is false; the rest are too short for it, or make
/// it divide by zero. `None`: too many boxes.
struct Sides {
    yes: Option<Vec<Region>>,
    no: Option<Vec<Region>>,
}

/// What a rule takes: `None` where that is not known.
pub(super) struct Takes {
    /// The condition alone.
    pub(super) condition: Option<Vec<Region>>,
    /// With the key of the action.
    pub(super) rule: Option<Vec<Region>>,
    /// Bytes that the key needs.
    pub(super) key: u64,
    /// It takes all of that for certain.
    pub(super) sure: bool,
}

/// The subjects of a rule set.
#[derive(Debug)]
pub(super) struct Regions {
    ids: HashMap<Subject, Id>,
    about: Vec<About>,
    fuel: usize,
}

impl Regions {
    pub(super) fn new() -> Self {
        Regions { ids: HashMap::new(), about: Vec::new(), fuel: FUEL }
    }

    pub(super) fn about(&self, id: Id) -> About {
        self.about.get(id as usize).copied().unwrap_or(About { need: 0, max: u128::MAX, sure: false })
    }

    /// Uses up some of what may be done for the whole set; false when nothing is left.
    pub(super) fn spend(&mut self, ranges: usize) -> bool {
        self.fuel = self.fuel.saturating_sub(ranges);
        self.fuel > 0
    }

    /// What a rule of this condition and action takes.
    pub(super) fn takes(&mut self, cond: &Cond, action: &Act) -> Takes {
        let condition = self.sides(cond).yes;
        let (key, sure) = key(action);
        let readable = Region { len: at_least(key), bounds: Vec::new() };
        let rule = condition.as_ref().and_then(|taken| self.both(taken, &[readable]));
        Takes { condition, rule, key, sure }
    }

    fn sides(&mut self, cond: &Cond) -> Sides {
        match cond {
            Cond::Always => Sides { yes: Some(vec![Region::all()]), no: Some(Vec::new()) },
            Cond::Never => Sides { yes: Some(Vec::new()), no: Some(vec![Region::all()]) },
            Cond::Not(inner) => {
                let Sides { yes, no } = self.sides(inner);
                Sides { yes: no, no: yes }
            }
            Cond::And(parts) => self.sequence(parts, |sides| sides),
            // `or` is `and` with yes and no exchanged.
            Cond::Or(parts) => {
                let swap = |Sides { yes, no }| Sides { yes: no, no: yes };
                swap(self.sequence(parts, swap))
            }
            Cond::Number { value: Value::Load(Load::Len), ranges } => {
                let set = Set::of(ranges.iter().map(|(a, b)| (u128::from(*a), u128::from(*b))));
                let side = |len: Set| Region { len, bounds: Vec::new() };
                let (yes, no) = (set.intersection(&at_least(0)), set.complement(MAX_PAYLOAD.into()));
                let solid = |set: Set| Some(if set.is_empty() { Vec::new() } else { vec![side(set)] });
                Sides { yes: solid(yes), no: solid(no) }
            }
            Cond::Number { value, ranges } => {
                let about = About { need: need(value), max: value.max().into(), sure: sure(value) };
                let set = Set::of(ranges.iter().map(|(a, b)| (u128::from(*a), u128::from(*b))));
                self.test(Subject::Value(value.clone()), about, set)
            }
            Cond::Compare { op, left, right } => {
                let need = need(left).max(need(right));
                let about = About { need, max: 1, sure: sure(left) && sure(right) };
                self.test(Subject::Compare(*op, left.clone(), right.clone()), about, Set::range(1, 1))
            }
            Cond::Bytes { from, any } => self.bytes(*from, any),
            Cond::Address { which, ranges } => {
                let about = About { need: 0, max: u128::MAX, sure: true };
                self.test(Subject::Address(*which), about, Set::of(ranges.iter().copied()))
            }
            Cond::SameAddress => {
                self.test(Subject::SameAddress, About { need: 0, max: 1, sure: true }, Set::range(1, 1))
            }
        }
    }

    /// `and`: a part is only looked at where those before it are true.
    fn sequence(&mut self, parts: &[Cond], turn: impl Fn(Sides) -> Sides) -> Sides {
        let mut so_far = Sides { yes: Some(vec![Region::all()]), no: Some(Vec::new()) };
        for part in parts {
            let Some(reached) = so_far.yes.filter(|_| self.spend(1)) else {
                return Sides { yes: None, no: None };
            };
            if reached.is_empty() {
                return Sides { yes: Some(reached), no: so_far.no };
            }
            let Sides { yes, no } = turn(self.sides(part));
            let no = no.and_then(|no| self.both(&reached, &no));
            so_far = Sides {
                yes: yes.and_then(|yes| self.both(&reached, &yes)),
                no: so_far.no.zip(no).and_then(|(a, b)| self.either(a, b)),
            };
        }
        so_far
    }

    /// A subject is in a set.
    fn test(&mut self, subject: Subject, about: About, set: Set) -> Sides {
        let next = self.about.len() as Id;
        let id = *self.ids.entry(subject).or_insert(next);
        if id == next {
            self.about.push(about);
        }
        let all = Set::range(0, about.max);
        let side = |set: Set| {
            if set.is_empty() {
                return Vec::new();
            }
            // A bound that says nothing, or only that the datagram is long enough.
            let bounds = if about.sure && set == all { Vec::new() } else { vec![(id, set)] };
            vec![Region { len: at_least(about.need), bounds }]
        };
        let (yes, no) = (set.intersection(&all), set.complement(about.max));
        Sides { yes: Some(side(yes)), no: Some(side(no)) }
    }

    fn bytes(&mut self, from: u16, any: &[Vec<u8>]) -> Sides {
        let len = any.first().map_or(0, Vec::len);
        let need = u64::from(from) + len as u64;
        if len > 16 {
            // Each text by itself: it is there or it is not.
            let about = About { need, max: 1, sure: true };
            let mut all = Sides { yes: Some(Vec::new()), no: Some(vec![Region::all()]) };
            for text in any {
                let one = self.test(Subject::Text { from, text: text.clone() }, about, Set::range(1, 1));
                all = Sides {
                    yes: all.yes.zip(one.yes).and_then(|(a, b)| self.either(a, b)),
                    no: all.no.zip(one.no).and_then(|(a, b)| self.both(&a, &b)),
                };
            }
            return all;
        }
        // As long as a number: the same subject, so that both spellings are one.
        let subject = match len {
            1 => Subject::Value(Value::Load(Load::U8(from))),
            2 => Subject::Value(Value::Load(Load::U16(from))),
            4 => Subject::Value(Value::Load(Load::U32(from))),
            8 => Subject::Value(Value::Load(Load::U64(from))),
            len => Subject::Bytes { from, len },
        };
        let number = |text: &Vec<u8>| text.iter().fold(0u128, |n, b| n << 8 | u128::from(*b));
        let set = Set::of(any.iter().map(|text| (number(text), number(text))));
        let max = u128::MAX.checked_shr(128 - 8 * len as u32).unwrap_or(0);
        self.test(subject, About { need, max, sure: true }, set)
    }

    /// What is in both.
    fn both(&mut self, a: &[Region], b: &[Region]) -> Option<Vec<Region>> {
        let mut out = Vec::new();
        for x in a {
            for y in b {
                if !self.spend(x.size() + y.size()) {
                    return None;
                }
                if let Some(region) = x.intersection(y) {
                    self.add(&mut out, region)?;
                }
            }
        }
        Some(out)
    }

    /// What is in one of them.
    fn either(&mut self, mut a: Vec<Region>, b: Vec<Region>) -> Option<Vec<Region>> {
        for region in b {
            self.add(&mut a, region)?;
        }
        Some(a)
    }

    /// Adds a box to others; two that differ in one bound become one.
    fn add(&mut self, to: &mut Vec<Region>, mut region: Region) -> Option<()> {
        let mut at = 0;
        while let Some(other) = to.get(at) {
            if !self.spend(other.size() + region.size()) {
                return None;
            }
            if other.contains(&region) {
                return Some(());
            }
            match self.join(other, &region) {
                Some(joined) => {
                    region = joined;
                    to.swap_remove(at);
                    at = 0;
                }
                None => at += 1,
            }
        }
        to.push(region);
        (to.len() <= MOST_BOXES).then_some(())
    }

    fn join(&self, a: &Region, b: &Region) -> Option<Region> {
        if b.contains(a) {
            return Some(b.clone());
        }
        if a.bounds.len() != b.bounds.len() || a.bounds.iter().zip(&b.bounds).any(|(x, y)| x.0 != y.0) {
            return None;
        }
        let mut differ = a.bounds.iter().zip(&b.bounds).enumerate().filter(|(_, (x, y))| x.1 != y.1);
        match (a.len == b.len, differ.next(), differ.next()) {
            (false, None, _) => Some(Region { len: a.len.union(&b.len), bounds: a.bounds.clone() }),
            (true, Some((at, (x, y))), None) => {
                let mut joined = a.clone();
                let (about, set) = (self.about(x.0), x.1.union(&y.1));
                if about.sure && set == Set::range(0, about.max) {
                    joined.bounds.remove(at);
                } else {
                    joined.bounds.get_mut(at)?.1 = set;
                }
                Some(joined)
            }
            _ => None,
        }
    }
}

/// Bytes that an action asks for, and whether it takes every datagram that has them.
pub(super) fn key(action: &Act) -> (u64, bool) {
    match action {
        Act::Drop | Act::Queue { .. } => (0, true),
        // What it keeps goes on to the next rule.
        Act::Sample(_) => (0, false),
        Act::Spread { by: By::Mod(value), .. } => (need(value), sure(value)),
        Act::Spread { by: By::Hash(parts), .. } => (
            parts.iter().map(part_need).max().unwrap_or(0),
            parts.iter().all(|part| !matches!(part, Part::Number(value) if !sure(value))),
        ),
        Act::Spread { .. } => (0, true),
    }
}

/// Bytes a datagram must have for a value.
fn need(value: &Value) -> u64 {
    match value {
        Value::Const(_) => 0,
        Value::Load(load) => load.need(),
        Value::Chain { first, rest } => rest.iter().map(|(_, v)| need(v)).fold(need(first), u64::max),
    }
}

/// Whether nothing but a short datagram keeps it from being calculated.
fn sure(value: &Value) -> bool {
    match value {
        Value::Const(_) | Value::Load(_) => true,
        Value::Chain { first, rest } => {
            sure(first)
                && rest.iter().all(|(op, v)| {
                    sure(v) && (!matches!(op, BinOp::Div | BinOp::Mod) || matches!(v, Value::Const(_)))
                })
        }
    }
}

fn part_need(part: &Part) -> u64 {
    match part {
        Part::Number(value) => need(value),
        Part::Bytes { from, len } => u64::from(*from) + u64::from(*len),
        Part::Address(_) | Part::Flow => 0,
    }
}
