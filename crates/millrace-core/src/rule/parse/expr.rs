//! Expressions, from the operator that binds loosest to the one that binds tightest.

use super::super::ast::{Expr, ExprKind, FIELDS, Item, NamedField};
use super::super::diagnostics::quote;
use super::super::lex::Tok;
use super::super::operator::BinOp;
use super::super::span::Span;
use super::super::spelling::suggest;
use super::action::is_action;
use super::cursor::{Parsed, Parser};

const FIELD_HELP: &str = "expected a field (u8, u16, u32, u64, their `le` forms, bytes, len, src, dst, sport, dport, \
                          flow, rxq, cpu), a literal or `(`";

impl Parser<'_> {
    pub(super) fn or(&mut self) -> Parsed<Expr> {
        let mut parts = vec![self.and()?];
        while self.eat(Tok::Or) || self.eat_word("or") {
            self.skip_newlines();
            parts.push(self.and()?);
        }
        Ok(flatten(parts, ExprKind::Or))
    }

    fn and(&mut self) -> Parsed<Expr> {
        let mut parts = vec![self.not()?];
        while self.eat(Tok::And) || self.eat_word("and") {
            self.skip_newlines();
            parts.push(self.not()?);
        }
        Ok(flatten(parts, ExprKind::And))
    }

    fn not(&mut self) -> Parsed<Expr> {
        let start = self.span();
        if self.eat(Tok::Not) || self.eat_word("not") {
            self.skip_newlines();
            let inner = self.nested(Self::not)?;
            let span = start.to(inner.span);
            return Ok(Expr { kind: ExprKind::Not(Box::new(inner)), span });
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Parsed<Expr> {
        let left = self.binary(0)?;
        if let Tok::Cmp(op) = self.peek() {
            self.at += 1;
            self.skip_newlines();
            let right = self.binary(0)?;
            let span = left.span.to(right.span);
            let kind = ExprKind::Compare { op, left: Box::new(left), right: Box::new(right) };
            return Ok(Expr { kind, span });
        }
        let not = self.word() == Some("not");
        if not {
            self.at += 1;
            if self.word() != Some("in") {
                return self.unexpected("expected `in` after `not`; as in `x not in {1, 2}`");
            }
        }
        if !self.eat_word("in") {
            return Ok(left);
        }
        self.skip_newlines();
        let (items, braces) = self.items()?;
        let span = left.span.to(self.last_span());
        let membership = Expr { kind: ExprKind::In { value: Box::new(left), items, braces }, span };
        Ok(if not { Expr { kind: ExprKind::Not(Box::new(membership)), span } } else { membership })
    }

    fn items(&mut self) -> Parsed<(Vec<Item>, bool)> {
        if self.peek() != Tok::OpenBrace {
            return Ok((vec![self.item()?], false));
        }
        self.open(Tok::OpenBrace, "")?;
        let mut items = Vec::new();
        while self.peek() != Tok::CloseBrace {
            items.push(self.item()?);
            if !self.eat(Tok::Comma) {
                break;
            }
        }
        let end = self.span();
        self.close(Tok::CloseBrace, "expected `,` or `}`")?;
        if items.is_empty() {
            return self.fail(end, "this set is empty", "expected values, ranges `a..b` or prefixes");
        }
        Ok((items, true))
    }

    fn item(&mut self) -> Parsed<Item> {
        if let Tok::Addr(addr) = self.peek() {
            let start = self.span();
            self.at += 1;
            if self.eat(Tok::Op(BinOp::Div)) {
                let Tok::Int(bits) = self.peek() else {
                    return self.unexpected("expected the length of a prefix: `10.0.0.0/8`");
                };
                self.at += 1;
                return Ok(Item::Prefix { addr, bits, span: start.to(self.last_span()) });
            }
            return Ok(Item::Value(Expr { kind: ExprKind::Addr(addr), span: start }));
        }
        let first = self.binary(0)?;
        if self.eat(Tok::DotDot) {
            return Ok(Item::Range(first, self.binary(0)?));
        }
        Ok(Item::Value(first))
    }

    /// Operators on numbers, from this precedence on.
    pub(super) fn binary(&mut self, precedence: u8) -> Parsed<Expr> {
        if precedence > 5 {
            return self.primary();
        }
        let first = self.binary(precedence + 1)?;
        let mut rest = Vec::new();
        while let Tok::Op(op) = self.peek() {
            if op.precedence() != precedence {
                break;
            }
            self.at += 1;
            self.skip_newlines();
            rest.push((op, self.binary(precedence + 1)?));
        }
        let Some((_, last)) = rest.last() else { return Ok(first) };
        let span = first.span.to(last.span);
        Ok(Expr { kind: ExprKind::Chain { first: Box::new(first), rest }, span })
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let kind = match self.peek() {
            Tok::Int(n) => {
                self.at += 1;
                ExprKind::Int(n)
            }
            Tok::Addr(addr) => {
                self.at += 1;
                if self.peek() == Tok::Op(BinOp::Div) {
                    return self.unexpected(
                        "expected the end of the address; prefixes stand after `in`: `src in 10.0.0.0/8`",
                    );
                }
                ExprKind::Addr(addr)
            }
            Tok::Bytes(i) => {
                self.at += 1;
                ExprKind::Bytes(self.tokens.strings.get(i).cloned().unwrap_or_default())
            }
            Tok::Open => {
                self.open(Tok::Open, "")?;
                let inner = self.nested(Self::or)?;
                self.close(Tok::Close, "expected `)`")?;
                return Ok(Expr { kind: inner.kind, span: start.to(self.last_span()) });
            }
            Tok::Word => self.field(start)?,
            _ => return self.unexpected(FIELD_HELP),
        };
        Ok(Expr { kind, span: start.to(self.last_span()) })
    }

    fn field(&mut self, span: Span) -> Parsed<ExprKind> {
        let word = self.slice(span);
        if let Some((_, width, little_endian)) = FIELDS.iter().find(|(name, ..)| *name == word) {
            self.at += 1;
            self.open(Tok::OpenBracket, &format!("expected an offset: `{word}[0]`"))?;
            let offset = self.nested(|p| p.binary(0))?;
            if self.peek() == Tok::DotDot {
                return self.unexpected("one number has one offset; a range of bytes is `bytes[a..b]`");
            }
            self.close(Tok::CloseBracket, "expected `]`")?;
            return Ok(ExprKind::Field {
                width: *width,
                little_endian: *little_endian,
                offset: Box::new(offset),
            });
        }
        if word == "bytes" {
            self.at += 1;
            let label = "expected a half-open range: `bytes[4..12]`";
            self.open(Tok::OpenBracket, label)?;
            let from = self.nested(|p| p.binary(0))?;
            self.expect(Tok::DotDot, label)?;
            let to = self.nested(|p| p.binary(0))?;
            self.close(Tok::CloseBracket, "expected `]`")?;
            return Ok(ExprKind::Slice { from: Box::new(from), to: Box::new(to) });
        }
        if let Some((_, field)) = NamedField::ALL.iter().find(|(text, _)| *text == word) {
            self.at += 1;
            return Ok(ExprKind::Named(*field));
        }
        if is_action(word) {
            let label = "expected a field or a literal; actions stand after `=>`";
            return self.fail(span, format!("`{word}` is an action"), label);
        }
        if matches!(word, "and" | "or" | "in" | "not" | "on" | "spill" | "else") {
            return self.unexpected(FIELD_HELP);
        }
        let known =
            FIELDS.iter().map(|f| f.0).chain(["bytes", "not"]).chain(NamedField::ALL.iter().map(|f| f.0));
        let hint = match word {
            "u8le" => "; one byte has no order, write `u8`".to_owned(),
            _ => suggest(word, known),
        };
        self.fail(span, format!("unknown field {}{hint}", quote(word)), FIELD_HELP)
    }
}

/// A single operand stays itself; several become a list.
fn flatten(mut parts: Vec<Expr>, kind: impl FnOnce(Vec<Expr>) -> ExprKind) -> Expr {
    let span = match (parts.first(), parts.last()) {
        (Some(a), Some(b)) => a.span.to(b.span),
        _ => Span::default(),
    };
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            Expr { kind: kind(parts), span }
        }
        None => Expr { kind: kind(parts), span },
    }
}
