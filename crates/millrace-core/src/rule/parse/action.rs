//! Actions: what stands behind `=>`, with `on` and `spill`.

use super::super::ast::{Action, ActionKind, Expr};
use super::super::diagnostics::quote;
use super::super::lex::Tok;
use super::super::spelling::suggest;
use super::cursor::{Parsed, Parser};

/// Every action: its word, and its argument as messages show it, which is empty for an action without one.
const ACTIONS: [(&str, &str); 9] = [
    ("queue", "(n)"),
    ("mod", "(…)"),
    ("hash", "(…)"),
    ("round_robin", ""),
    ("random", ""),
    ("cpu", ""),
    ("rxq", ""),
    ("drop", ""),
    ("sample", "(n)"),
];

/// Whether a word is an action's.
pub(super) fn is_action(word: &str) -> bool {
    ACTIONS.iter().any(|(action, _)| *action == word)
}

/// What is expected where an action must stand: all of them.
fn action_help() -> String {
    let shown = ACTIONS.map(|(word, argument)| format!("{word}{argument}"));
    let [first @ .., last] = &shown;
    format!("expected an action: {} or {last}", first.join(", "))
}

impl Parser<'_> {
    /// Whether an action stands here, and so no condition. `cpu` and `rxq` are fields too (`cpu == 1 => …`): they are actions
    /// where the rule ends, or `on` or `spill` follows.
    pub(super) fn action_ahead(&mut self) -> bool {
        match self.word() {
            Some("cpu" | "rxq") => {
                let (tok, span) = self.token(self.at + 1);
                match tok {
                    Tok::Newline | Tok::Semi | Tok::End => {
                        let here = self.at;
                        self.at += 1;
                        let ends = tok != Tok::Newline || !self.line_continues();
                        self.at = here;
                        ends
                    }
                    Tok::Word => matches!(self.slice(span), "on" | "spill"),
                    _ => false,
                }
            }
            Some(word) => is_action(word),
            None => false,
        }
    }

    pub(super) fn action(&mut self) -> Parsed<Action> {
        let start = self.span();
        let Some(word) = self.word() else { return self.unexpected(action_help()) };
        self.at += 1;
        let kind = match word {
            "queue" => ActionKind::Queue(self.argument("expected a queue number: `queue(0)`")?),
            "mod" => ActionKind::Mod(self.argument("expected a value: `mod(u32[0])`")?),
            "sample" => {
                ActionKind::Sample(self.argument("expected a number: `sample(10)` keeps one in ten")?)
            }
            "hash" => ActionKind::Hash(self.keys()?),
            "round_robin" => ActionKind::RoundRobin,
            "random" => ActionKind::Random,
            "cpu" => ActionKind::Cpu,
            "rxq" => ActionKind::RxQueue,
            "drop" => ActionKind::Drop,
            _ => {
                let hint = suggest(word, ACTIONS.map(|(action, _)| action));
                return self.fail(start, format!("unknown action {}{hint}", quote(word)), action_help());
            }
        };
        let takes_none = ACTIONS.iter().any(|(action, argument)| *action == word && argument.is_empty());
        if takes_none && self.peek() == Tok::Open {
            return self.unexpected(format!("`{word}` takes no argument"));
        }
        let mut action = Action { kind, span: start.to(self.last_span()), on: None, spill: None };
        self.modifiers(&mut action)?;
        Ok(action)
    }

    fn modifiers(&mut self, action: &mut Action) -> Parsed<()> {
        loop {
            let span = self.span();
            match self.word() {
                Some("on") if action.on.is_none() => {
                    self.at += 1;
                    let from = self.binary(0)?;
                    self.expect(Tok::DotDot, "expected a range of queues: `on 0..3`")?;
                    let to = self.binary(0)?;
                    let span = from.span.to(to.span);
                    action.on = Some((from, to, span));
                }
                Some("spill") if action.spill.is_none() => {
                    self.at += 1;
                    action.spill = Some(span);
                }
                Some(word @ ("on" | "spill")) => {
                    return self.fail(span, format!("`{word}` is given twice"), "expected it once");
                }
                _ => return Ok(()),
            }
        }
    }

    /// `(expression)`
    fn argument(&mut self, label: &str) -> Parsed<Expr> {
        self.open(Tok::Open, label)?;
        if self.peek() == Tok::Close {
            return self.unexpected(label);
        }
        let argument = self.or()?;
        self.close(Tok::Close, "expected `)`")?;
        Ok(argument)
    }

    /// `(expression, …)`
    fn keys(&mut self) -> Parsed<Vec<Expr>> {
        let label = "expected a key: `hash(flow)`, `hash(bytes[4..12], src)`";
        self.open(Tok::Open, label)?;
        if self.peek() == Tok::Close {
            return self.unexpected(label);
        }
        let mut keys = vec![self.or()?];
        while self.eat(Tok::Comma) {
            keys.push(self.or()?);
        }
        self.close(Tok::Close, "expected `,` or `)`")?;
        Ok(keys)
    }
}
