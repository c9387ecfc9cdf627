//! What an expression is, before looking closer. Conditions and values share one grammar; here they are told apart.

use super::super::ast::{Expr, ExprKind, Name};
use super::super::program::Which;

/// What an expression is, before looking closer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Bytes,
    Text,
    AddressField(Which),
    AddressLiteral,
    Flow,
    Condition,
}

pub(super) fn kind(e: &Expr) -> Kind {
    match &e.kind {
        ExprKind::Int(_) | ExprKind::Field { .. } | ExprKind::Chain { .. } => Kind::Number,
        ExprKind::Bytes(_) => Kind::Text,
        ExprKind::Addr(_) => Kind::AddressLiteral,
        ExprKind::Slice { .. } => Kind::Bytes,
        ExprKind::Name(Name::Src) => Kind::AddressField(Which::Src),
        ExprKind::Name(Name::Dst) => Kind::AddressField(Which::Dst),
        ExprKind::Name(Name::Flow) => Kind::Flow,
        ExprKind::Name(_) => Kind::Number,
        ExprKind::Compare { .. } | ExprKind::In { .. } => Kind::Condition,
        ExprKind::And(_) | ExprKind::Or(_) | ExprKind::Not(_) => Kind::Condition,
    }
}

impl Kind {
    pub(super) fn text(self) -> &'static str {
        match self {
            Kind::Number => "a number",
            Kind::Bytes => "a range of bytes",
            Kind::Text => "a string",
            Kind::AddressField(_) | Kind::AddressLiteral => "an address",
            Kind::Flow => "a flow",
            Kind::Condition => "a condition",
        }
    }
}
