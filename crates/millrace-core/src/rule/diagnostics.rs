//! Mistakes in the rule text, printed as compilers do: line and column, source line, caret, and what was expected.

use super::span::Span;
use std::fmt::Write;

/// Mistakes that are shown; further ones are only counted, so that a message stays readable and bounded in size.
const MAX_SHOWN: usize = 20;
/// Characters of a source line that are shown. Of a longer line only a window around the caret appears, so that a line of
/// 100 KB makes a readable message too.
const WINDOW: usize = 100;
/// Characters of the source that a message quotes.
const MAX_QUOTE: usize = 40;

/// One mistake.
#[derive(Debug)]
struct Diagnostic {
    span: Span,
    /// The message.
    message: String,
    /// The text behind the caret: what was expected. It may be empty.
    label: String,
}

/// The mistakes of one text.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    shown: Vec<Diagnostic>,
    total: usize,
}

impl Diagnostics {
    pub(crate) fn push(&mut self, span: Span, message: impl Into<String>, label: impl Into<String>) {
        self.total += 1;
        if self.shown.len() < MAX_SHOWN {
            self.shown.push(Diagnostic { span, message: message.into(), label: label.into() });
        }
    }

    /// Whether a further mistake would only be counted. Its message need not be made then.
    pub(crate) fn is_full(&self) -> bool {
        self.shown.len() >= MAX_SHOWN
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The text for [`crate::error::Error::message`], in the order of the source.
    pub(crate) fn render(mut self, text: &str) -> String {
        self.shown.sort_by_key(|d| d.span.start);
        let mut out = match self.total {
            1 => "1 error in the rules".to_owned(),
            n => format!("{n} errors in the rules"),
        };
        for d in &self.shown {
            render_one(&mut out, text, d);
        }
        if self.total > self.shown.len() {
            let _ = write!(out, "\n… and {} more", self.total - self.shown.len());
        }
        out
    }
}

/// Line and column of a byte offset, both from 1; columns count characters.
fn line_and_column(text: &str, at: u32) -> (usize, usize) {
    let at = char_boundary(text, at);
    let start = text[..at].rfind('\n').map_or(0, |i| i + 1);
    (text[..start].matches('\n').count() + 1, text[start..at].chars().count() + 1)
}

/// The nearest character boundary at or before `at`.
fn char_boundary(text: &str, at: u32) -> usize {
    let mut at = (at as usize).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn render_one(out: &mut String, text: &str, d: &Diagnostic) {
    let (line, column) = line_and_column(text, d.span.start);
    let at = char_boundary(text, d.span.start);
    let start = text[..at].rfind('\n').map_or(0, |i| i + 1);
    let end = text[at..].find('\n').map_or(text.len(), |i| at + i);
    let until = char_boundary(text, d.span.end).clamp(at, end);

    let before = column - 1;
    let skip = if before > WINDOW * 2 / 3 { before - WINDOW / 3 } else { 0 };
    let mut chars = text[start..end].chars().skip(skip);
    let mut shown: String = chars.by_ref().take(WINDOW).map(printable).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    let lead = if skip > 0 { "…" } else { "" };
    let indent = before - skip + lead.chars().count();
    let carets = text[at..until].chars().count().clamp(1, (WINDOW + skip).saturating_sub(before).max(1));

    let gutter = line.to_string().len();
    let _ = write!(out, "\n{line}:{column}: {}", d.message);
    let _ = write!(out, "\n  {line} | {lead}{}", shown.trim_end());
    let _ = write!(out, "\n  {:gutter$} | {:indent$}{}", "", "", "^".repeat(carets));
    if !d.label.is_empty() {
        let _ = write!(out, " {}", d.label);
    }
}

/// Replaces control characters, which would move the caret or control the terminal.
fn printable(c: char) -> char {
    match c {
        '\t' | '\r' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// The source in backquotes, shortened for a message.
pub(crate) fn quote(text: &str) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(MAX_QUOTE).map(printable).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}
