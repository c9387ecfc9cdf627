//! Errors as a good compiler prints them: place, source line, caret, what was expected.

use super::ast::Span;
use std::fmt::Write;

/// More than this many are counted, not shown.
const SHOWN: usize = 20;
/// Characters of a long source line that are shown around the caret.
const WINDOW: usize = 100;

/// One mistake.
#[derive(Debug)]
struct Diagnostic {
    span: Span,
    /// What is wrong.
    message: String,
    /// What was expected, printed behind the caret; may be empty.
    label: String,
}

/// The mistakes of one text.
#[derive(Debug, Default)]
pub(crate) struct Report {
    shown: Vec<Diagnostic>,
    total: usize,
}

impl Report {
    pub(crate) fn push(&mut self, span: Span, message: impl Into<String>, label: impl Into<String>) {
        self.total += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(Diagnostic { span, message: message.into(), label: label.into() });
        }
    }

    /// Further ones are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.shown.len() >= SHOWN
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The message of the [`crate::Error`].
    pub(crate) fn render(mut self, text: &str) -> String {
        self.shown.sort_by_key(|d| d.span.start);
        let mut out = match self.total {
            1 => "1 error in the rules".to_owned(),
            n => format!("{n} errors in the rules"),
        };
        for d in &self.shown {
            one(&mut out, text, d);
        }
        if self.total > self.shown.len() {
            let _ = write!(out, "\n… and {} more", self.total - self.shown.len());
        }
        out
    }
}

/// Line and column of a byte offset, both from 1; columns count characters.
fn place(text: &str, at: u32) -> (usize, usize) {
    let at = floor(text, at);
    let start = text[..at].rfind('\n').map_or(0, |i| i + 1);
    (text[..start].matches('\n').count() + 1, text[start..at].chars().count() + 1)
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: u32) -> usize {
    let mut at = (at as usize).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn one(out: &mut String, text: &str, d: &Diagnostic) {
    let (line, column) = place(text, d.span.start);
    let at = floor(text, d.span.start);
    let start = text[..at].rfind('\n').map_or(0, |i| i + 1);
    let end = text[at..].find('\n').map_or(text.len(), |i| at + i);
    let until = floor(text, d.span.end).clamp(at, end);

    // Only a window of a long line, so that a 100 KB line stays a readable (and small) message.
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

/// Control characters would move the caret, or the terminal.
fn printable(c: char) -> char {
    match c {
        '\t' | '\r' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// What was written, short enough for a message.
pub(crate) fn quote(text: &str) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(40).map(printable).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// `; did you mean …?`, or nothing.
pub(crate) fn suggest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    if given.len() > 24 {
        return String::new();
    }
    let lower = given.to_ascii_lowercase();
    let limit = match lower.len() {
        0..=2 => 1,
        3..=6 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .map(|name| (distance(&lower, name), name))
        .filter(|(d, name)| *d <= limit && *d < name.len())
        .min_by_key(|(d, _)| *d)
        .map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}

/// Optimal string alignment distance: insert, delete, replace, swap neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}
