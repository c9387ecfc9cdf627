//! Syntax tree → typed tree: types, ranges, constants, reachability. What comes out has no mistakes left; what
//! remains to be decided is decided by datagrams.

use super::ast::{ActionKind, AddrLit, BinOp, CmpOp, Expr, ExprKind, Item, Name, Rule, Span, Width};
use super::program::{Load, MAX_PAYLOAD, MAX_TEMPORARIES, Queues, Which};
use super::report::Report;
use std::collections::HashMap;

/// Rule indices are 16 bits wide and the last one is kept for `default`.
const MAX_RULES: usize = u16::MAX as usize - 1;

/// A rule without mistakes.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) name: String,
    pub(crate) text: String,
    /// [`Cond::Always`]: unconditional.
    pub(crate) cond: Cond,
    pub(crate) action: Act,
}

#[derive(Debug, Clone)]
pub(crate) enum Cond {
    Always,
    Never,
    /// The value lies in one of the ranges, which are sorted and disjoint.
    Number {
        value: Value,
        ranges: Vec<(u64, u64)>,
    },
    Compare {
        op: CmpOp,
        left: Value,
        right: Value,
    },
    /// The bytes are one of these, all of one length.
    Bytes {
        from: u16,
        any: Vec<Vec<u8>>,
    },
    Address {
        which: Which,
        ranges: Vec<(u128, u128)>,
    },
    SameAddress,
    And(Vec<Cond>),
    Or(Vec<Cond>),
    Not(Box<Cond>),
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Const(u64),
    Load(Load),
    Chain { first: Box<Value>, rest: Vec<(BinOp, Value)> },
}

#[derive(Debug)]
pub(crate) enum Act {
    Drop,
    Sample(u32),
    Queue { queue: u16, spill: Option<(u16, u16)> },
    Spread { by: By, over: Queues, spill: bool },
}

#[derive(Debug)]
pub(crate) enum By {
    Mod(Value),
    Hash(Vec<Part>),
    RoundRobin,
    Random,
    Cpu,
    RxQueue,
}

#[derive(Debug)]
pub(crate) enum Part {
    Number(Value),
    Bytes { from: u16, len: u16 },
    Address(Which),
    Flow,
}

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
        hiding.check(rule, &name, checker.report);
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
        hiding.add(rule, &name, &cond, &action);
        out.push(Checked { name, text: rule.to_string(), cond, action });
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

/// Which rules hide which.
struct Hiding {
    /// Where the lines of the text end, to look up line numbers without counting anew for every rule.
    lines: Vec<u32>,
    /// The rule after which nothing can match.
    end: Option<(String, usize)>,
    /// Canonical conditions of rules that take all they match.
    seen: HashMap<String, (String, usize)>,
}

impl Hiding {
    fn new(text: &str) -> Self {
        let lines = text.match_indices('\n').map(|(at, _)| at as u32).collect();
        Hiding { lines, end: None, seen: HashMap::new() }
    }

    fn check(&self, rule: &Rule, name: &str, report: &mut Report) {
        let (hidden_by, why) = if let Some(end) = &self.end {
            (end, "takes every datagram")
        } else if let Some(same) = rule.condition.as_ref().and_then(|c| self.seen.get(&c.to_string())) {
            (same, "has the same condition")
        } else {
            return;
        };
        let (by, line) = hidden_by;
        let message = format!("rule `{name}` can never match: rule `{by}` (line {line}) {why}");
        report.push(rule.span, message, format!("expected this rule before `{by}`, or not at all"));
    }

    /// A rule whose key may be beyond the datagram leaves the short datagrams to others, and `sample` leaves what it
    /// keeps; neither hides anything.
    fn add(&mut self, rule: &Rule, name: &str, cond: &Cond, action: &Act) {
        if action.may_pass_on() || self.end.is_some() {
            return;
        }
        let line = self.lines.partition_point(|end| *end < rule.span.start) + 1;
        let me = || (name.to_owned(), line);
        match &rule.condition {
            _ if matches!(cond, Cond::Always) => self.end = Some(me()),
            Some(condition) => {
                self.seen.entry(condition.to_string()).or_insert_with(me);
            }
            None => {}
        }
    }
}

