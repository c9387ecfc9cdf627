//! Conditions: types, constants that fold, comparisons that are always or never true.

use super::super::ast::{AddrLit, CmpOp, Expr, ExprKind, Item};
use super::Checker;
use super::kind::{Kind, kind};
use super::sets::merge;
use super::types::{Cond, Value};

impl Checker<'_> {
    pub(super) fn cond(&mut self, e: &Expr) -> Option<Cond> {
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
    pub(super) fn all(
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

    pub(super) fn compare(&mut self, e: &Expr, op: CmpOp, left: &Expr, right: &Expr) -> Option<Cond> {
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

    pub(super) fn numbers(&mut self, e: &Expr, op: CmpOp, left: &Expr, right: &Expr) -> Option<Cond> {
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

    pub(super) fn inside(&mut self, e: &Expr, value: &Expr, items: &[Item]) -> Option<Cond> {
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

    pub(super) fn number_item(&mut self, item: &Item, subject: &str, max: u64) -> Option<(u64, u64)> {
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

    pub(super) fn address_item(&mut self, item: &Item) -> Option<(u128, u128)> {
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

    pub(super) fn address(&mut self, e: &Expr) -> Option<(u128, u128)> {
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

    pub(super) fn text(&mut self, e: &Expr, len: u16) -> Option<Vec<u8>> {
        match &e.kind {
            ExprKind::Bytes(text) if text.len() == usize::from(len) => Some(text.clone()),
            ExprKind::Bytes(text) => {
                let message = format!("this string is {} bytes long, the range {len}", text.len());
                self.fail(e.span, message, "expected both to be of one length")
            }
            _ => self.fail(e.span, "this is not a string", "expected such as \"TEST\" or x\"0a0b\""),
        }
    }
}

/// The text of an expression, if it is short enough for a message.
fn short(e: &Expr) -> String {
    let text = e.to_string();
    if text.len() <= 32 { format!("`{text}`") } else { "this value".to_owned() }
}
