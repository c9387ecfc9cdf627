//! Actions: their keys, and queues that must exist.

use super::super::ast::{Action, ActionKind, Expr, Span};
use super::super::program::Queues;
use super::Checker;
use super::kind::{Kind, kind};
use super::types::{Act, By, Part, Value};

impl Checker<'_> {
    pub(super) fn action(&mut self, action: &Action) -> Option<Act> {
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

    pub(super) fn key(&mut self, e: &Expr) -> Option<Part> {
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

    pub(super) fn queue(&mut self, e: &Expr) -> Option<u16> {
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

    pub(super) fn on(&mut self, from: &Expr, to: &Expr, span: Span) -> Option<(u16, u16)> {
        let (first, last) = (self.queue(from), self.queue(to));
        let (first, last) = (first?, last?);
        if first > last {
            let label = format!("expected `{last}..{first}`; both ends are included");
            return self.fail(span, "this range is empty", label);
        }
        Some((first, last))
    }
}
