//! Conditions: operands must have types that can be compared, constants are folded, and comparisons that are always or
//! never true are reported.

use super::super::ast::{Expr, ExprKind};
use super::super::operator::CmpOp;
use super::analyzer::{Analyzer, excerpt};
use super::expr_type::ExprType;
use super::typed::{Condition, Value};

impl Analyzer<'_> {
    pub(super) fn condition(&mut self, e: &Expr) -> Option<Condition> {
        match &e.kind {
            ExprKind::And(parts) => {
                self.fold_logical(parts, Condition::Never, Condition::Always, Condition::And)
            }
            ExprKind::Or(parts) => {
                self.fold_logical(parts, Condition::Always, Condition::Never, Condition::Or)
            }
            ExprKind::Not(inner) => Some(match self.condition(inner)? {
                Condition::Always => Condition::Never,
                Condition::Never => Condition::Always,
                other => Condition::Not(Box::new(other)),
            }),
            ExprKind::Compare { op, left, right } => self.compare(e, *op, left, right),
            ExprKind::In { value, items, .. } => self.membership(e, value, items),
            _ => {
                let hint = match ExprType::of(e) {
                    ExprType::Number => "expected a comparison, such as `u8[0] == 1` or `len != 0`",
                    ExprType::ByteRange => "expected a comparison, such as `bytes[0..4] == \"TEST\"`",
                    _ => "expected a comparison, such as `src in 10.0.0.0/8`",
                };
                self.fail(e.span, format!("this is {}, not a condition", ExprType::of(e).text()), hint)
            }
        }
    }

    /// `and` and `or`: `decides` ends the evaluation, `neutral` has no influence on it. A constant may only be folded with
    /// what stands right of it. A test on its left must stay, although the constant decides: it is always evaluated, and where
    /// it reads beyond the datagram the rule does not match.
    fn fold_logical(
        &mut self,
        parts: &[Expr],
        decides: Condition,
        neutral: Condition,
        make: impl FnOnce(Vec<Condition>) -> Condition,
    ) -> Option<Condition> {
        let same = |a: &Condition, b: &Condition| std::mem::discriminant(a) == std::mem::discriminant(b);
        let checked: Vec<Option<Condition>> = parts.iter().map(|p| self.condition(p)).collect();
        let mut out = Vec::with_capacity(parts.len());
        for cond in checked.into_iter().collect::<Option<Vec<Condition>>>()? {
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

    fn compare(&mut self, e: &Expr, op: CmpOp, left: &Expr, right: &Expr) -> Option<Condition> {
        let equality = matches!(op, CmpOp::Eq | CmpOp::Ne);
        let finish = |cond: Condition| if op == CmpOp::Ne { Condition::Not(Box::new(cond)) } else { cond };
        match (ExprType::of(left), ExprType::of(right)) {
            (ExprType::Number, ExprType::Number) => self.compare_numbers(e, op, left, right),
            (ExprType::ByteRange, ExprType::String) | (ExprType::String, ExprType::ByteRange) if equality => {
                let (field, text) =
                    if ExprType::of(left) == ExprType::ByteRange { (left, right) } else { (right, left) };
                let (from, len) = self.slice(field)?;
                let text = self.string_literal(text, len)?;
                Some(finish(Condition::Bytes { from, any: vec![text] }))
            }
            (ExprType::AddressField(which), ExprType::AddressLiteral) if equality => {
                Some(finish(Condition::Address { which, ranges: vec![self.address_literal(right)?] }))
            }
            (ExprType::AddressLiteral, ExprType::AddressField(which)) if equality => {
                Some(finish(Condition::Address { which, ranges: vec![self.address_literal(left)?] }))
            }
            (ExprType::AddressField(a), ExprType::AddressField(b)) if equality => {
                if a == b {
                    return self.fail(
                        e.span,
                        "this compares an address with itself",
                        "expected `src == dst`",
                    );
                }
                Some(finish(Condition::SameAddress))
            }
            (ExprType::Flow, _) | (_, ExprType::Flow) => {
                let label = "expected src, dst, sport or dport; `flow` is a key: `hash(flow)`";
                self.fail(e.span, "a flow cannot be compared", label)
            }
            (ExprType::Condition, _) => {
                self.fail(left.span, "this is a condition, not a value", "expected a number")
            }
            (_, ExprType::Condition) => {
                self.fail(right.span, "this is a condition, not a value", "expected a number")
            }
            (a, b) if equality => {
                let message = format!("{} cannot be compared with {}", a.text(), b.text());
                let label = match a {
                    ExprType::Number => "expected a number on the right",
                    ExprType::ByteRange => "expected a string on the right, such as \"TEST\" or x\"0a0b\"",
                    ExprType::AddressField(_) => "expected an address on the right, such as 10.0.0.1",
                    _ => "expected a field on one side",
                };
                self.fail(e.span, message, label)
            }
            (a, b) => {
                let odd = if a == ExprType::Number { b } else { a };
                let message = format!("`{}` does not order {}", op.text(), odd.text());
                self.fail(e.span, message, "expected `==` or `!=`, or numbers on both sides")
            }
        }
    }

    fn compare_numbers(&mut self, e: &Expr, op: CmpOp, left: &Expr, right: &Expr) -> Option<Condition> {
        let (l, r) = (self.value(left), self.value(right));
        let (op, value, c, subject) = match (l?, r?) {
            (Value::Const(a), Value::Const(b)) => {
                return Some(if op.apply(a, b) { Condition::Always } else { Condition::Never });
            }
            (value, Value::Const(c)) => (op, value, c, excerpt(left)),
            (Value::Const(c), value) => (op.mirrored(), value, c, excerpt(right)),
            (left, right) => return Some(Condition::Compare { op, left, right }),
        };
        let max = value.max();
        // `<= max` and `>= 0` are allowed: they ask whether the value can be read. A constant that the field cannot hold is a
        // mistake.
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
        let cond = Condition::Number { value, ranges };
        Some(if op == CmpOp::Ne { Condition::Not(Box::new(cond)) } else { cond })
    }

    /// An address, as the range of just this one.
    pub(super) fn address_literal(&mut self, e: &Expr) -> Option<(u128, u128)> {
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

    /// The bytes of a string of this length.
    pub(super) fn string_literal(&mut self, e: &Expr, len: u16) -> Option<Vec<u8>> {
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
