//! What can be said of a value without a datagram: how large it is; and of a condition, whether constants decide it.

use super::super::ast::BinOp;
use super::types::{Cond, Value};

impl Value {
    /// An upper bound, by interval arithmetic.
    pub(crate) fn max(&self) -> u64 {
        match self {
            Value::Const(n) => *n,
            Value::Load(load) => load.max(),
            Value::Chain { first, rest } => rest.iter().fold(first.max(), |m, (op, v)| bound(m, *op, v)),
        }
    }

    /// Values that have to be put aside at the same time while this is calculated.
    pub(super) fn temporaries(&self) -> usize {
        let Value::Chain { first, rest } = self else { return 0 };
        rest.iter()
            .filter(|(_, v)| matches!(v, Value::Chain { .. }))
            .map(|(_, v)| 1 + v.temporaries())
            .fold(first.temporaries(), usize::max)
    }
}

/// The largest `a op b` for `a <= m`.
fn bound(m: u64, op: BinOp, b: &Value) -> u64 {
    bound_of(m, op, b.max(), if let Value::Const(c) = b { Some(*c) } else { None })
}

/// The largest `a op b` for `a <= m` and `b <= n`, or `b` equal to the constant, if it is one.
pub(crate) fn bound_of(m: u64, op: BinOp, n: u64, constant: Option<u64>) -> u64 {
    match (op, constant) {
        (BinOp::Add, _) => m.saturating_add(n),
        (BinOp::Sub, Some(0)) => m,
        (BinOp::Sub, _) => u64::MAX,
        (BinOp::Mul, _) => m.saturating_mul(n),
        (BinOp::Div, Some(c)) => m.checked_div(c).unwrap_or(m),
        (BinOp::Div, None) => m,
        (BinOp::Mod, _) => m.min(n.saturating_sub(1)),
        (BinOp::And, _) => m.min(n),
        (BinOp::Or | BinOp::Xor, _) => u64::MAX.checked_shr((m | n).leading_zeros()).unwrap_or(0),
        (BinOp::Shl, Some(c)) if c < 64 && u64::from(m.leading_zeros()) >= c => m << c,
        (BinOp::Shl, Some(64..)) => 0,
        (BinOp::Shl, _) => u64::MAX,
        (BinOp::Shr, Some(c)) => BinOp::Shr.apply(m, c).unwrap_or(m),
        (BinOp::Shr, None) => m,
    }
}

impl Cond {
    /// Whether it can be true, and whether it can be false, as far as constants tell.
    pub(super) fn outcomes(&self) -> (bool, bool) {
        // Each part is asked once: asked for each answer by itself, nested parts would be asked 2^depth times.
        let each = |parts: &[Cond]| parts.iter().map(Cond::outcomes).unzip::<_, _, Vec<_>, Vec<_>>();
        match self {
            Cond::Always => (true, false),
            Cond::Never => (false, true),
            Cond::Not(inner) => {
                let (yes, no) = inner.outcomes();
                (no, yes)
            }
            Cond::And(parts) => {
                let (yes, no) = each(parts);
                (!yes.contains(&false), no.contains(&true))
            }
            Cond::Or(parts) => {
                let (yes, no) = each(parts);
                (yes.contains(&true), !no.contains(&false))
            }
            _ => (true, true),
        }
    }
}
