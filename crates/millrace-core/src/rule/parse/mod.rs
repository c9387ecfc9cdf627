//! Tokens → syntax tree, by recursive descent. The grammar is in `docs/rules.md`.
//!
//! `cursor` moves over the tokens, `rules` parses whole rules, `action` and `expr` what they consist of.

mod action;
mod cursor;
mod expr;
mod rules;

pub(super) use rules::parse;
