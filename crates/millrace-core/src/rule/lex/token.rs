//! Tokens.

use super::super::ast::AddrLit;
use super::super::operator::{BinOp, CmpOp};
use super::super::span::Span;

/// A token. The text of a word is found in the source by its span; the bytes of a string are in [`Tokens::strings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tok {
    Word,
    Int(u64),
    /// Index into [`Tokens::strings`].
    Bytes(usize),
    Addr(AddrLit),
    Op(BinOp),
    Cmp(CmpOp),
    /// `&&`; the lexer has reported it, because the language writes `and`.
    And,
    /// `||`, reported as well.
    Or,
    /// `!`, reported as well.
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
    /// Something the lexer could not read, and has reported.
    Bad,
    End,
}

/// All tokens of a text, with their spans; the last is [`Tok::End`].
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) list: Vec<(Tok, Span)>,
    /// The bytes of each string literal, without quotes and escapes.
    pub(crate) strings: Vec<Vec<u8>>,
}
