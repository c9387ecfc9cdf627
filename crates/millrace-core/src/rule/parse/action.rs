//! Actions: what stands behind `=>`, with `on` and `spill`.

use super::super::ast::{Action, ActionKind, Expr};
use super::super::diagnostics::quote;
use super::super::lex::Tok;
use super::super::spelling::suggest;
use super::cursor::{Parsed, Parser};

pub(super) const ACTIONS: [&str; 9] =
    ["queue", "mod", "hash", "round_robin", "random", "cpu", "rxq", "drop", "sample"];
const ACTION_HELP: &str =
    "expected an action: queue(n), mod(…), hash(…), round_robin, random, cpu, rxq, drop or sample(n)";

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
            Some(word) => ACTIONS.contains(&word),
            None => false,
        }
    }

    pub(super) fn action(&mut self) -> Parsed<Action> {
        let start = self.span();
        let Some(word) = self.word() else { return self.unexpected(ACTION_HELP) };
        if !ACTIONS.contains(&word) {
            let hint = suggest(word, ACTIONS);
            return self.fail(start, format!("unknown action {}{hint}", quote(word)), ACTION_HELP);
        }
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
            _ => ActionKind::Drop,
        };
        let has_no_argument = matches!(
            kind,
            ActionKind::RoundRobin
                | ActionKind::Random
                | ActionKind::Cpu
                | ActionKind::RxQueue
                | ActionKind::Drop
        );
        if has_no_argument && self.peek() == Tok::Open {
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
