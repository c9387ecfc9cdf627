//! Tokens → syntax tree, by recursive descent. The grammar is in `docs/rules.md`.
//!
//! A rule that does not parse is reported once and skipped up to the next separator.

use super::ast::{Action, ActionKind, BinOp, Expr, ExprKind, FIELDS, Item, Name, Rule, Span};
use super::lex::{Tok, Tokens, lex};
use super::report::{Report, quote, suggest};

/// Parentheses, `not`s and offsets within one another; the recursion of every later stage is bounded by it too.
const MAX_NESTING: u32 = 64;
/// Characters of a rule's name.
const MAX_NAME: usize = 64;

const ACTIONS: [&str; 9] = ["queue", "mod", "hash", "round_robin", "random", "cpu", "rxq", "drop", "sample"];
const FIELD_HELP: &str = "expected a field (u8, u16, u32, u64, their `le` forms, bytes, len, src, dst, sport, dport, \
                          flow, rxq, cpu), a literal or `(`";
const ACTION_HELP: &str =
    "expected an action: queue(n), mod(…), hash(…), round_robin, random, cpu, rxq, drop or sample(n)";

/// The mistake is reported; the rule is lost.
struct Failed;
type Parsed<T> = Result<T, Failed>;

/// All rules that parse; the rest is in `report`.
pub(crate) fn parse(text: &str, report: &mut Report) -> Vec<Rule> {
    let tokens = lex(text, report);
    let mut parser = Parser { text, tokens, at: 0, brackets: 0, nesting: 0, report };
    parser.rules()
}

struct Parser<'a> {
    text: &'a str,
    tokens: Tokens,
    at: usize,
    /// Inside brackets a newline is a blank.
    brackets: u32,
    nesting: u32,
    report: &'a mut Report,
}

impl<'a> Parser<'a> {
    fn rules(&mut self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for index in 0.. {
            while matches!(self.peek(), Tok::Newline | Tok::Semi) {
                self.at += 1;
            }
            if self.peek() == Tok::End {
                break;
            }
            match self.rule(index) {
                Ok(rule) => rules.push(rule),
                Err(Failed) => self.recover(),
            }
        }
        rules
    }

    /// To the next separator, over lines that only continue the broken one.
    fn recover(&mut self) {
        self.brackets = 0;
        self.nesting = 0;
        loop {
            match self.token(self.at).0 {
                Tok::End | Tok::Semi => return,
                Tok::Newline if !self.continues() => return,
                _ => self.at += 1,
            }
        }
    }

    // ---- tokens

    fn token(&self, at: usize) -> (Tok, Span) {
        let list = &self.tokens.list;
        list.get(at).or(list.last()).copied().unwrap_or((Tok::End, Span::default()))
    }

    /// After a newline: does the next line begin with what cannot begin a rule?
    fn continues(&self) -> bool {
        let mut at = self.at;
        while self.token(at).0 == Tok::Newline {
            at += 1;
        }
        match self.token(at) {
            (Tok::Arrow | Tok::And | Tok::Or, _) => true,
            // `or: …` would be a rule of that name.
            (Tok::Word, span) => {
                matches!(self.slice(span), "and" | "or") && self.token(at + 1).0 != Tok::Colon
            }
            _ => false,
        }
    }

