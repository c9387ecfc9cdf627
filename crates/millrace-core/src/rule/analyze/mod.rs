//! Syntax tree → typed rules. What comes out has no mistakes left.
//!
//! Each rule by itself: `expr_type` tells what an expression is; `value`, `condition`, `membership` (`in`) and `action`
//! check types, fold constants and check queue numbers; `bounds` calculates how large a value can be; `typed` is the result.
//! They are methods of the `analyzer`; `rules` goes through all rules and gives them names.
//!
//! Rules together: `shadowing` finds rules that can never match. It works on `match_set`s, the sets of datagrams that
//! conditions match, which are unions (`set_algebra`) of `hyperrectangle`s over `interval_set`s. It may miss a rule that can
//! never match, and never reports one that can.

mod action;
mod analyzer;
mod bounds;
mod condition;
mod expr_type;
mod hyperrectangle;
mod interval_set;
mod match_set;
mod membership;
mod rules;
mod set_algebra;
mod shadowing;
mod typed;
mod value;

pub(super) use rules::analyze;
pub(super) use typed::{Condition, TypedAction, TypedKey, TypedRule, TypedSpread, Value};
