//! Goes through all rules: their names, their parts, and whether they can match.

use super::super::ast::Rule;
use super::super::diagnostics::Diagnostics;
use super::super::queues::Queues;
use super::super::span::Span;
use super::analyzer::Analyzer;
use super::shadowing::Shadowing;
use super::typed::{Condition, TypedAction, TypedKey, TypedRule, TypedSpread};
use std::collections::HashMap;

/// Rule indices have 16 bits, and the last one is reserved for `default`.
const MAX_RULES: usize = u16::MAX as usize - 1;

/// Name of the implicit rule behind all others.
const DEFAULT: &str = "default";

/// Analyses all rules, and appends the implicit last one unless a rule of the text ends the set.
pub(crate) fn analyze(
    text: &str,
    rules: &[Rule],
    queues: u16,
    diagnostics: &mut Diagnostics,
) -> Vec<TypedRule> {
    if rules.len() > MAX_RULES {
        let span = rules.get(MAX_RULES).map_or(Span::default(), |r| r.span);
        diagnostics.push(span, "too many rules", format!("expected at most {MAX_RULES}"));
        return Vec::new();
    }
    let names = rule_names(rules, diagnostics);
    let mut analyzer = Analyzer { queues, diagnostics };
    let mut out = Vec::with_capacity(rules.len() + 1);
    let mut shadowing = Shadowing::new(text);
    for (rule, name) in rules.iter().zip(names) {
        let shadowed = shadowing.report_if_obvious(rule, &name, analyzer.diagnostics);
        let condition = match &rule.condition {
            Some(c) => analyzer.condition(c),
            None => Some(Condition::Always),
        };
        let action = analyzer.action(&rule.action);
        let (Some(condition), Some(action)) = (condition, action) else { continue };
        if !condition.possible_outcomes().0 {
            let span = rule.condition.as_ref().map_or(rule.span, |c| c.span);
            analyzer.diagnostics.push(span, format!("rule `{name}` can never match"), "this is always false");
            continue;
        }
        shadowing.add(rule, &name, &condition, &action, shadowed, analyzer.diagnostics);
        out.push(TypedRule { name, text: rule.to_string(), condition, action, reachable: true });
    }
    if !shadowing.has_final_rule() {
        out.push(TypedRule {
            name: DEFAULT.to_owned(),
            text: "else => hash(flow)".to_owned(),
            condition: Condition::Always,
            action: TypedAction::Spread {
                by: TypedSpread::Hash(vec![TypedKey::Flow]),
                over: Queues::new(0, queues.saturating_sub(1)),
                spill: false,
            },
            reachable: !shadowing.matches_every_length(),
        });
    }
    out
}

/// The names, `ruleN` where there is none. Names are metric labels, so they must be unique.
fn rule_names(rules: &[Rule], diagnostics: &mut Diagnostics) -> Vec<String> {
    let mut seen: HashMap<String, bool> = HashMap::new();
    for rule in rules.iter().filter(|r| r.name.is_none()) {
        seen.insert(format!("rule{}", rule.index + 1), false);
    }
    let mut names = Vec::with_capacity(rules.len());
    for rule in rules {
        let Some((name, span)) = &rule.name else {
            names.push(format!("rule{}", rule.index + 1));
            continue;
        };
        match seen.insert(name.clone(), true) {
            Some(true) => {
                diagnostics.push(*span, format!("the name `{name}` is used twice"), "expected another name")
            }
            Some(false) => {
                let label = "expected another name; this one is that of a rule without a name";
                diagnostics.push(*span, format!("the name `{name}` is used twice"), label);
            }
            None if name == DEFAULT && rule.condition.is_some() => {
                let label = "expected another name, or `else =>`: `default` is the rule that takes the rest";
                diagnostics.push(*span, "the name `default` is reserved", label);
            }
            None => {}
        }
        names.push(name.clone());
    }
    names
}
