//! Numbers, offsets and ranges of bytes.

use super::super::ast::{Expr, ExprKind, NamedField, Width};
use super::super::load::{Load, MAX_PAYLOAD};
use super::super::operator::BinOp;
use super::super::program::MAX_TEMPORARIES;
use super::analyzer::Analyzer;
use super::expr_type::ExprType;
use super::typed::Value;

impl Analyzer<'_> {
    /// A number.
    pub(super) fn value(&mut self, e: &Expr) -> Option<Value> {
        let value = self.operand(e)?;
        if value.temporaries() > MAX_TEMPORARIES {
            let label =
                format!("expected at most {MAX_TEMPORARIES} parentheses within one another on the right");
            return self.fail(e.span, "this calculation is nested too deeply", label);
        }
        Some(value)
    }

    fn operand(&mut self, e: &Expr) -> Option<Value> {
        match &e.kind {
            ExprKind::Int(n) => Some(Value::Const(*n)),
            ExprKind::Field { width, little_endian, offset } => {
                let at = self.offset(offset, width.bytes())?;
                Some(Value::Load(match (width, little_endian) {
                    (Width::U8, _) => Load::U8(at),
                    (Width::U16, false) => Load::U16(at),
                    (Width::U32, false) => Load::U32(at),
                    (Width::U64, false) => Load::U64(at),
                    (Width::U16, true) => Load::U16Le(at),
                    (Width::U32, true) => Load::U32Le(at),
                    (Width::U64, true) => Load::U64Le(at),
                }))
            }
            ExprKind::Named(field) => match field {
                NamedField::Len => Some(Value::Load(Load::Len)),
                NamedField::SrcPort => Some(Value::Load(Load::SrcPort)),
                NamedField::DstPort => Some(Value::Load(Load::DstPort)),
                NamedField::RxQueue => Some(Value::Load(Load::RxQueue)),
                NamedField::Cpu => Some(Value::Load(Load::Cpu)),
                NamedField::Src | NamedField::Dst => self.fail(
                    e.span,
                    "an address is not a number",
                    format!("expected `hash({0})` as an action, or `{0} in …` as a condition", field.text()),
                ),
                NamedField::Flow => {
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

    /// Operators of one precedence. Constants at the beginning are folded; further right the result would depend on what
    /// stands left of them.
    fn chain(&mut self, first: &Expr, rest: &[(BinOp, Expr)]) -> Option<Value> {
        let mut ok = true;
        let mut head = self.operand(first);
        ok &= head.is_some();
        let mut tail: Vec<(BinOp, Value)> = Vec::new();
        for (op, right) in rest {
            let Some(value) = self.operand(right) else {
                ok = false;
                continue;
            };
            if matches!((op, &value), (BinOp::Div | BinOp::Mod, Value::Const(0))) {
                ok = false;
                self.diagnostics.push(right.span, "division by zero", "expected a divisor other than 0");
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

    /// A constant number; `reason` tells why it must be one.
    pub(super) fn constant(&mut self, e: &Expr, reason: &str) -> Option<u64> {
        let given = ExprType::of(e);
        if given != ExprType::Number {
            let message = format!("this is {}, not a number", given.text());
            return self.fail(e.span, message, "expected a constant number");
        }
        match self.value(e)? {
            Value::Const(n) => Some(n),
            _ => self.fail(e.span, "this is not a constant", format!("expected a number; {reason}")),
        }
    }

    /// A payload offset that leaves room for `width` bytes.
    fn offset(&mut self, e: &Expr, width: u64) -> Option<u16> {
        let at = self.constant(e, "offsets are constant")?;
        if at.checked_add(width).is_none_or(|end| end > MAX_PAYLOAD) {
            let label = format!("a UDP payload has at most {MAX_PAYLOAD} bytes");
            return self.fail(e.span, format!("offset {at} is beyond every datagram"), label);
        }
        u16::try_from(at).ok()
    }

    /// Offset and length of `bytes[a..b]`.
    pub(super) fn slice(&mut self, e: &Expr) -> Option<(u16, u16)> {
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
}
