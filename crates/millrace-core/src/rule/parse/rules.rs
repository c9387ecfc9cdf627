//! Rules: their names, separators and arrows.

use super::super::ast::Rule;
use super::super::diagnostics::{Diagnostics, quote};
use super::super::lex::{Tok, lex};
use super::super::span::Span;
use super::super::spelling::suggest;
use super::cursor::{Parsed, Parser, Reported};

/// Longest name of a rule, in bytes. Names are ASCII, and become metric labels.
const MAX_NAME: usize = 64;

/// All rules that parse. A rule that does not is reported once, and skipped up to the next separator.
pub(crate) fn parse(text: &str, diagnostics: &mut Diagnostics) -> Vec<Rule> {
    let tokens = lex(text, diagnostics);
    Parser::new(text, tokens, diagnostics).rules()
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
                Err(Reported) => self.recover(),
            }
        }
        rules
    }

    /// Skips to the next separator, over lines that continue the mistaken rule.
    fn recover(&mut self) {
        self.reset_nesting();
        loop {
            match self.token(self.at).0 {
                Tok::End | Tok::Semi => return,
                Tok::Newline if !self.line_continues() => return,
                _ => self.at += 1,
            }
        }
    }

    fn rule(&mut self, index: usize) -> Parsed<Rule> {
        self.reset_nesting();
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
