//! The canonical text of a rule: the rule with decimal numbers and no parentheses that are not needed. Parsing it gives the
//! same rule again, so two conditions that print alike are the same condition.

use super::ast::{Action, ActionKind, AddrLit, Expr, ExprKind, Item, Rule};
use std::fmt;

impl Expr {
    /// How tight the expression binds. A child that binds no tighter than its parent needs parentheses.
    fn level(&self) -> u8 {
        match &self.kind {
            ExprKind::Or(_) => 0,
            ExprKind::And(_) => 1,
            ExprKind::Not(_) => 2,
            ExprKind::Compare { .. } | ExprKind::In { .. } => 3,
            ExprKind::Chain { rest, .. } => 4 + rest.first().map_or(0, |(op, _)| op.precedence()),
            _ => u8::MAX,
        }
    }

    fn fmt_child(&self, f: &mut fmt::Formatter<'_>, child: &Expr) -> fmt::Result {
        if child.level() > self.level() { write!(f, "{child}") } else { write!(f, "({child})") }
    }

    fn fmt_joined(&self, f: &mut fmt::Formatter<'_>, parts: &[Expr], word: &str) -> fmt::Result {
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                write!(f, " {word} ")?;
            }
            self.fmt_child(f, part)?;
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
            ExprKind::Field { width, little_endian, offset } => {
                let order = if *little_endian { "le" } else { "" };
                write!(f, "u{}{order}[{offset}]", width.bytes() * 8)
            }
            ExprKind::Slice { from, to } => write!(f, "bytes[{from}..{to}]"),
            ExprKind::Named(field) => f.write_str(field.text()),
            ExprKind::Chain { first, rest } => {
                // The first operand may be on the same level only in parentheses, which `fmt_child` adds.
                self.fmt_child(f, first)?;
                for (op, right) in rest {
                    write!(f, " {} ", op.text())?;
                    self.fmt_child(f, right)?;
                }
                Ok(())
            }
            ExprKind::Compare { op, left, right } => {
                self.fmt_child(f, left)?;
                write!(f, " {} ", op.text())?;
                self.fmt_child(f, right)
            }
            ExprKind::In { value, items, braces } => {
                self.fmt_child(f, value)?;
                f.write_str(if *braces { " in {" } else { " in " })?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(if *braces { "}" } else { "" })
            }
            ExprKind::And(parts) => self.fmt_joined(f, parts, "and"),
            ExprKind::Or(parts) => self.fmt_joined(f, parts, "or"),
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
        // No condition is valid here, so only a mistaken item binds looser than `..`; the parentheses keep even its text
        // readable.
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

/// Writes printable ASCII as a string, anything else in hexadecimal.
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
