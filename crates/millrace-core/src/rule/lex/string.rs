//! Strings, in quotes and in hexadecimal.

use super::lexer::Lexer;
use super::token::Tok;

impl Lexer<'_> {
    fn literal(&mut self, bytes: Vec<u8>) -> Tok {
        self.strings.push(bytes);
        Tok::Bytes(self.strings.len() - 1)
    }

    /// `"text"` or `'text'` with the escapes of C.
    pub(super) fn string(&mut self) -> Tok {
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
                return self.literal(out);
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
    pub(super) fn hex_string(&mut self) -> Tok {
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
            Some(n) if n.len() % 2 == 0 => self.literal(n.chunks(2).map(|p| p[0] << 4 | p[1]).collect()),
            Some(_) => self.bad(start, "odd number of hexadecimal digits", "expected two for each byte"),
            None => {
                self.bad(start, "this is not a hex string", "expected hexadecimal digits such as x\"0a0b\"")
            }
        }
    }
}

fn hex_digit(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).map(|d| d as u8)
}
