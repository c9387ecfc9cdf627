//! Tokens → syntax tree, by recursive descent. The grammar is in `docs/rules.md`.
//!
//! A rule that does not parse is reported once and skipped up to the next separator.
//!
//! `cursor` moves over the tokens; here are rules, in `action` and `expr` what they consist of.

mod action;
mod cursor;
mod expr;

use super::ast::{Rule, Span};
use super::lex::{Tok, lex};
use super::report::{Report, quote, suggest};
use cursor::{Failed, Parsed, Parser};

/// Characters of a rule's name.
const MAX_NAME: usize = 64;

/// All rules that parse; the rest is in `report`.
pub(crate) fn parse(text: &str, report: &mut Report) -> Vec<Rule> {
    let tokens = lex(text, report);
    Parser::new(text, tokens, report).rules()
}

impl Parser<'_> {
    fn rules(&mut self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for index in 0.. {
            while matches!(self.peek(), Tok::Newline | Tok::Semi) {
                self.at += 1;
            }
            if self.peek() == Tok::End {
                break;
            }
            match self.rule(index) {
                Ok(rule) => rules.push(rule),
                Err(Failed) => self.recover(),
            }
        }
        rules
    }

    /// To the next separator, over lines that only continue the broken one.
    fn recover(&mut self) {
        self.outermost();
        loop {
            match self.token(self.at).0 {
                Tok::End | Tok::Semi => return,
                Tok::Newline if !self.continues() => return,
                _ => self.at += 1,
            }
        }
    }

    fn rule(&mut self, index: usize) -> Parsed<Rule> {
        self.outermost();
        let start = self.span();
        let name = self.name()?;
        let condition = if self.eat_word("else") {
            self.arrow()?;
            None
        } else if self.action_ahead() {
            let action = self.action()?;
            if self.peek() == Tok::Arrow {
                let label = "expected a condition before `=>`, such as `len >= 8`";
                return self.fail(action.span, "this is an action, not a condition", label);
            }
            return self.finish(Rule { index, name, condition: None, action, span: start });
        } else {
            let condition = self.or()?;
            self.arrow()?;
            Some(condition)
        };
        let action = self.action()?;
        self.finish(Rule { index, name, condition, action, span: start })
    }

    fn finish(&mut self, mut rule: Rule) -> Parsed<Rule> {
        if !matches!(self.peek(), Tok::Newline | Tok::Semi | Tok::End) {
            return self.unexpected("expected the end of the rule: a new line, `;`, `on a..b` or `spill`");
        }
        rule.span = rule.span.to(self.last_span());
        Ok(rule)
    }

    fn name(&mut self) -> Parsed<Option<(String, Span)>> {
        let Some(word) = self.word() else { return Ok(None) };
        if self.token(self.at + 1).0 != Tok::Colon {
            return Ok(None);
        }
        let span = self.span();
        if word.len() > MAX_NAME {
            return self.fail(
                span,
                "this name is too long",
                format!("expected at most {MAX_NAME} characters"),
            );
        }
        self.at += 2;
        // A name may stand on a line of its own.
        self.skip_newlines();
        Ok(Some((word.to_owned(), span)))
    }

    fn arrow(&mut self) -> Parsed<()> {
        if self.eat(Tok::Arrow) {
            self.skip_newlines();
            return Ok(());
        }
        match self.peek() {
            Tok::Cmp(_) => self
                .unexpected("comparisons do not chain; expected `and`, `or` or `=>`; a range is `x in a..b`"),
            Tok::Word => {
                let span = self.span();
                let word = self.slice(span);
                let hint = suggest(word, ["and", "or", "in"]);
                self.fail(
                    span,
                    format!("unexpected {}{hint}", quote(word)),
                    "expected an operator, `and`, `or` or `=> action`",
                )
            }
            _ => self.unexpected("expected an operator, `and`, `or` or `=> action`"),
        }
    }
}
