//! The syntax tree, with the place of every node, and its canonical text.

use std::fmt;

/// Bytes `start..end` of the rule text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    /// From the first byte of `self` to the last of `other`.
    pub(crate) fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// One rule as written.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// Position among all rules of the text, the ones that did not parse included, so that names stay right.
    pub(crate) index: usize,
    pub(crate) name: Option<(String, Span)>,
    /// `None`: `else`, or an action that stands alone.
    pub(crate) condition: Option<Expr>,
    pub(crate) action: Action,
    pub(crate) span: Span,
}

/// An expression and its place.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    pub(crate) span: Span,
}

/// Conditions and values share one grammar; [`super::check`] tells them apart, which makes for better messages.
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
        little: bool,
        at: Box<Expr>,
    },
    /// `bytes[4..12]`, half-open.
    Slice {
        from: Box<Expr>,
        to: Box<Expr>,
    },
    Name(Name),
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

/// An address literal; IPv4 is held mapped, and remembered so that it prints as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddrLit {
    pub(crate) bytes: [u8; 16],
    pub(crate) v4: bool,
}

/// What may stand after `in`.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    Value(Expr),
    Range(Expr, Expr),
    Prefix { addr: AddrLit, bits: u64, span: Span },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    U8,
    U16,
    U32,
    U64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Len,
    Src,
    Dst,
    SrcPort,
    DstPort,
    Flow,
    RxQueue,
    Cpu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum BinOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    And,
    Or,
    Xor,
    Shl,
    Shr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CmpOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// The right-hand side of a rule.
#[derive(Debug, Clone)]
pub(crate) struct Action {
    pub(crate) kind: ActionKind,
    /// The action without its modifiers.
    pub(crate) span: Span,
    pub(crate) on: Option<(Expr, Expr, Span)>,
    pub(crate) spill: Option<Span>,
}

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

