//! The types of the language. Conditions and values share one grammar; their types tell them apart.

use super::super::ast::{Expr, ExprKind, NamedField};
use super::super::program::AddressField;

/// The type of an expression, as its outermost operator tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExprType {
    Number,
    /// `bytes[a..b]`.
    ByteRange,
    String,
    AddressField(AddressField),
    AddressLiteral,
    Flow,
    Condition,
}

impl ExprType {
    pub(super) fn of(e: &Expr) -> ExprType {
        match &e.kind {
            ExprKind::Int(_) | ExprKind::Field { .. } | ExprKind::Chain { .. } => ExprType::Number,
            ExprKind::Bytes(_) => ExprType::String,
            ExprKind::Addr(_) => ExprType::AddressLiteral,
            ExprKind::Slice { .. } => ExprType::ByteRange,
            ExprKind::Named(NamedField::Src) => ExprType::AddressField(AddressField::Src),
            ExprKind::Named(NamedField::Dst) => ExprType::AddressField(AddressField::Dst),
            ExprKind::Named(NamedField::Flow) => ExprType::Flow,
            ExprKind::Named(_) => ExprType::Number,
            ExprKind::Compare { .. } | ExprKind::In { .. } => ExprType::Condition,
            ExprKind::And(_) | ExprKind::Or(_) | ExprKind::Not(_) => ExprType::Condition,
        }
    }

    /// Returns the name of the type for messages: "this is …, not a condition".
    pub(super) fn text(self) -> &'static str {
        match self {
            ExprType::Number => "a number",
            ExprType::ByteRange => "a range of bytes",
            ExprType::String => "a string",
            ExprType::AddressField(_) | ExprType::AddressLiteral => "an address",
            ExprType::Flow => "a flow",
            ExprType::Condition => "a condition",
        }
    }
}
