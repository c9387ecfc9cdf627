//! The operators of the language: spelling, precedence and meaning, in one place for constant folding, evaluation and the
//! BPF compilers' range analysis.

/// An operator on two numbers. Numbers are unsigned, 64 bits wide, and wrap.
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

/// A comparison of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CmpOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl BinOp {
    /// Precedence; the higher binds tighter, all of them tighter than comparisons.
    pub(crate) fn precedence(self) -> u8 {
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

    /// The result; `None` is a division by zero.
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
            // The language shifts all bits out and gives 0, where a CPU would take the distance modulo 64.
            BinOp::Shl => u32::try_from(b).ok().and_then(|n| a.checked_shl(n)).unwrap_or(0),
            BinOp::Shr => u32::try_from(b).ok().and_then(|n| a.checked_shr(n)).unwrap_or(0),
        })
    }

    /// An upper bound of `a op b` by interval arithmetic, for `a <= a_max` and `b <= b_max`. `constant` is `b` where it is
    /// a constant, which gives a tighter bound.
    pub(crate) fn max_result(self, a_max: u64, b_max: u64, constant: Option<u64>) -> u64 {
        let (m, n) = (a_max, b_max);
        match (self, constant) {
            (BinOp::Add, _) => m.saturating_add(n),
            (BinOp::Sub, Some(0)) => m,
            // The difference may wrap.
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
