//! Numbers and addresses.

use super::super::ast::AddrLit;
use super::lexer::{Lexer, is_word_byte};
use super::token::Tok;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest text of an IPv6 address, in characters (`INET6_ADDRSTRLEN` of inet_ntop(3), without the final NUL).
const LONGEST_V6: usize = 45;

impl Lexer<'_> {
    /// Length of the IPv6 address that begins here, in bytes; 0 where none does. An address has at least two colons, which
    /// keeps the name of a rule (`dead:`) apart.
    pub(super) fn v6_len(&self) -> usize {
        let rest = &self.bytes[self.at..];
        let len = rest
            .iter()
            .take(LONGEST_V6 + 1)
            .take_while(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
            .count();
        let run = &rest[..len];
        let like_v6 = run.windows(2).any(|w| w == b"::") || run.iter().filter(|&&b| b == b':').count() > 2;
        if like_v6 && len <= LONGEST_V6 && !rest.get(len).copied().is_some_and(is_word_byte) {
            len
        } else {
            0
        }
    }

    pub(super) fn v6(&mut self) -> Tok {
        let start = self.at;
        self.at += self.v6_len();
        match self.text[start..self.at].parse::<Ipv6Addr>() {
            Ok(addr) => Tok::Addr(AddrLit { bytes: addr.octets(), v4: false }),
            Err(_) => self.bad(start, "this is not an IPv6 address", "expected one such as `2001:db8::1`"),
        }
    }

    pub(super) fn number(&mut self) -> Tok {
        let start = self.at;
        let (radix, digits) = match (self.peek(0), self.peek(1) | 0x20) {
            (b'0', b'x') => (16, start + 2),
            (b'0', b'b') => (2, start + 2),
            (b'0', b'o') => (8, start + 2),
            _ => (10, start),
        };
        self.skip_while(is_word_byte);
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
}
