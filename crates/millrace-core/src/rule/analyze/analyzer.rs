//! The state that the analysis of every part of a rule shares.

use super::super::ast::Expr;
use super::super::diagnostics::Diagnostics;
use super::super::span::Span;

/// Analyses one rule after the other. Its methods return `None` where they have reported a mistake.
pub(super) struct Analyzer<'a> {
    /// Queue count; queue numbers must be below it.
    pub(super) queues: u16,
    pub(super) diagnostics: &'a mut Diagnostics,
}

impl Analyzer<'_> {
    pub(super) fn fail<T>(
        &mut self,
        span: Span,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Option<T> {
        self.diagnostics.push(span, message, label);
        None
    }
}

/// The text of an expression, if it is short enough for a message.
pub(super) fn excerpt(e: &Expr) -> String {
    let text = e.to_string();
    if text.len() <= 32 { format!("`{text}`") } else { "this value".to_owned() }
}