    fn skip_newlines(&mut self) {
        while self.token(self.at).0 == Tok::Newline {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Tok {
        if self.token(self.at).0 == Tok::Newline && (self.brackets > 0 || self.continues()) {
            self.skip_newlines();
        }
        self.token(self.at).0
    }

    fn span(&mut self) -> Span {
        self.peek();
        self.token(self.at).1
    }

    /// End of the token before this one.
    fn last_span(&self) -> Span {
        self.token(self.at.saturating_sub(1)).1
    }

    fn slice(&self, span: Span) -> &'a str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// The word here, if it is one.
    fn word(&mut self) -> Option<&'a str> {
        if self.peek() == Tok::Word { Some(self.slice(self.token(self.at).1)) } else { None }
    }

    fn eat(&mut self, tok: Tok) -> bool {
        let found = self.peek() == tok;
        self.at += usize::from(found);
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.word() == Some(word);
        self.at += usize::from(found);
        found
    }

    fn fail<T>(&mut self, span: Span, message: impl Into<String>, label: impl Into<String>) -> Parsed<T> {
        self.report.push(span, message, label);
        Err(Failed)
    }

    /// "unexpected …" at the current token.
    fn unexpected<T>(&mut self, label: impl Into<String>) -> Parsed<T> {
        let tok = self.peek();
        let span = self.span();
        let what = match tok {
            Tok::Bad => return Err(Failed), // reported by the lexer
            Tok::End | Tok::Newline | Tok::Semi => "the rule ends too early".to_owned(),
            _ => format!("unexpected {}", quote(self.slice(span))),
        };
        self.fail(span, what, label)
    }

    fn expect(&mut self, tok: Tok, label: &str) -> Parsed<()> {
        if self.eat(tok) { Ok(()) } else { self.unexpected(label) }
    }

    fn open(&mut self, tok: Tok, label: &str) -> Parsed<()> {
        self.expect(tok, label)?;
        self.brackets += 1;
        Ok(())
    }

    fn close(&mut self, tok: Tok, label: &str) -> Parsed<()> {
        self.expect(tok, label)?;
        self.brackets = self.brackets.saturating_sub(1);
        Ok(())
    }

    fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting >= MAX_NESTING {
            let span = self.span();
            return self.fail(
                span,
                "this is nested too deeply",
                format!("expected at most {MAX_NESTING} levels; split the rule"),
            );
        }
        self.nesting += 1;
        let result = f(self);
        self.nesting = self.nesting.saturating_sub(1);
        result
    }

    // ---- rules

    fn rule(&mut self, index: usize) -> Parsed<Rule> {
        self.brackets = 0;
        self.nesting = 0;
        let start = self.span();
        let name = self.name()?;
        let condition = if self.eat_word("else") {
            self.arrow()?;
            None
        } else if self.action_ahead() {
            let action = self.action()?;
            if self.peek() == Tok::Arrow {
                let label = "expected a condition before `=>`, such as `len >= 8`";
                return self.fail(action.span, "this is an action, not a condition", label);
            }
            return self.finish(Rule { index, name, condition: None, action, span: start });
        } else {
            let condition = self.or()?;
            self.arrow()?;
            Some(condition)
        };
        let action = self.action()?;
        self.finish(Rule { index, name, condition, action, span: start })
    }

    fn finish(&mut self, mut rule: Rule) -> Parsed<Rule> {
        if !matches!(self.peek(), Tok::Newline | Tok::Semi | Tok::End) {
            return self.unexpected("expected the end of the rule: a new line, `;`, `on a..b` or `spill`");
        }
        rule.span = rule.span.to(self.last_span());
        Ok(rule)
    }

    fn name(&mut self) -> Parsed<Option<(String, Span)>> {
        let Some(word) = self.word() else { return Ok(None) };
        if self.token(self.at + 1).0 != Tok::Colon {
            return Ok(None);
        }
        let span = self.span();
        if word.len() > MAX_NAME {
            return self.fail(
                span,
                "this name is too long",
                format!("expected at most {MAX_NAME} characters"),
            );
        }
        self.at += 2;
        // A name may stand on a line of its own.
        self.skip_newlines();
        Ok(Some((word.to_owned(), span)))
    }

    fn arrow(&mut self) -> Parsed<()> {
        if self.eat(Tok::Arrow) {
            self.skip_newlines();
            return Ok(());
        }
        match self.peek() {
            Tok::Cmp(_) => self
                .unexpected("comparisons do not chain; expected `and`, `or` or `=>`; a range is `x in a..b`"),
            Tok::Word => {
                let span = self.span();
                let word = self.slice(span);
                let hint = suggest(word, ["and", "or", "in"]);
                self.fail(
                    span,
                    format!("unexpected {}{hint}", quote(word)),
                    "expected an operator, `and`, `or` or `=> action`",
                )
            }
            _ => self.unexpected("expected an operator, `and`, `or` or `=> action`"),
        }
    }

