//! `in`: a value is one of several constants.

use super::super::ast::{AddrLit, Expr, Item};
use super::analyzer::{Analyzer, excerpt};
use super::expr_type::ExprType;
use super::interval_set::merge_intervals;
use super::typed::{Condition, Value};

impl Analyzer<'_> {
    pub(super) fn membership(&mut self, e: &Expr, value: &Expr, items: &[Item]) -> Option<Condition> {
        match ExprType::of(value) {
            ExprType::Number => {
                let subject = excerpt(value);
                let value = self.value(value)?;
                let max = if matches!(value, Value::Const(_)) { u64::MAX } else { value.max() };
                let ranges: Vec<_> = items.iter().map(|i| self.number_item(i, &subject, max)).collect();
                let ranges =
                    merge_intervals(ranges.into_iter().collect::<Option<Vec<_>>>()?, |n| n.checked_add(1));
                match value {
                    Value::Const(c) => {
                        let inside = ranges.iter().any(|(a, b)| (*a..=*b).contains(&c));
                        Some(if inside { Condition::Always } else { Condition::Never })
                    }
                    value => Some(Condition::Number { value, ranges }),
                }
            }
            ExprType::ByteRange => {
                let (from, len) = self.slice(value)?;
                let any: Vec<_> = items
                    .iter()
                    .map(|item| match item {
                        Item::Value(e) => self.string_literal(e, len),
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
                Some(Condition::Bytes { from, any })
            }
            ExprType::AddressField(which) => {
                let ranges: Vec<_> = items.iter().map(|i| self.address_item(i)).collect();
                let ranges =
                    merge_intervals(ranges.into_iter().collect::<Option<Vec<_>>>()?, |n| n.checked_add(1));
                Some(Condition::Address { which, ranges })
            }
            other => {
                let label = "expected a number, bytes, src or dst before `in`";
                self.fail(e.span, format!("`in` cannot look for {}", other.text()), label)
            }
        }
    }

    /// A number or a range of numbers, none above `max`.
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

    /// An address or a prefix, as a range of addresses.
    fn address_item(&mut self, item: &Item) -> Option<(u128, u128)> {
        match item {
            Item::Value(e) => self.address_literal(e),
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
}
