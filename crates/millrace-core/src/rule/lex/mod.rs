//! Text → tokens.
//!
//! This stage never fails. What it cannot read is reported and becomes [`Tok::Bad`], at which the parser gives up on that
//! rule without a second message.

mod lexer;
mod number;
mod string;
mod token;

pub(super) use lexer::lex;
pub(super) use token::{Tok, Tokens};