impl Act {
    /// May the datagram go on to the next rule?
    fn may_pass_on(&self) -> bool {
        match self {
            Act::Drop | Act::Queue { .. } => false,
            Act::Sample(_) => true,
            Act::Spread { by: By::Mod(value), .. } => value.may_fail(),
            Act::Spread { by: By::Hash(parts), .. } => parts.iter().any(|part| match part {
                Part::Number(value) => value.may_fail(),
                Part::Bytes { .. } => true,
                Part::Address(_) | Part::Flow => false,
            }),
            Act::Spread { .. } => false,
        }
    }
}

impl Value {
    fn may_fail(&self) -> bool {
        match self {
            Value::Const(_) => false,
            Value::Load(load) => load.reads(),
            Value::Chain { first, rest } => {
                first.may_fail()
                    || rest.iter().any(|(op, v)| {
                        v.may_fail()
                            || (matches!(op, BinOp::Div | BinOp::Mod) && !matches!(v, Value::Const(_)))
                    })
            }
        }
    }

    /// An upper bound, by interval arithmetic.
    pub(crate) fn max(&self) -> u64 {
        match self {
            Value::Const(n) => *n,
            Value::Load(load) => load.max(),
            Value::Chain { first, rest } => rest.iter().fold(first.max(), |m, (op, v)| bound(m, *op, v)),
        }
    }

    /// Values that have to be put aside at the same time while this is calculated.
    fn temporaries(&self) -> usize {
        let Value::Chain { first, rest } = self else { return 0 };
        rest.iter()
            .filter(|(_, v)| matches!(v, Value::Chain { .. }))
            .map(|(_, v)| 1 + v.temporaries())
            .fold(first.temporaries(), usize::max)
    }
}

/// The largest `a op b` for `a <= m`.
fn bound(m: u64, op: BinOp, b: &Value) -> u64 {
    bound_of(m, op, b.max(), if let Value::Const(c) = b { Some(*c) } else { None })
}

/// The largest `a op b` for `a <= m` and `b <= n`, or `b` equal to the constant, if it is one.
pub(crate) fn bound_of(m: u64, op: BinOp, n: u64, constant: Option<u64>) -> u64 {
    match (op, constant) {
        (BinOp::Add, _) => m.saturating_add(n),
        (BinOp::Sub, Some(0)) => m,
        (BinOp::Sub, _) => u64::MAX,
        (BinOp::Mul, _) => m.saturating_mul(n),
        (BinOp::Div, Some(c)) => m.checked_div(c).unwrap_or(m),
        (BinOp::Div, None) => m,
        (BinOp::Mod, _) => m.min(n.saturating_sub(1)),
        (BinOp::And, _) => m.min(n),
        (BinOp::Or | BinOp::Xor, _) => u64::MAX.checked_shr((m | n).leading_zeros()).unwrap_or(0),
        (BinOp::Shl, Some(c)) if c < 64 && u64::from(m.leading_zeros()) >= c => m << c,
        (BinOp::Shl, Some(64..)) => 0,
        (BinOp::Shl, _) => u64::MAX,
        (BinOp::Shr, Some(c)) => BinOp::Shr.apply(m, c).unwrap_or(m),
        (BinOp::Shr, None) => m,
    }
}

impl Cond {
    /// Whether it can be true, and whether it can be false, as far as constants tell.
    fn outcomes(&self) -> (bool, bool) {
        let all = |parts: &[Cond], want: fn(&Cond) -> bool| parts.iter().all(want);
        match self {
            Cond::Always => (true, false),
            Cond::Never => (false, true),
            Cond::Not(inner) => {
                let (yes, no) = inner.outcomes();
                (no, yes)
            }
            Cond::And(parts) => (all(parts, |c| c.outcomes().0), !all(parts, |c| !c.outcomes().1)),
            Cond::Or(parts) => (!all(parts, |c| !c.outcomes().0), all(parts, |c| c.outcomes().1)),
            _ => (true, true),
        }
    }
}

/// What an expression is, before looking closer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Bytes,
    Text,
    AddressField(Which),
    AddressLiteral,
    Flow,
    Condition,
}

