//! Where the parser is in the text: it looks at tokens, takes them, and says what it did not expect.

use super::super::ast::Span;
use super::super::lex::{Tok, Tokens};
use super::super::report::{Report, quote};

/// Parentheses, `not`s and offsets within one another; the recursion of every later stage is bounded by it too.
const MAX_NESTING: u32 = 64;

/// The mistake is reported; the rule is lost.
pub(super) struct Failed;
pub(super) type Parsed<T> = Result<T, Failed>;

pub(super) struct Parser<'a> {
    text: &'a str,
    pub(super) tokens: Tokens,
    pub(super) at: usize,
    /// Inside brackets a newline is a blank.
    brackets: u32,
    nesting: u32,
    report: &'a mut Report,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, tokens: Tokens, report: &'a mut Report) -> Self {
        Parser { text, tokens, at: 0, brackets: 0, nesting: 0, report }
    }

    /// At the beginning of a rule, or behind a broken one, nothing is open.
    pub(super) fn outermost(&mut self) {
        self.brackets = 0;
        self.nesting = 0;
    }

    pub(super) fn token(&self, at: usize) -> (Tok, Span) {
        let list = &self.tokens.list;
        list.get(at).or(list.last()).copied().unwrap_or((Tok::End, Span::default()))
    }

    /// After a newline: does the next line begin with what cannot begin a rule?
    pub(super) fn continues(&self) -> bool {
        let mut at = self.at;
        while self.token(at).0 == Tok::Newline {
            at += 1;
        }
        match self.token(at) {
            (Tok::Arrow | Tok::And | Tok::Or, _) => true,
            // `or: …` would be a rule of that name.
            (Tok::Word, span) => {
                matches!(self.slice(span), "and" | "or") && self.token(at + 1).0 != Tok::Colon
            }
            _ => false,
        }
    }

    pub(super) fn skip_newlines(&mut self) {
        while self.token(self.at).0 == Tok::Newline {
            self.at += 1;
        }
    }

    pub(super) fn peek(&mut self) -> Tok {
        if self.token(self.at).0 == Tok::Newline && (self.brackets > 0 || self.continues()) {
            self.skip_newlines();
        }
        self.token(self.at).0
    }

    pub(super) fn span(&mut self) -> Span {
        self.peek();
        self.token(self.at).1
    }

    /// End of the token before this one.
    pub(super) fn last_span(&self) -> Span {
        self.token(self.at.saturating_sub(1)).1
    }

    pub(super) fn slice(&self, span: Span) -> &'a str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// The word here, if it is one.
    pub(super) fn word(&mut self) -> Option<&'a str> {
        if self.peek() == Tok::Word { Some(self.slice(self.token(self.at).1)) } else { None }
    }

    pub(super) fn eat(&mut self, tok: Tok) -> bool {
        let found = self.peek() == tok;
        self.at += usize::from(found);
        found
    }

    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.word() == Some(word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn fail<T>(
        &mut self,
        span: Span,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Parsed<T> {
        self.report.push(span, message, label);
        Err(Failed)
    }

    /// "unexpected …" at the current token.
    pub(super) fn unexpected<T>(&mut self, label: impl Into<String>) -> Parsed<T> {
        let tok = self.peek();
        let span = self.span();
        let what = match tok {
            Tok::Bad => return Err(Failed), // reported by the lexer
            Tok::End | Tok::Newline | Tok::Semi => "the rule ends too early".to_owned(),
            _ => format!("unexpected {}", quote(self.slice(span))),
        };
        self.fail(span, what, label)
    }

    pub(super) fn expect(&mut self, tok: Tok, label: &str) -> Parsed<()> {
        if self.eat(tok) { Ok(()) } else { self.unexpected(label) }
    }

    pub(super) fn open(&mut self, tok: Tok, label: &str) -> Parsed<()> {
        self.expect(tok, label)?;
        self.brackets += 1;
        Ok(())
    }

    pub(super) fn close(&mut self, tok: Tok, label: &str) -> Parsed<()> {
        self.expect(tok, label)?;
        self.brackets = self.brackets.saturating_sub(1);
        Ok(())
    }

    pub(super) fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting >= MAX_NESTING {
            let span = self.span();
            return self.fail(
                span,
                "this is nested too deeply",
                format!("expected at most {MAX_NESTING} levels; split the rule"),
            );
        }
        self.nesting += 1;
        let result = f(self);
        self.nesting = self.nesting.saturating_sub(1);
        result
    }
}