    /// Does an action stand here without a condition? `cpu` and `rxq` are fields too: `cpu == 1 => …`.
    fn action_ahead(&mut self) -> bool {
        match self.word() {
            Some("cpu" | "rxq") => {
                let (tok, span) = self.token(self.at + 1);
                match tok {
                    Tok::Newline | Tok::Semi | Tok::End => {
                        let here = self.at;
                        self.at += 1;
                        let alone = tok != Tok::Newline || !self.continues();
                        self.at = here;
                        alone
                    }
                    Tok::Word => matches!(self.slice(span), "on" | "spill"),
                    _ => false,
                }
            }
            Some(word) => ACTIONS.contains(&word),
            None => false,
        }
    }

    fn action(&mut self) -> Parsed<Action> {
        let start = self.span();
        let Some(word) = self.word() else { return self.unexpected(ACTION_HELP) };
        if !ACTIONS.contains(&word) {
            let hint = suggest(word, ACTIONS);
            return self.fail(start, format!("unknown action {}{hint}", quote(word)), ACTION_HELP);
        }
        self.at += 1;
        let kind = match word {
            "queue" => ActionKind::Queue(self.argument("expected a queue number: `queue(0)`")?),
            "mod" => ActionKind::Mod(self.argument("expected a value: `mod(u32[0])`")?),
            "sample" => {
                ActionKind::Sample(self.argument("expected a number: `sample(10)` keeps one in ten")?)
            }
            "hash" => ActionKind::Hash(self.keys()?),
            "round_robin" => ActionKind::RoundRobin,
            "random" => ActionKind::Random,
            "cpu" => ActionKind::Cpu,
            "rxq" => ActionKind::RxQueue,
            _ => ActionKind::Drop,
        };
        let bare = matches!(
            kind,
            ActionKind::RoundRobin
                | ActionKind::Random
                | ActionKind::Cpu
                | ActionKind::RxQueue
                | ActionKind::Drop
        );
        if bare && self.peek() == Tok::Open {
            return self.unexpected(format!("`{word}` takes no argument"));
        }
        let mut action = Action { kind, span: start.to(self.last_span()), on: None, spill: None };
        self.modifiers(&mut action)?;
        Ok(action)
    }

    fn modifiers(&mut self, action: &mut Action) -> Parsed<()> {
        loop {
            let span = self.span();
            match self.word() {
                Some("on") if action.on.is_none() => {
                    self.at += 1;
                    let from = self.binary(0)?;
                    self.expect(Tok::DotDot, "expected a range of queues: `on 0..3`")?;
                    let to = self.binary(0)?;
                    let span = from.span.to(to.span);
                    action.on = Some((from, to, span));
                }
                Some("spill") if action.spill.is_none() => {
                    self.at += 1;
                    action.spill = Some(span);
                }
                Some(word @ ("on" | "spill")) => {
                    return self.fail(span, format!("`{word}` is given twice"), "expected it once");
                }
                _ => return Ok(()),
            }
        }
    }

    fn argument(&mut self, label: &str) -> Parsed<Expr> {
        self.open(Tok::Open, label)?;
        if self.peek() == Tok::Close {
            return self.unexpected(label);
        }
        let argument = self.or()?;
        self.close(Tok::Close, "expected `)`")?;
        Ok(argument)
    }

    fn keys(&mut self) -> Parsed<Vec<Expr>> {
        let label = "expected a key: `hash(flow)`, `hash(bytes[4..12], src)`";
        self.open(Tok::Open, label)?;
        if self.peek() == Tok::Close {
            return self.unexpected(label);
        }
        let mut keys = vec![self.or()?];
        while self.eat(Tok::Comma) {
            keys.push(self.or()?);
        }
        self.close(Tok::Close, "expected `,` or `)`")?;
        Ok(keys)
    }

