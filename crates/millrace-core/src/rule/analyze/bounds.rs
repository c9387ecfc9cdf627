//! What is known of a value without a datagram (how large it is, how long the payload must be for it), and of a condition
//! (whether constants decide it).

use super::super::operator::BinOp;
use super::typed::{Condition, TypedKey, Value};

impl Value {
    /// An upper bound, by interval arithmetic.
    pub(super) fn max(&self) -> u64 {
        match self {
            Value::Const(n) => *n,
            Value::Load(load) => load.max(),
            Value::Chain { first, rest } => rest.iter().fold(first.max(), |max, (op, right)| {
                let constant = if let Value::Const(c) = right { Some(*c) } else { None };
                op.max_result(max, right.max(), constant)
            }),
        }
    }

    /// Depth of the stack while this is calculated: every calculation on the right of an operator needs one slot for the
    /// left operand.
    pub(super) fn temporaries(&self) -> usize {
        let Value::Chain { first, rest } = self else { return 0 };
        rest.iter()
            .filter(|(_, right)| matches!(right, Value::Chain { .. }))
            .map(|(_, right)| 1 + right.temporaries())
            .fold(first.temporaries(), usize::max)
    }

    /// The shortest payload that has every field in it, in bytes.
    pub(super) fn min_len(&self) -> u64 {
        match self {
            Value::Const(_) => 0,
            Value::Load(load) => load.min_len(),
            Value::Chain { first, rest } => {
                rest.iter().map(|(_, right)| right.min_len()).fold(first.min_len(), u64::max)
            }
        }
    }

    /// Whether every payload of at least [`Value::min_len`] bytes has a value: it divides by nothing that may be zero. The
    /// analysis has refused constant zeros.
    pub(super) fn is_total(&self) -> bool {
        match self {
            Value::Const(_) | Value::Load(_) => true,
            Value::Chain { first, rest } => {
                first.is_total()
                    && rest.iter().all(|(op, right)| {
                        right.is_total()
                            && (!matches!(op, BinOp::Div | BinOp::Mod) || matches!(right, Value::Const(_)))
                    })
            }
        }
    }
}

impl TypedKey {
    /// The shortest payload that has it, in bytes.
    pub(super) fn min_len(&self) -> u64 {
        match self {
            TypedKey::Number(value) => value.min_len(),
            TypedKey::Bytes { from, len } => u64::from(*from) + u64::from(*len),
            TypedKey::Address(_) | TypedKey::Flow => 0,
        }
    }
}

impl Condition {
    /// Whether it can be true, and whether it can be false, as far as constants tell.
    pub(super) fn possible_outcomes(&self) -> (bool, bool) {
        // One call gives both answers. A call for each would visit parts that are nested n deep 2^n times.
        let each = |parts: &[Condition]| {
            parts.iter().map(Condition::possible_outcomes).unzip::<_, _, Vec<_>, Vec<_>>()
        };
        match self {
            Condition::Always => (true, false),
            Condition::Never => (false, true),
            Condition::Not(inner) => {
                let (yes, no) = inner.possible_outcomes();
                (no, yes)
            }
            Condition::And(parts) => {
                let (yes, no) = each(parts);
                (!yes.contains(&false), no.contains(&true))
            }
            Condition::Or(parts) => {
                let (yes, no) = each(parts);
                (yes.contains(&true), !no.contains(&false))
            }
            _ => (true, true),
        }
    }
}