impl Name {
    pub(crate) const ALL: [(&'static str, Name); 8] = [
        ("len", Name::Len),
        ("src", Name::Src),
        ("dst", Name::Dst),
        ("sport", Name::SrcPort),
        ("dport", Name::DstPort),
        ("flow", Name::Flow),
        ("rxq", Name::RxQueue),
        ("cpu", Name::Cpu),
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

/// The fields with an offset, as written.
pub(crate) const FIELDS: [(&str, Width, bool); 7] = [
    ("u8", Width::U8, false),
    ("u16", Width::U16, false),
    ("u32", Width::U32, false),
    ("u64", Width::U64, false),
    ("u16le", Width::U16, true),
    ("u32le", Width::U32, true),
    ("u64le", Width::U64, true),
];

impl BinOp {
    /// Binding strength; the higher binds tighter, all of them tighter than comparisons.
    pub(crate) fn level(self) -> u8 {
        match self {
            BinOp::Or => 0,
            BinOp::Xor => 1,
            BinOp::And => 2,
            BinOp::Shl | BinOp::Shr => 3,
            BinOp::Add | BinOp::Sub => 4,
            BinOp::Mul | BinOp::Div | BinOp::Mod => 5,
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            BinOp::Add => "+",
            BinOp::Sub => "-",
            BinOp::Mul => "*",
            BinOp::Div => "/",
            BinOp::Mod => "%",
            BinOp::And => "&",
            BinOp::Or => "|",
            BinOp::Xor => "^",
            BinOp::Shl => "<<",
            BinOp::Shr => ">>",
        }
    }

    /// The operation itself, in one place for folding and evaluation; `None`: division by zero.
    #[inline(always)]
    pub(crate) fn apply(self, a: u64, b: u64) -> Option<u64> {
        Some(match self {
            BinOp::Add => a.wrapping_add(b),
            BinOp::Sub => a.wrapping_sub(b),
            BinOp::Mul => a.wrapping_mul(b),
            BinOp::Div => a.checked_div(b)?,
            BinOp::Mod => a.checked_rem(b)?,
            BinOp::And => a & b,
            BinOp::Or => a | b,
            BinOp::Xor => a ^ b,
            // A CPU would take the distance modulo 64; 0 is what "all bits shifted out" means.
            BinOp::Shl => u32::try_from(b).ok().and_then(|n| a.checked_shl(n)).unwrap_or(0),
            BinOp::Shr => u32::try_from(b).ok().and_then(|n| a.checked_shr(n)).unwrap_or(0),
        })
    }
}

impl CmpOp {
    pub(crate) fn text(self) -> &'static str {
        match self {
            CmpOp::Eq => "==",
            CmpOp::Ne => "!=",
            CmpOp::Lt => "<",
            CmpOp::Le => "<=",
            CmpOp::Gt => ">",
            CmpOp::Ge => ">=",
        }
    }

    /// The operator that gives the same answer with its operands exchanged.
    pub(crate) fn mirrored(self) -> CmpOp {
        match self {
            CmpOp::Lt => CmpOp::Gt,
            CmpOp::Le => CmpOp::Ge,
            CmpOp::Gt => CmpOp::Lt,
            CmpOp::Ge => CmpOp::Le,
            same => same,
        }
    }

    #[inline(always)]
    pub(crate) fn apply(self, a: u64, b: u64) -> bool {
        match self {
            CmpOp::Eq => a == b,
            CmpOp::Ne => a != b,
            CmpOp::Lt => a < b,
            CmpOp::Le => a <= b,
            CmpOp::Gt => a > b,
            CmpOp::Ge => a >= b,
        }
    }
}

impl Expr {
    /// Where parentheses are needed: a child must bind tighter than its parent.
    fn level(&self) -> u8 {
        match &self.kind {
            ExprKind::Or(_) => 0,
            ExprKind::And(_) => 1,
            ExprKind::Not(_) => 2,
            ExprKind::Compare { .. } | ExprKind::In { .. } => 3,
            ExprKind::Chain { rest, .. } => 4 + rest.first().map_or(0, |(op, _)| op.level()),
            _ => u8::MAX,
        }
    }

    fn child(&self, f: &mut fmt::Formatter<'_>, child: &Expr) -> fmt::Result {
        if child.level() > self.level() { write!(f, "{child}") } else { write!(f, "({child})") }
    }

    fn joined(&self, f: &mut fmt::Formatter<'_>, parts: &[Expr], word: &str) -> fmt::Result {
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                write!(f, " {word} ")?;
            }
            self.child(f, part)?;
        }
        Ok(())
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Int(n) => write!(f, "{n}"),
            ExprKind::Bytes(bytes) => write_bytes(f, bytes),
            ExprKind::Addr(addr) => write!(f, "{addr}"),
            ExprKind::Field { width, little, at } => {
                write!(f, "u{}{}[{at}]", width.bytes() * 8, if *little { "le" } else { "" })
            }
            ExprKind::Slice { from, to } => write!(f, "bytes[{from}..{to}]"),
            ExprKind::Name(name) => f.write_str(name.text()),
            ExprKind::Chain { first, rest } => {
                // The first operand may be on the same level only in parentheses, which `child` adds.
                self.child(f, first)?;
                for (op, right) in rest {
                    write!(f, " {} ", op.text())?;
                    self.child(f, right)?;
                }
                Ok(())
            }
            ExprKind::Compare { op, left, right } => {
                self.child(f, left)?;
                write!(f, " {} ", op.text())?;
                self.child(f, right)
            }
            ExprKind::In { value, items, braces } => {
                self.child(f, value)?;
                f.write_str(if *braces { " in {" } else { " in " })?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(if *braces { "}" } else { "" })
            }
            ExprKind::And(parts) => self.joined(f, parts, "and"),
            ExprKind::Or(parts) => self.joined(f, parts, "or"),
            ExprKind::Not(inner) => {
                f.write_str("not ")?;
                // `not not x` needs no parentheses, and neither does a comparison.
                if inner.level() >= self.level() { write!(f, "{inner}") } else { write!(f, "({inner})") }
            }
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Conditions cannot stand here, so nothing binds looser than `..`, except by mistake; parentheses keep
        // even that text readable.
        let part = |e: &Expr| if e.level() < 4 { format!("({e})") } else { e.to_string() };
        match self {
            Item::Value(e) => f.write_str(&part(e)),
            Item::Range(a, b) => write!(f, "{}..{}", part(a), part(b)),
            Item::Prefix { addr, bits, .. } => write!(f, "{addr}/{bits}"),
        }
    }
}

impl fmt::Display for AddrLit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = &self.bytes;
        if self.v4 {
            write!(f, "{}.{}.{}.{}", b[12], b[13], b[14], b[15])
        } else {
            write!(f, "{}", std::net::Ipv6Addr::from(*b))
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ActionKind::Queue(n) => write!(f, "queue({n})")?,
            ActionKind::Mod(e) => write!(f, "mod({e})")?,
            ActionKind::Hash(parts) => {
                let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
                write!(f, "hash({})", parts.join(", "))?;
            }
            ActionKind::RoundRobin => f.write_str("round_robin")?,
            ActionKind::Random => f.write_str("random")?,
            ActionKind::Cpu => f.write_str("cpu")?,
            ActionKind::RxQueue => f.write_str("rxq")?,
            ActionKind::Drop => f.write_str("drop")?,
            ActionKind::Sample(n) => write!(f, "sample({n})")?,
        }
        if let Some((a, b, _)) = &self.on {
            write!(f, " on {a}..{b}")?;
        }
        if self.spill.is_some() {
            f.write_str(" spill")?;
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.condition {
            Some(condition) => write!(f, "{condition} => {}", self.action),
            None => write!(f, "else => {}", self.action),
        }
    }
}

/// A string where it reads well, hex otherwise.
fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    if bytes.iter().all(|b| (b' '..=b'~').contains(b)) {
        f.write_str("\"")?;
        for &b in bytes {
            write!(f, "{}{}", if matches!(b, b'"' | b'\\') { "\\" } else { "" }, char::from(b))?;
        }
        f.write_str("\"")
    } else {
        f.write_str("x\"")?;
        for b in bytes {
            write!(f, "{b:02x}")?;
        }
        f.write_str("\"")
    }
}
