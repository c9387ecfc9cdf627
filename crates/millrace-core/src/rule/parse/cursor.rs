//! The parser's position in the token list: peeks at tokens, consumes them, and reports unexpected ones.

use super::super::diagnostics::{Diagnostics, quote};
use super::super::lex::{Tok, Tokens};
use super::super::span::Span;

/// How deep parentheses, `not`s and offsets may be nested. It bounds the recursion of this and every later stage, and with
/// it their use of the stack: `rule/tests/hostile.rs` compiles on a stack of 1 MiB.
const MAX_NESTING: u32 = 64;

/// The rule has a mistake, which is reported. The caller gives up on the rule.
pub(super) struct Reported;
pub(super) type Parsed<T> = Result<T, Reported>;

pub(super) struct Parser<'a> {
    text: &'a str,
    pub(super) tokens: Tokens,
    /// Index of the next token.
    pub(super) at: usize,
    /// Open brackets. Inside any, a newline is a blank.
    brackets: u32,
    nesting: u32,
    diagnostics: &'a mut Diagnostics,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, tokens: Tokens, diagnostics: &'a mut Diagnostics) -> Self {
        Parser { text, tokens, at: 0, brackets: 0, nesting: 0, diagnostics }
    }

    /// Forgets open brackets and nesting: at the beginning of a rule, and behind a mistaken one, there are none.
    pub(super) fn reset_nesting(&mut self) {
        self.brackets = 0;
        self.nesting = 0;
    }

    /// The token at an index; the last one, [`Tok::End`], behind all.
    pub(super) fn token(&self, at: usize) -> (Tok, Span) {
        let list = &self.tokens.list;
        list.get(at).or(list.last()).copied().unwrap_or((Tok::End, Span::default()))
    }

    /// Whether the next line begins with what cannot begin a rule, and so continues this one.
    pub(super) fn line_continues(&self) -> bool {
        let mut at = self.at;
        while self.token(at).0 == Tok::Newline {
            at += 1;
        }
        match self.token(at) {
            (Tok::Arrow | Tok::And | Tok::Or, _) => true,
            // `or: …` is a rule of that name.
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

    /// The next token. Newlines that do not end the rule are skipped.
    pub(super) fn peek(&mut self) -> Tok {
        if self.token(self.at).0 == Tok::Newline && (self.brackets > 0 || self.line_continues()) {
            self.skip_newlines();
        }
        self.token(self.at).0
    }

    /// Returns the span of the next token.
    pub(super) fn span(&mut self) -> Span {
        self.peek();
        self.token(self.at).1
    }

    /// Returns the span of the token before this one.
    pub(super) fn last_span(&self) -> Span {
        self.token(self.at.saturating_sub(1)).1
    }

    /// Returns the text of a span.
    pub(super) fn slice(&self, span: Span) -> &'a str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// The next token's text, if it is a word.
    pub(super) fn word(&mut self) -> Option<&'a str> {
        if self.peek() == Tok::Word { Some(self.slice(self.token(self.at).1)) } else { None }
    }

    /// Consumes the next token if it is this one.
    pub(super) fn eat(&mut self, tok: Tok) -> bool {
        let found = self.peek() == tok;
        self.at += usize::from(found);
        found
    }

    /// Consumes the next token if it is this word.
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
        self.diagnostics.push(span, message, label);
        Err(Reported)
    }

    /// Reports the next token as unexpected.
    pub(super) fn unexpected<T>(&mut self, label: impl Into<String>) -> Parsed<T> {
        let tok = self.peek();
        let span = self.span();
        let what = match tok {
            Tok::Bad => return Err(Reported), // reported by the lexer
            Tok::End | Tok::Newline | Tok::Semi => "the rule ends too early".to_owned(),
            _ => format!("unexpected {}", quote(self.slice(span))),
        };
        self.fail(span, what, label)
    }

    pub(super) fn expect(&mut self, tok: Tok, label: &str) -> Parsed<()> {
        if self.eat(tok) { Ok(()) } else { self.unexpected(label) }
    }

    /// Consumes an opening bracket.
    pub(super) fn open(&mut self, tok: Tok, label: &str) -> Parsed<()> {
        self.expect(tok, label)?;
        self.brackets += 1;
        Ok(())
    }

    /// Consumes a closing bracket.
    pub(super) fn close(&mut self, tok: Tok, label: &str) -> Parsed<()> {
        self.expect(tok, label)?;
        self.brackets = self.brackets.saturating_sub(1);
        Ok(())
    }

    /// Parses one level deeper.
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
