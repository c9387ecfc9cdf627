//! Actions: keys must have the right type, and queues must exist.

use super::super::ast::{Action, ActionKind, Expr};
use super::super::queues::Queues;
use super::super::span::Span;
use super::analyzer::Analyzer;
use super::expr_type::ExprType;
use super::typed::{TypedAction, TypedKey, TypedSpread, Value};

impl Analyzer<'_> {
    pub(super) fn action(&mut self, action: &Action) -> Option<TypedAction> {
        let over = match &action.on {
            Some((from, to, span)) => self.queue_range(from, to, *span),
            None => Some((0, self.queues.saturating_sub(1))),
        };
        let spill = action.spill.is_some();
        let by = match &action.kind {
            ActionKind::Drop | ActionKind::Sample(_) => {
                if let Some(span) = action.on.as_ref().map(|on| on.2).or(action.spill) {
                    let label = "expected nothing after an action that chooses no queue";
                    return self.fail(span, "`on` and `spill` are for queues", label);
                }
                let ActionKind::Sample(n) = &action.kind else { return Some(TypedAction::Drop) };
                let count = self.constant(n, "`sample(10)` keeps one in ten")?;
                return match u32::try_from(count) {
                    Ok(count @ 1..) => Some(TypedAction::Sample(count)),
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
                return Some(TypedAction::Queue { queue, spill: spill.then_some((first, last)) });
            }
            ActionKind::Mod(e) => match ExprType::of(e) {
                ExprType::Number => TypedSpread::Mod(self.value(e)?),
                other => {
                    let label = format!("expected a number; `hash({e})` takes other keys");
                    return self.fail(e.span, format!("`mod` cannot reduce {}", other.text()), label);
                }
            },
            ActionKind::Hash(keys) => {
                let parts: Vec<_> = keys.iter().map(|k| self.key(k)).collect();
                TypedSpread::Hash(parts.into_iter().collect::<Option<Vec<_>>>()?)
            }
            ActionKind::RoundRobin => TypedSpread::RoundRobin,
            ActionKind::Random => TypedSpread::Random,
            ActionKind::Cpu => TypedSpread::Cpu,
            ActionKind::RxQueue => TypedSpread::RxQueue,
        };
        let (first, last) = over?;
        Some(TypedAction::Spread { by, over: Queues::new(first, last), spill })
    }

    /// One argument of `hash`.
    fn key(&mut self, e: &Expr) -> Option<TypedKey> {
        match ExprType::of(e) {
            ExprType::Number => match self.value(e)? {
                Value::Const(_) => {
                    self.fail(e.span, "this key is the same for every datagram", "expected a field")
                }
                value => Some(TypedKey::Number(value)),
            },
            ExprType::ByteRange => self.slice(e).map(|(from, len)| TypedKey::Bytes { from, len }),
            ExprType::AddressField(which) => Some(TypedKey::Address(which)),
            ExprType::Flow => Some(TypedKey::Flow),
            ExprType::String | ExprType::AddressLiteral => {
                self.fail(e.span, "this key is the same for every datagram", "expected a field")
            }
            ExprType::Condition => {
                self.fail(e.span, "a condition is not a key", "expected a field or a number")
            }
        }
    }

    /// A queue number.
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

    /// `on a..b`: first and last queue.
    fn queue_range(&mut self, from: &Expr, to: &Expr, span: Span) -> Option<(u16, u16)> {
        let (first, last) = (self.queue(from), self.queue(to));
        let (first, last) = (first?, last?);
        if first > last {
            let label = format!("expected `{last}..{first}`; both ends are included");
            return self.fail(span, "this range is empty", label);
        }
        Some((first, last))
    }
}
