//! Text → tokens. Never fails: what it cannot read is reported and becomes [`Tok::Bad`], at which the parser gives up
//! on that rule without a second message.

use super::ast::{AddrLit, BinOp, CmpOp, Span};
use super::report::Report;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A token; words keep their text in the source, byte strings theirs in [`Tokens::strings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tok {
    Word,
    Int(u64),
    /// Index into [`Tokens::strings`].
    Bytes(usize),
    Addr(AddrLit),
    Op(BinOp),
    Cmp(CmpOp),
    /// `&&`, `||` and `!`, reported already.
    And,
    Or,
    Not,
    Arrow,
    Colon,
    Comma,
    DotDot,
    Open,
    Close,
    OpenBracket,
    CloseBracket,
    OpenBrace,
    CloseBrace,
    Newline,
    Semi,
    Bad,
    End,
}

/// All tokens of a text; the last is [`Tok::End`].
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) list: Vec<(Tok, Span)>,
    pub(crate) strings: Vec<Vec<u8>>,
}

/// The longest text of an IPv6 address is 45 characters.
const LONGEST_V6: usize = 45;

pub(crate) fn lex(text: &str, report: &mut Report) -> Tokens {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, strings: Vec::new(), report };
    let mut list = Vec::new();
    while let Some(token) = lexer.next() {
        list.push(token);
    }
    let end = text.len() as u32;
    list.push((Tok::End, Span { start: end, end }));
    Tokens { list, strings: lexer.strings }
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    strings: Vec<Vec<u8>>,
    report: &'a mut Report,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn span_from(&self, start: usize) -> Span {
        Span { start: start as u32, end: self.at as u32 }
    }

    fn skip_while(&mut self, f: impl Fn(u8) -> bool) {
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
            b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' | b':' if self.v6_ahead() > 0 => self.v6(),
            b'0'..=b'9' => self.number(),
            b'x' if matches!(self.peek(1), b'"' | b'\'') => self.hex(),
            b'"' | b'\'' => self.string(),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                self.skip_while(is_word);
                Tok::Word
            }
            _ => self.symbol(first),
        };
        Some((tok, self.span_from(start)))
    }

    fn bad(&mut self, start: usize, message: impl Into<String>, label: &str) -> Tok {
        let span = self.span_from(start);
        self.report.push(span, message, label);
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
        /// What other languages write; understood, so that only this is reported.
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
            // `1...4` and `===` are slips worth one message of their own, by way of what follows.
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

    /// A run of characters that mean nothing here: one message for all of them.
    fn unknown(&mut self, start: usize) -> Tok {
        self.skip_while(|b| b >= 0x80 || (b < b' ' && !matches!(b, b'\n' | b'\r' | b'\t')));
        let c = self.text[start..].chars().next().unwrap_or('\0');
        let shown = if c.is_control() { format!("U+{:04X}", u32::from(c)) } else { format!("`{c}`") };
        self.bad(start, format!("unexpected character {shown}"), "expected a rule: `condition => action`")
    }

    /// Length of an IPv6 address that begins here; 0: none does. Needs two colons, so a rule name (`dead:`) is none.
    fn v6_ahead(&self) -> usize {
        let rest = &self.bytes[self.at..];
        let len = rest
            .iter()
            .take(LONGEST_V6 + 1)
            .take_while(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
            .count();
        let run = &rest[..len];
        let looks = run.windows(2).any(|w| w == b"::") || run.iter().filter(|&&b| b == b':').count() > 2;
        if looks && len <= LONGEST_V6 && !rest.get(len).copied().is_some_and(is_word) { len } else { 0 }
    }

    fn v6(&mut self) -> Tok {
        let start = self.at;
        self.at += self.v6_ahead();
        match self.text[start..self.at].parse::<Ipv6Addr>() {
            Ok(addr) => Tok::Addr(AddrLit { bytes: addr.octets(), v4: false }),
            Err(_) => self.bad(start, "this is not an IPv6 address", "expected one such as `2001:db8::1`"),
        }
    }

    fn number(&mut self) -> Tok {
        let start = self.at;
        let (radix, digits) = match (self.peek(0), self.peek(1) | 0x20) {
            (b'0', b'x') => (16, start + 2),
            (b'0', b'b') => (2, start + 2),
            (b'0', b'o') => (8, start + 2),
            _ => (10, start),
        };
        self.skip_while(is_word);
        if radix == 10 && self.peek(0) == b'.' && self.peek(1).is_ascii_digit() {
            return self.v4(start);
        }
        let mut value = 0u64;
        let mut any = false;
        for &b in &self.bytes[digits..self.at] {
            if b == b'_' {
                continue;
            }
            let Some(digit) = char::from(b).to_digit(radix) else {
                let label = match radix {
                    2 => "expected binary digits 0 and 1",
                    8 => "expected octal digits 0 to 7",
                    16 => "expected hexadecimal digits",
                    _ => "expected digits; hexadecimal numbers begin with 0x",
                };
                return self.bad(start, "this is not a number", label);
            };
            any = true;
            match value.checked_mul(u64::from(radix)).and_then(|v| v.checked_add(u64::from(digit))) {
                Some(v) => value = v,
                None => return self.bad(start, "this number is too large", "expected at most 64 bits"),
            }
        }
        if any { Tok::Int(value) } else { self.bad(start, "this is not a number", "expected digits") }
    }

    fn v4(&mut self, start: usize) -> Tok {
        while self.peek(0) == b'.' && self.peek(1).is_ascii_digit() {
            self.at += 1;
            self.skip_while(|b| b.is_ascii_digit());
        }
        match self.text[start..self.at].parse::<Ipv4Addr>() {
            Ok(addr) => Tok::Addr(AddrLit { bytes: addr.to_ipv6_mapped().octets(), v4: true }),
            Err(_) => self.bad(
                start,
                "this is not an IPv4 address",
                "expected one such as `10.0.0.1`; numbers are whole",
            ),
        }
    }

    fn keep(&mut self, bytes: Vec<u8>) -> Tok {
        self.strings.push(bytes);
        Tok::Bytes(self.strings.len() - 1)
    }

    /// `"text"` or `'text'` with the escapes of C.
    fn string(&mut self) -> Tok {
        let start = self.at;
        let quote = self.peek(0);
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let b = self.peek(0);
            if b == b'\n' || self.at >= self.bytes.len() {
                return self.bad(
                    start,
                    "this string does not end",
                    "expected a closing quote on the same line",
                );
            }
            self.at += 1;
            if b == quote {
                return self.keep(out);
            }
            if b != b'\\' {
                out.push(b);
                continue;
            }
            let escape = self.at - 1;
            let code = self.peek(0);
            self.at += usize::from(self.at < self.bytes.len() && code.is_ascii() && code != b'\n');
            out.push(match code {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'0' => 0,
                b'\\' | b'"' | b'\'' => code,
                b'x' => match (hex_digit(self.peek(0)), hex_digit(self.peek(1))) {
                    (Some(hi), Some(lo)) => {
                        self.at += 2;
                        hi << 4 | lo
                    }
                    _ => {
                        self.bad(escape, "`\\x` needs two hexadecimal digits", "expected such as `\\x0a`");
                        0
                    }
                },
                _ => {
                    self.bad(escape, "unknown escape", "expected one of \\n \\r \\t \\0 \\\\ \\\" \\' \\xHH");
                    0
                }
            });
        }
    }

    /// `x"0a0b"`; blanks between bytes are allowed.
    fn hex(&mut self) -> Tok {
        let start = self.at;
        let quote = self.peek(1);
        self.at += 2;
        let inside = self.at;
        self.skip_while(|b| b != quote && b != b'\n');
        let digits = &self.bytes[inside..self.at];
        if self.peek(0) != quote {
            return self.bad(start, "this string does not end", "expected a closing quote on the same line");
        }
        self.at += 1;
        let nibbles: Option<Vec<u8>> = digits.iter().filter(|b| **b != b' ').map(|b| hex_digit(*b)).collect();
        match nibbles {
            Some(n) if n.len() % 2 == 0 => self.keep(n.chunks(2).map(|p| p[0] << 4 | p[1]).collect()),
            Some(_) => self.bad(start, "odd number of hexadecimal digits", "expected two for each byte"),
            None => {
                self.bad(start, "this is not a hex string", "expected hexadecimal digits such as x\"0a0b\"")
            }
        }
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

fn hex_digit(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).map(|d| d as u8)
}
