//! The syntax tree, with the span of every node in the text.

use super::operator::{BinOp, CmpOp};
use super::span::Span;

/// One rule as written.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// Position among all rules of the text, the ones that did not parse included, so that names stay right.
    pub(crate) index: usize,
    pub(crate) name: Option<(String, Span)>,
    /// `None` for `else`, and for an action that stands alone.
    pub(crate) condition: Option<Expr>,
    pub(crate) action: Action,
    pub(crate) span: Span,
}

/// An expression and its span.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    pub(crate) span: Span,
}

/// Conditions and values share one grammar. The analysis tells them apart, because a type error explains more than a
/// syntax error would.
///
/// Runs of operators are flat lists, not left-deep trees: the depth of the tree is bounded by the parser's nesting
/// limit whatever the length of the text, so recursion over it is safe.
#[derive(Debug, Clone)]
pub(crate) enum ExprKind {
    Int(u64),
    Bytes(Vec<u8>),
    Addr(AddrLit),
    /// `u32[4]`.
    Field {
        width: Width,
        little_endian: bool,
        offset: Box<Expr>,
    },
    /// `bytes[4..12]`, half-open.
    Slice {
        from: Box<Expr>,
        to: Box<Expr>,
    },
    Named(NamedField),
    /// Operators of one precedence level, left to right.
    Chain {
        first: Box<Expr>,
        rest: Vec<(BinOp, Expr)>,
    },
    Compare {
        op: CmpOp,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    In {
        value: Box<Expr>,
        items: Vec<Item>,
        braces: bool,
    },
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
}

/// An address literal. An IPv4 address is stored mapped; `v4` remembers how it was written, so that it prints the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddrLit {
    pub(crate) bytes: [u8; 16],
    pub(crate) v4: bool,
}

/// The right side of `in`.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    Value(Expr),
    Range(Expr, Expr),
    /// `bits` is as written, and may be longer than the address.
    Prefix {
        addr: AddrLit,
        bits: u64,
        span: Span,
    },
}

/// The width of a number in the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    U8,
    U16,
    U32,
    U64,
}

/// A field without an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NamedField {
    Len,
    Src,
    Dst,
    SrcPort,
    DstPort,
    Flow,
    RxQueue,
    Cpu,
}

/// The right-hand side of a rule.
#[derive(Debug, Clone)]
pub(crate) struct Action {
    pub(crate) kind: ActionKind,
    /// The span of the action without its modifiers.
    pub(crate) span: Span,
    /// `on a..b`: first and last queue, and the span of both.
    pub(crate) on: Option<(Expr, Expr, Span)>,
    pub(crate) spill: Option<Span>,
}

/// An action without its modifiers.
#[derive(Debug, Clone)]
pub(crate) enum ActionKind {
    Queue(Expr),
    Mod(Expr),
    Hash(Vec<Expr>),
    RoundRobin,
    Random,
    Cpu,
    RxQueue,
    Drop,
    Sample(Expr),
}

impl NamedField {
    pub(crate) const ALL: [(&'static str, NamedField); 8] = [
        ("len", NamedField::Len),
        ("src", NamedField::Src),
        ("dst", NamedField::Dst),
        ("sport", NamedField::SrcPort),
        ("dport", NamedField::DstPort),
        ("flow", NamedField::Flow),
        ("rxq", NamedField::RxQueue),
        ("cpu", NamedField::Cpu),
    ];

    pub(crate) fn text(self) -> &'static str {
        Self::ALL.iter().find(|(_, name)| *name == self).map_or("", |(text, _)| text)
    }
}

impl Width {
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Width::U8 => 1,
            Width::U16 => 2,
            Width::U32 => 4,
            Width::U64 => 8,
        }
    }
}

/// The fields with an offset: spelling, width, and whether they are little-endian.
pub(crate) const FIELDS: [(&str, Width, bool); 7] = [
    ("u8", Width::U8, false),
    ("u16", Width::U16, false),
    ("u32", Width::U32, false),
    ("u64", Width::U64, false),
    ("u16le", Width::U16, true),
    ("u32le", Width::U32, true),
    ("u64le", Width::U64, true),
];
