//! The lexer: blanks, comments, words and operators. `number` and `string` read literals.

use super::super::diagnostics::Diagnostics;
use super::super::operator::{BinOp, CmpOp};
use super::super::span::Span;
use super::token::{Tok, Tokens};

/// All tokens of a text.
pub(crate) fn lex(text: &str, diagnostics: &mut Diagnostics) -> Tokens {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, strings: Vec::new(), diagnostics };
    let mut list = Vec::new();
    while let Some(token) = lexer.next() {
        list.push(token);
    }
    let end = text.len() as u32;
    list.push((Tok::End, Span { start: end, end }));
    Tokens { list, strings: lexer.strings }
}

pub(super) struct Lexer<'a> {
    pub(super) text: &'a str,
    pub(super) bytes: &'a [u8],
    /// Offset of the next byte.
    pub(super) at: usize,
    pub(super) strings: Vec<Vec<u8>>,
    diagnostics: &'a mut Diagnostics,
}

impl Lexer<'_> {
    /// A byte from here on; 0 behind the end.
    pub(super) fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn span_from(&self, start: usize) -> Span {
        Span { start: start as u32, end: self.at as u32 }
    }

    pub(super) fn skip_while(&mut self, f: impl Fn(u8) -> bool) {
        while self.bytes.get(self.at).is_some_and(|&b| f(b)) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Option<(Tok, Span)> {
        self.skip_while(|b| matches!(b, b' ' | b'\t' | b'\r'));
        if self.peek(0) == b'#' {
            self.skip_while(|b| b != b'\n');
        }
        let start = self.at;
        let first = *self.bytes.get(start)?;
        let tok = match first {
            b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' | b':' if self.v6_len() > 0 => self.v6(),
            b'0'..=b'9' => self.number(),
            b'x' if matches!(self.peek(1), b'"' | b'\'') => self.hex_string(),
            b'"' | b'\'' => self.string(),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                self.skip_while(is_word_byte);
                Tok::Word
            }
            _ => self.symbol(first),
        };
        Some((tok, self.span_from(start)))
    }

    /// Reports what stands from `start` to here.
    pub(super) fn bad(&mut self, start: usize, message: impl Into<String>, label: &str) -> Tok {
        let span = self.span_from(start);
        self.diagnostics.push(span, message, label);
        Tok::Bad
    }

    fn symbol(&mut self, first: u8) -> Tok {
        const TWO: [(&[u8; 2], Tok); 8] = [
            (b"=>", Tok::Arrow),
            (b"==", Tok::Cmp(CmpOp::Eq)),
            (b"!=", Tok::Cmp(CmpOp::Ne)),
            (b"<=", Tok::Cmp(CmpOp::Le)),
            (b">=", Tok::Cmp(CmpOp::Ge)),
            (b"<<", Tok::Op(BinOp::Shl)),
            (b">>", Tok::Op(BinOp::Shr)),
            (b"..", Tok::DotDot),
        ];
        /// Operators of other languages. They are understood, so that nothing but their spelling is reported.
        const FOREIGN: [(&[u8], Tok, &str); 7] = [
            (b"&&", Tok::And, "write `and`"),
            (b"||", Tok::Or, "write `or`"),
            (b"->", Tok::Arrow, "write `=>` before the action"),
            (b"<>", Tok::Cmp(CmpOp::Ne), "write `!=`"),
            (b"**", Tok::Op(BinOp::Mul), "there is no power operator; `1 << n` is a power of two"),
            (b"!", Tok::Not, "write `not`"),
            (b"=", Tok::Cmp(CmpOp::Eq), "write `==` to compare, `=>` before the action"),
        ];
        let start = self.at;
        if let Some((_, tok)) = TWO.iter().find(|(s, _)| self.bytes[start..].starts_with(*s)) {
            self.at += 2;
            // What is left of `1...4` or `===` is reported when it is read next.
            return *tok;
        }
        if let Some((s, tok, label)) = FOREIGN.iter().find(|(s, ..)| self.bytes[start..].starts_with(s)) {
            self.at += s.len();
            let message = format!("unknown operator `{}`", String::from_utf8_lossy(s));
            self.bad(start, message, label);
            return *tok;
        }
        self.at += 1;
        match first {
            b'\n' => Tok::Newline,
            b';' => Tok::Semi,
            b':' => Tok::Colon,
            b',' => Tok::Comma,
            b'(' => Tok::Open,
            b')' => Tok::Close,
            b'[' => Tok::OpenBracket,
            b']' => Tok::CloseBracket,
            b'{' => Tok::OpenBrace,
            b'}' => Tok::CloseBrace,
            b'+' => Tok::Op(BinOp::Add),
            b'-' => Tok::Op(BinOp::Sub),
            b'*' => Tok::Op(BinOp::Mul),
            b'/' => Tok::Op(BinOp::Div),
            b'%' => Tok::Op(BinOp::Mod),
            b'&' => Tok::Op(BinOp::And),
            b'|' => Tok::Op(BinOp::Or),
            b'^' => Tok::Op(BinOp::Xor),
            b'<' => Tok::Cmp(CmpOp::Lt),
            b'>' => Tok::Cmp(CmpOp::Gt),
            _ => self.unknown(start),
        }
    }

    /// A run of characters that the language does not have makes one message.
    fn unknown(&mut self, start: usize) -> Tok {
        self.skip_while(|b| b >= 0x80 || (b < b' ' && !matches!(b, b'\n' | b'\r' | b'\t')));
        let c = self.text[start..].chars().next().unwrap_or('\0');
        let shown = if c.is_control() { format!("U+{:04X}", u32::from(c)) } else { format!("`{c}`") };
        self.bad(start, format!("unexpected character {shown}"), "expected a rule: `condition => action`")
    }
}

pub(super) fn is_word_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}