fn kind(e: &Expr) -> Kind {
    match &e.kind {
        ExprKind::Int(_) | ExprKind::Field { .. } | ExprKind::Chain { .. } => Kind::Number,
        ExprKind::Bytes(_) => Kind::Text,
        ExprKind::Addr(_) => Kind::AddressLiteral,
        ExprKind::Slice { .. } => Kind::Bytes,
        ExprKind::Name(Name::Src) => Kind::AddressField(Which::Src),
        ExprKind::Name(Name::Dst) => Kind::AddressField(Which::Dst),
        ExprKind::Name(Name::Flow) => Kind::Flow,
        ExprKind::Name(_) => Kind::Number,
        ExprKind::Compare { .. } | ExprKind::In { .. } => Kind::Condition,
        ExprKind::And(_) | ExprKind::Or(_) | ExprKind::Not(_) => Kind::Condition,
    }
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Kind::Number => "a number",
            Kind::Bytes => "a range of bytes",
            Kind::Text => "a string",
            Kind::AddressField(_) | Kind::AddressLiteral => "an address",
            Kind::Flow => "a flow",
            Kind::Condition => "a condition",
        }
    }
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

    // ---- conditions

    fn cond(&mut self, e: &Expr) -> Option<Cond> {
        match &e.kind {
            ExprKind::And(parts) => self.all(parts, Cond::Never, Cond::Always, Cond::And),
            ExprKind::Or(parts) => self.all(parts, Cond::Always, Cond::Never, Cond::Or),
            ExprKind::Not(inner) => Some(match self.cond(inner)? {
                Cond::Always => Cond::Never,
                Cond::Never => Cond::Always,
                other => Cond::Not(Box::new(other)),
            }),
            ExprKind::Compare { op, left, right } => self.compare(e, *op, left, right),
            ExprKind::In { value, items, .. } => self.inside(e, value, items),
            _ => {
                let hint = match kind(e) {
                    Kind::Number => "expected a comparison, such as `u8[0] == 1` or `len != 0`",
                    Kind::Bytes => "expected a comparison, such as `bytes[0..4] == \"TEST\"`",
                    _ => "expected a comparison, such as `src in 10.0.0.0/8`",
                };
                self.fail(e.span, format!("this is {}, not a condition", kind(e).text()), hint)
            }
        }
    }

    /// `and` and `or`. Constants fold only from the left: what stands right of a test is not evaluated where the test
    /// decides, but the test itself always is, and may read beyond the datagram.
    fn all(
        &mut self,
        parts: &[Expr],
        decides: Cond,
        neutral: Cond,
        make: impl FnOnce(Vec<Cond>) -> Cond,
    ) -> Option<Cond> {
        let same = |a: &Cond, b: &Cond| std::mem::discriminant(a) == std::mem::discriminant(b);
        let checked: Vec<Option<Cond>> = parts.iter().map(|p| self.cond(p)).collect();
        let mut out = Vec::with_capacity(parts.len());
        for cond in checked.into_iter().collect::<Option<Vec<Cond>>>()? {
            if same(&cond, &neutral) {
                continue;
            }
            let last = same(&cond, &decides);
            out.push(cond);
            if last {
                break;
            }
        }
        match out.pop() {
            None => Some(neutral),
            Some(only) if out.is_empty() => Some(only),
            Some(last) => {
                out.push(last);
                Some(make(out))
            }
        }
    }

    fn compare(&mut self, e: &Expr, op: CmpOp, left: &Expr, right: &Expr) -> Option<Cond> {
        let equality = matches!(op, CmpOp::Eq | CmpOp::Ne);
        let finish = |cond: Cond| if op == CmpOp::Ne { Cond::Not(Box::new(cond)) } else { cond };
        match (kind(left), kind(right)) {
            (Kind::Number, Kind::Number) => self.numbers(e, op, left, right),
            (Kind::Bytes, Kind::Text) | (Kind::Text, Kind::Bytes) if equality => {
                let (field, text) = if kind(left) == Kind::Bytes { (left, right) } else { (right, left) };
                let (from, len) = self.slice(field)?;
                let text = self.text(text, len)?;
                Some(finish(Cond::Bytes { from, any: vec![text] }))
            }
            (Kind::AddressField(which), Kind::AddressLiteral) if equality => {
                Some(finish(Cond::Address { which, ranges: vec![self.address(right)?] }))
            }
            (Kind::AddressLiteral, Kind::AddressField(which)) if equality => {
                Some(finish(Cond::Address { which, ranges: vec![self.address(left)?] }))
            }
            (Kind::AddressField(a), Kind::AddressField(b)) if equality => {
                if a == b {
                    return self.fail(
                        e.span,
                        "this compares an address with itself",
                        "expected `src == dst`",
                    );
                }
                Some(finish(Cond::SameAddress))
            }
            (Kind::Flow, _) | (_, Kind::Flow) => {
                let label = "expected src, dst, sport or dport; `flow` is a key: `hash(flow)`";
                self.fail(e.span, "a flow cannot be compared", label)
            }
            (Kind::Condition, _) => {
                self.fail(left.span, "this is a condition, not a value", "expected a number")
            }
            (_, Kind::Condition) => {
                self.fail(right.span, "this is a condition, not a value", "expected a number")
            }
            (a, b) if equality => {
                let message = format!("{} cannot be compared with {}", a.text(), b.text());
                let label = match a {
                    Kind::Number => "expected a number on the right",
                    Kind::Bytes => "expected a string on the right, such as \"TEST\" or x\"0a0b\"",
                    Kind::AddressField(_) => "expected an address on the right, such as 10.0.0.1",
                    _ => "expected a field on one side",
                };
                self.fail(e.span, message, label)
            }
            (a, b) => {
                let odd = if a == Kind::Number { b } else { a };
                let message = format!("`{}` does not order {}", op.text(), odd.text());
                self.fail(e.span, message, "expected `==` or `!=`, or numbers on both sides")
            }
        }
    }

    fn numbers(&mut self, e: &Expr, op: CmpOp, left: &Expr, right: &Expr) -> Option<Cond> {
        let (l, r) = (self.value(left), self.value(right));
        let (op, value, c, subject) = match (l?, r?) {
            (Value::Const(a), Value::Const(b)) => {
                return Some(if op.apply(a, b) { Cond::Always } else { Cond::Never });
            }
            (value, Value::Const(c)) => (op, value, c, short(left)),
            (Value::Const(c), value) => (op.mirrored(), value, c, short(right)),
            (left, right) => return Some(Cond::Compare { op, left, right }),
        };
        let max = value.max();
        // `<= max` and `>= 0` may be written, they only say "can be read"; what does not fit the field is a slip.
        let never = match op {
            CmpOp::Eq => c > max,
            CmpOp::Gt => c >= max,
            CmpOp::Ge => c > max,
            CmpOp::Lt => c == 0,
            CmpOp::Ne | CmpOp::Le => false,
        };
        let always = c > max && matches!(op, CmpOp::Ne | CmpOp::Lt | CmpOp::Le);
        if never || always {
            let message = format!("this is {} true", if never { "never" } else { "always" });
            return self.fail(e.span, message, format!("{subject} is at least 0 and at most {max}"));
        }
        let ranges = vec![match op {
            CmpOp::Eq | CmpOp::Ne => (c, c),
            CmpOp::Lt => (0, c - 1),
            CmpOp::Le => (0, c),
            CmpOp::Gt => (c + 1, u64::MAX),
            CmpOp::Ge => (c, u64::MAX),
        }];
        let cond = Cond::Number { value, ranges };
        Some(if op == CmpOp::Ne { Cond::Not(Box::new(cond)) } else { cond })
    }

    fn inside(&mut self, e: &Expr, value: &Expr, items: &[Item]) -> Option<Cond> {
        match kind(value) {
            Kind::Number => {
                let subject = short(value);
                let value = self.value(value)?;
                let max = if matches!(value, Value::Const(_)) { u64::MAX } else { value.max() };
                let ranges: Vec<_> = items.iter().map(|i| self.number_item(i, &subject, max)).collect();
                let ranges = merge(ranges.into_iter().collect::<Option<Vec<_>>>()?, |n| n.checked_add(1));
                match value {
                    Value::Const(c) => {
                        let yes = ranges.iter().any(|(a, b)| (*a..=*b).contains(&c));
                        Some(if yes { Cond::Always } else { Cond::Never })
                    }
                    value => Some(Cond::Number { value, ranges }),
                }
            }
            Kind::Bytes => {
                let (from, len) = self.slice(value)?;
                let any: Vec<_> = items
                    .iter()
                    .map(|item| match item {
                        Item::Value(e) => self.text(e, len),
                        Item::Range(a, b) => {
                            self.fail(a.span.to(b.span), "strings have no ranges", "expected strings")
                        }
                        Item::Prefix { span, .. } => self.fail(
                            *span,
                            "an address is not a string",
                            "expected strings such as \"TEST\"",
                        ),
                    })
                    .collect();
                let mut any = any.into_iter().collect::<Option<Vec<_>>>()?;
                any.sort();
                any.dedup();
                Some(Cond::Bytes { from, any })
            }
            Kind::AddressField(which) => {
                let ranges: Vec<_> = items.iter().map(|i| self.address_item(i)).collect();
                let ranges = merge(ranges.into_iter().collect::<Option<Vec<_>>>()?, |n| n.checked_add(1));
                Some(Cond::Address { which, ranges })
            }
            other => {
                let label = "expected a number, bytes, src or dst before `in`";
                self.fail(e.span, format!("`in` cannot look for {}", other.text()), label)
            }
        }
    }

    fn number_item(&mut self, item: &Item, subject: &str, max: u64) -> Option<(u64, u64)> {
        let (a, b, span) = match item {
            Item::Value(e) => {
                let n = self.constant(e, "a set holds constants")?;
                (n, n, e.span)
            }
            Item::Range(a, b) => {
                let (low, high) = (
                    self.constant(a, "a range has constant ends"),
                    self.constant(b, "a range has constant ends"),
                );
                (low?, high?, a.span.to(b.span))
            }
            Item::Prefix { span, .. } => {
                let label = "expected numbers or ranges; prefixes are for `src` and `dst`";
                return self.fail(*span, format!("{subject} is a number, not an address"), label);
            }
        };
        if a > b {
            return self.fail(
                span,
                "this range is empty",
                format!("expected `{b}..{a}`; both ends are included"),
            );
        }
        if b > max {
            return self.fail(span, "this is never reached", format!("{subject} is at most {max}"));
        }
        Some((a, b))
    }

    fn address_item(&mut self, item: &Item) -> Option<(u128, u128)> {
        match item {
            Item::Value(e) => self.address(e),
            Item::Range(a, b) => {
                let label = "expected prefixes such as 10.0.0.0/8";
                self.fail(a.span.to(b.span), "addresses have no ranges", label)
            }
            Item::Prefix { addr, bits, span } => {
                let longest = if addr.v4 { 32 } else { 128 };
                if *bits > longest {
                    let message = format!("/{bits} is longer than the address");
                    return self.fail(*span, message, format!("expected at most /{longest}"));
                }
                let free = (longest - bits) as u32;
                let mask = u128::MAX.checked_shl(free).unwrap_or(0);
                let low = u128::from_be_bytes(addr.bytes);
                if low & !mask != 0 {
                    let network = AddrLit { bytes: (low & mask).to_be_bytes(), v4: addr.v4 };
                    let message = "this prefix has bits set behind its length";
                    return self.fail(*span, message, format!("expected `{network}/{bits}`"));
                }
                Some((low, low | !mask))
            }
        }
    }

    fn address(&mut self, e: &Expr) -> Option<(u128, u128)> {
        match &e.kind {
            ExprKind::Addr(addr) => {
                let n = u128::from_be_bytes(addr.bytes);
                Some((n, n))
            }
            _ => self.fail(
                e.span,
                "this is not an address",
                "expected such as 10.0.0.1, 10.0.0.0/8 or 2001:db8::/32",
            ),
        }
    }

    fn text(&mut self, e: &Expr, len: u16) -> Option<Vec<u8>> {
        match &e.kind {
            ExprKind::Bytes(text) if text.len() == usize::from(len) => Some(text.clone()),
            ExprKind::Bytes(text) => {
                let message = format!("this string is {} bytes long, the range {len}", text.len());
                self.fail(e.span, message, "expected both to be of one length")
            }
            _ => self.fail(e.span, "this is not a string", "expected such as \"TEST\" or x\"0a0b\""),
        }
    }

    // ---- values

    fn value(&mut self, e: &Expr) -> Option<Value> {
        let value = self.part(e)?;
        if value.temporaries() > MAX_TEMPORARIES {
            let label =
                format!("expected at most {MAX_TEMPORARIES} parentheses within one another on the right");
            return self.fail(e.span, "this calculation is nested too deeply", label);
        }
        Some(value)
    }

    fn part(&mut self, e: &Expr) -> Option<Value> {
        match &e.kind {
            ExprKind::Int(n) => Some(Value::Const(*n)),
            ExprKind::Field { width, little, at } => {
                let at = self.offset(at, width.bytes())?;
                Some(Value::Load(match (width, little) {
                    (Width::U8, _) => Load::U8(at),
                    (Width::U16, false) => Load::U16(at),
                    (Width::U32, false) => Load::U32(at),
                    (Width::U64, false) => Load::U64(at),
                    (Width::U16, true) => Load::U16Le(at),
                    (Width::U32, true) => Load::U32Le(at),
                    (Width::U64, true) => Load::U64Le(at),
                }))
            }
            ExprKind::Name(name) => match name {
                Name::Len => Some(Value::Load(Load::Len)),
                Name::SrcPort => Some(Value::Load(Load::SrcPort)),
                Name::DstPort => Some(Value::Load(Load::DstPort)),
                Name::RxQueue => Some(Value::Load(Load::RxQueue)),
                Name::Cpu => Some(Value::Load(Load::Cpu)),
                Name::Src | Name::Dst => self.fail(
                    e.span,
                    "an address is not a number",
                    format!("expected `hash({0})` as an action, or `{0} in …` as a condition", name.text()),
                ),
                Name::Flow => {
                    self.fail(e.span, "a flow is not a number", "expected `hash(flow)` as an action")
                }
            },
            ExprKind::Chain { first, rest } => self.chain(first, rest),
            ExprKind::Slice { .. } => {
                self.fail(e.span, "a range of bytes is not a number", "expected u8, u16, u32 or u64")
            }
            ExprKind::Bytes(_) => {
                self.fail(e.span, "a string is not a number", "expected a number or a field")
            }
            ExprKind::Addr(_) => {
                self.fail(e.span, "an address is not a number", "expected a number or a field")
            }
            _ => self.fail(e.span, "this is a condition, not a number", "expected a number or a field"),
        }
    }

    fn chain(&mut self, first: &Expr, rest: &[(BinOp, Expr)]) -> Option<Value> {
        let mut ok = true;
        let mut head = self.part(first);
        ok &= head.is_some();
        let mut tail: Vec<(BinOp, Value)> = Vec::new();
        for (op, right) in rest {
            let Some(value) = self.part(right) else {
                ok = false;
                continue;
            };
            if matches!((op, &value), (BinOp::Div | BinOp::Mod, Value::Const(0))) {
                ok = false;
                self.report.push(right.span, "division by zero", "expected a divisor other than 0");
                continue;
            }
            match (&head, &value) {
                (Some(Value::Const(a)), Value::Const(b)) if tail.is_empty() => {
                    head = op.apply(*a, *b).map(Value::Const);
                }
                _ => tail.push((*op, value)),
            }
        }
        let head = head.filter(|_| ok)?;
        Some(if tail.is_empty() { head } else { Value::Chain { first: Box::new(head), rest: tail } })
    }

    fn constant(&mut self, e: &Expr, why: &str) -> Option<u64> {
        if kind(e) != Kind::Number {
            let message = format!("this is {}, not a number", kind(e).text());
            return self.fail(e.span, message, "expected a constant number");
        }
        match self.value(e)? {
            Value::Const(n) => Some(n),
            _ => self.fail(e.span, "this is not a constant", format!("expected a number; {why}")),
        }
    }

    fn offset(&mut self, e: &Expr, width: u64) -> Option<u16> {
        let at = self.constant(e, "offsets are constant")?;
        if at.checked_add(width).is_none_or(|end| end > MAX_PAYLOAD) {
            let label = format!("a UDP payload has at most {MAX_PAYLOAD} bytes");
            return self.fail(e.span, format!("offset {at} is beyond every datagram"), label);
        }
        u16::try_from(at).ok()
    }

    /// Offset and length of `bytes[a..b]`.
    fn slice(&mut self, e: &Expr) -> Option<(u16, u16)> {
        let ExprKind::Slice { from, to } = &e.kind else {
            return self.fail(e.span, "this is not a range of bytes", "expected `bytes[a..b]`");
        };
        let (a, b) = (self.constant(from, "offsets are constant"), self.constant(to, "offsets are constant"));
        let (a, b) = (a?, b?);
        if a >= b {
            let label = "the end is not included: `bytes[4..8]` are four bytes";
            return self.fail(e.span, "this range of bytes is empty", label);
        }
        if b > MAX_PAYLOAD {
            let label = format!("a UDP payload has at most {MAX_PAYLOAD} bytes");
            return self.fail(to.span, format!("offset {b} is beyond every datagram"), label);
        }
        Some((u16::try_from(a).ok()?, u16::try_from(b - a).ok()?))
    }

    // ---- actions

    fn action(&mut self, action: &super::ast::Action) -> Option<Act> {
        let over = match &action.on {
            Some((from, to, span)) => self.on(from, to, *span),
            None => Some((0, self.queues.saturating_sub(1))),
        };
        let spill = action.spill.is_some();
        let by = match &action.kind {
            ActionKind::Drop | ActionKind::Sample(_) => {
                if let Some(span) = action.on.as_ref().map(|on| on.2).or(action.spill) {
                    let label = "expected nothing after an action that chooses no queue";
                    return self.fail(span, "`on` and `spill` are for queues", label);
                }
                let ActionKind::Sample(n) = &action.kind else { return Some(Act::Drop) };
                let count = self.constant(n, "`sample(10)` keeps one in ten")?;
                return match u32::try_from(count) {
                    Ok(count @ 1..) => Some(Act::Sample(count)),
                    _ => {
                        self.fail(n.span, "this cannot be sampled", "expected a number from 1 to 4294967295")
                    }
                };
            }
            ActionKind::Queue(n) => {
                let (first, last) = over?;
                let queue = self.queue(n)?;
                if let Some((.., span)) = &action.on {
                    if !spill {
                        let label = "expected `spill` behind it, or no `on`";
                        return self.fail(*span, "`on` has no effect on one fixed queue", label);
                    }
                    if !(first..=last).contains(&queue) {
                        return self.fail(
                            *span,
                            format!("queue {queue} is not among these"),
                            "expected it to be",
                        );
                    }
                }
                return Some(Act::Queue { queue, spill: spill.then_some((first, last)) });
            }
            ActionKind::Mod(e) => match kind(e) {
                Kind::Number => By::Mod(self.value(e)?),
                other => {
                    let label = format!("expected a number; `hash({e})` takes other keys");
                    return self.fail(e.span, format!("`mod` cannot reduce {}", other.text()), label);
                }
            },
            ActionKind::Hash(keys) => {
                let parts: Vec<_> = keys.iter().map(|k| self.key(k)).collect();
                By::Hash(parts.into_iter().collect::<Option<Vec<_>>>()?)
            }
            ActionKind::RoundRobin => By::RoundRobin,
            ActionKind::Random => By::Random,
            ActionKind::Cpu => By::Cpu,
            ActionKind::RxQueue => By::RxQueue,
        };
        let (first, last) = over?;
        Some(Act::Spread { by, over: Queues::new(first, last), spill })
    }

    fn key(&mut self, e: &Expr) -> Option<Part> {
        match kind(e) {
            Kind::Number => match self.value(e)? {
                Value::Const(_) => {
                    self.fail(e.span, "this key is the same for every datagram", "expected a field")
                }
                value => Some(Part::Number(value)),
            },
            Kind::Bytes => self.slice(e).map(|(from, len)| Part::Bytes { from, len }),
            Kind::AddressField(which) => Some(Part::Address(which)),
            Kind::Flow => Some(Part::Flow),
            Kind::Text | Kind::AddressLiteral => {
                self.fail(e.span, "this key is the same for every datagram", "expected a field")
            }
            Kind::Condition => self.fail(e.span, "a condition is not a key", "expected a field or a number"),
        }
    }

    fn queue(&mut self, e: &Expr) -> Option<u16> {
        let n = self.constant(e, "queues are numbered from 0")?;
        match u16::try_from(n) {
            Ok(queue) if queue < self.queues => Some(queue),
            _ => {
                let label = match self.queues {
                    1 => "expected 0, there is one queue".to_owned(),
                    many => format!("expected 0 to {}, there are {many} queues", many.saturating_sub(1)),
                };
                self.fail(e.span, format!("there is no queue {n}"), label)
            }
        }
    }

    fn on(&mut self, from: &Expr, to: &Expr, span: Span) -> Option<(u16, u16)> {
        let (first, last) = (self.queue(from), self.queue(to));
        let (first, last) = (first?, last?);
        if first > last {
            let label = format!("expected `{last}..{first}`; both ends are included");
            return self.fail(span, "this range is empty", label);
        }
        Some((first, last))
    }
}

/// Sorts and joins ranges that overlap or touch.
fn merge<T: Ord + Copy>(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut out: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (low, high) in ranges {
        match out.last_mut() {
            Some(last) if next(last.1).is_none_or(|n| low <= n) => last.1 = last.1.max(high),
            _ => out.push((low, high)),
        }
    }
    out
}

/// The text of an expression, if it is short enough for a message.
fn short(e: &Expr) -> String {
    let text = e.to_string();
    if text.len() <= 32 { format!("`{text}`") } else { "this value".to_owned() }
}