    // ---- expressions, from the loosest operator to the tightest

    fn or(&mut self) -> Parsed<Expr> {
        let mut parts = vec![self.and()?];
        while self.eat(Tok::Or) || self.eat_word("or") {
            self.skip_newlines();
            parts.push(self.and()?);
        }
        Ok(flat(parts, ExprKind::Or))
    }

    fn and(&mut self) -> Parsed<Expr> {
        let mut parts = vec![self.not()?];
        while self.eat(Tok::And) || self.eat_word("and") {
            self.skip_newlines();
            parts.push(self.not()?);
        }
        Ok(flat(parts, ExprKind::And))
    }

    fn not(&mut self) -> Parsed<Expr> {
        let start = self.span();
        if self.eat(Tok::Not) || self.eat_word("not") {
            self.skip_newlines();
            let inner = self.nested(Self::not)?;
            let span = start.to(inner.span);
            return Ok(Expr { kind: ExprKind::Not(Box::new(inner)), span });
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Parsed<Expr> {
        let left = self.binary(0)?;
        if let Tok::Cmp(op) = self.peek() {
            self.at += 1;
            self.skip_newlines();
            let right = self.binary(0)?;
            let span = left.span.to(right.span);
            let kind = ExprKind::Compare { op, left: Box::new(left), right: Box::new(right) };
            return Ok(Expr { kind, span });
        }
        let not = self.word() == Some("not");
        if not {
            self.at += 1;
            if self.word() != Some("in") {
                return self.unexpected("expected `in` after `not`; as in `x not in {1, 2}`");
            }
        }
        if !self.eat_word("in") {
            return Ok(left);
        }
        self.skip_newlines();
        let (items, braces) = self.items()?;
        let span = left.span.to(self.last_span());
        let inside = Expr { kind: ExprKind::In { value: Box::new(left), items, braces }, span };
        Ok(if not { Expr { kind: ExprKind::Not(Box::new(inside)), span } } else { inside })
    }

    fn items(&mut self) -> Parsed<(Vec<Item>, bool)> {
        if self.peek() != Tok::OpenBrace {
            return Ok((vec![self.item()?], false));
        }
        self.open(Tok::OpenBrace, "")?;
        let mut items = Vec::new();
        while self.peek() != Tok::CloseBrace {
            items.push(self.item()?);
            if !self.eat(Tok::Comma) {
                break;
            }
        }
        let end = self.span();
        self.close(Tok::CloseBrace, "expected `,` or `}`")?;
        if items.is_empty() {
            return self.fail(end, "this set is empty", "expected values, ranges `a..b` or prefixes");
        }
        Ok((items, true))
    }

    fn item(&mut self) -> Parsed<Item> {
        if let Tok::Addr(addr) = self.peek() {
            let start = self.span();
            self.at += 1;
            if self.eat(Tok::Op(BinOp::Div)) {
                let Tok::Int(bits) = self.peek() else {
                    return self.unexpected("expected the length of a prefix: `10.0.0.0/8`");
                };
                self.at += 1;
                return Ok(Item::Prefix { addr, bits, span: start.to(self.last_span()) });
            }
            return Ok(Item::Value(Expr { kind: ExprKind::Addr(addr), span: start }));
        }
        let first = self.binary(0)?;
        if self.eat(Tok::DotDot) {
            return Ok(Item::Range(first, self.binary(0)?));
        }
        Ok(Item::Value(first))
    }

    /// `| ^ & << >> + - * / %`, by levels.
    fn binary(&mut self, level: u8) -> Parsed<Expr> {
        if level > 5 {
            return self.primary();
        }
        let first = self.binary(level + 1)?;
        let mut rest = Vec::new();
        while let Tok::Op(op) = self.peek() {
            if op.level() != level {
                break;
            }
            self.at += 1;
            self.skip_newlines();
            rest.push((op, self.binary(level + 1)?));
        }
        let Some((_, last)) = rest.last() else { return Ok(first) };
        let span = first.span.to(last.span);
        Ok(Expr { kind: ExprKind::Chain { first: Box::new(first), rest }, span })
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let kind = match self.peek() {
            Tok::Int(n) => {
                self.at += 1;
                ExprKind::Int(n)
            }
            Tok::Addr(addr) => {
                self.at += 1;
                if self.peek() == Tok::Op(BinOp::Div) {
                    return self.unexpected(
                        "expected the end of the address; prefixes stand after `in`: `src in 10.0.0.0/8`",
                    );
                }
                ExprKind::Addr(addr)
            }
            Tok::Bytes(i) => {
                self.at += 1;
                ExprKind::Bytes(self.tokens.strings.get(i).cloned().unwrap_or_default())
            }
            Tok::Open => {
                self.open(Tok::Open, "")?;
                let inner = self.nested(Self::or)?;
                self.close(Tok::Close, "expected `)`")?;
                return Ok(Expr { kind: inner.kind, span: start.to(self.last_span()) });
            }
            Tok::Word => self.field(start)?,
            _ => return self.unexpected(FIELD_HELP),
        };
        Ok(Expr { kind, span: start.to(self.last_span()) })
    }

    fn field(&mut self, span: Span) -> Parsed<ExprKind> {
        let word = self.slice(span);
        if let Some((_, width, little)) = FIELDS.iter().find(|(name, ..)| *name == word) {
            self.at += 1;
            self.open(Tok::OpenBracket, &format!("expected an offset: `{word}[0]`"))?;
            let at = self.nested(|p| p.binary(0))?;
            if self.peek() == Tok::DotDot {
                return self.unexpected("one number has one offset; a range of bytes is `bytes[a..b]`");
            }
            self.close(Tok::CloseBracket, "expected `]`")?;
            return Ok(ExprKind::Field { width: *width, little: *little, at: Box::new(at) });
        }
        if word == "bytes" {
            self.at += 1;
            let label = "expected a half-open range: `bytes[4..12]`";
            self.open(Tok::OpenBracket, label)?;
            let from = self.nested(|p| p.binary(0))?;
            self.expect(Tok::DotDot, label)?;
            let to = self.nested(|p| p.binary(0))?;
            self.close(Tok::CloseBracket, "expected `]`")?;
            return Ok(ExprKind::Slice { from: Box::new(from), to: Box::new(to) });
        }
        if let Some((_, name)) = Name::ALL.iter().find(|(text, _)| *text == word) {
            self.at += 1;
            return Ok(ExprKind::Name(*name));
        }
        if ACTIONS.contains(&word) {
            let label = "expected a field or a literal; actions stand after `=>`";
            return self.fail(span, format!("`{word}` is an action"), label);
        }
        if matches!(word, "and" | "or" | "in" | "not" | "on" | "spill" | "else") {
            return self.unexpected(FIELD_HELP);
        }
        let known = FIELDS.iter().map(|f| f.0).chain(["bytes", "not"]).chain(Name::ALL.iter().map(|n| n.0));
        let hint = match word {
            "u8le" => "; one byte has no order, write `u8`".to_owned(),
            _ => suggest(word, known),
        };
        self.fail(span, format!("unknown field {}{hint}", quote(word)), FIELD_HELP)
    }
}

/// One part is itself; more become a list.
fn flat(mut parts: Vec<Expr>, kind: impl FnOnce(Vec<Expr>) -> ExprKind) -> Expr {
    let span = match (parts.first(), parts.last()) {
        (Some(a), Some(b)) => a.span.to(b.span),
        _ => Span::default(),
    };
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            Expr { kind: kind(parts), span }
        }
        None => Expr { kind: kind(parts), span },
    }
}
