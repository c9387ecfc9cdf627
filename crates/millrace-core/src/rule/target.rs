//! What the BPF compilers have in common: what no kernel program can do, and what there is to know about a program
//! before a word of it is translated.

use super::RuleSet;
use super::program::{Action, Key, Label, Load, Node, Operand, Part, Program, Queues, Spread, Which};
use std::fmt;

/// Why a rule set does not run in the kernel. It then runs in user space, whole: a part of a rule set, or something
/// like it, would be another rule set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// Name of the first rule that cannot be expressed.
    pub rule: String,
    /// What the target lacks for it.
    pub why: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule `{}`: {}", self.rule, self.why)
    }
}

impl std::error::Error for Unsupported {}

/// Why a node cannot be translated.
pub(crate) type Why = String;

/// What a program in the kernel can decide.
pub(crate) enum Decide<'p> {
    Queue(u16),
    Spread(&'p Spread, Queues),
    /// No queue: the receive thread that gets the datagram drops it, whichever that is.
    Anyone,
}

/// The action, if it is a function of the datagram alone. `spill` does not count: it comes after the choice, in the
/// receive thread that owns the chosen queue.
pub(crate) fn decide(action: &Action) -> Result<Decide<'_>, Why> {
    match action {
        Action::Queue { queue, .. } => Ok(Decide::Queue(*queue)),
        Action::Drop => Ok(Decide::Anyone),
        Action::Sample { .. } => Err("`sample` counts datagrams, for each receive thread".into()),
        Action::Spread { by, over, .. } => match by {
            Spread::RoundRobin { .. } => Err("`round_robin` takes turns, for each receive thread".into()),
            Spread::Random => Err("`random` is a draw of the receive thread".into()),
            Spread::Cpu => Err(refuse(Load::Cpu)),
            Spread::RxQueue => Err(refuse(Load::RxQueue)),
            by => Ok(Decide::Spread(by, *over)),
        },
    }
}

/// What is said about a field that the kernel's program cannot see.
pub(crate) fn refuse(load: Load) -> Why {
    match load {
        Load::Cpu => "`cpu` is that of the receive thread, which is chosen later",
        _ => "`rxq` is that of the receive thread, which is chosen later",
    }
    .into()
}

/// The index of each node's rule: nodes stand in the order of their rules, and each rule ends with its action.
pub(crate) fn rules_of(program: &Program) -> Vec<u16> {
    let mut rule = 0;
    let mut out: Vec<u16> = program
        .nodes
        .iter()
        .rev()
        .map(|node| {
            if let Node::Do { rule: this, .. } = node {
                rule = *this;
            }
            rule
        })
        .collect();
    out.reverse();
    out
}

/// Which header fields a program looks at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Uses {
    pub(crate) src: bool,
    pub(crate) dst: bool,
    pub(crate) ports: bool,
}

pub(crate) fn uses(program: &Program) -> Uses {
    let mut uses = Uses::default();
    for node in &program.nodes {
        match node {
            Node::Range { value, .. } | Node::Set { value, .. } => uses.operand(program, *value),
            Node::Compare { left, right, .. } => {
                uses.operand(program, *left);
                uses.operand(program, *right);
            }
            Node::Switch { load, .. } => uses.load(*load),
            Node::Address { which, .. } => uses.address(*which),
            Node::SameAddress { .. } => (uses.src, uses.dst) = (true, true),
            Node::Do { action: Action::Spread { by, .. }, .. } => uses.spread(program, by),
            Node::Do { .. } | Node::Goto(_) | Node::Bytes { .. } => {}
        }
    }
    uses
}

impl Uses {
    fn all(&mut self) {
        *self = Uses { src: true, dst: true, ports: true };
    }

    fn address(&mut self, which: Which) {
        match which {
            Which::Src => self.src = true,
            Which::Dst => self.dst = true,
        }
    }

    fn load(&mut self, load: Load) {
        self.ports |= matches!(load, Load::SrcPort | Load::DstPort);
    }

    fn operand(&mut self, program: &Program, value: Operand) {
        use super::program::Step;
        match value {
            Operand::Load(load) => self.load(load),
            Operand::Code(code) => {
                for step in slice(&program.steps, code) {
                    if let Step::Load(load) | Step::With(_, load) = step {
                        self.load(*load);
                    }
                }
            }
        }
    }

    fn spread(&mut self, program: &Program, by: &Spread) {
        match by {
            Spread::Mod(value) => self.operand(program, *value),
            Spread::HashFlow => self.all(),
            Spread::HashLoad(load) => self.load(*load),
            Spread::Hash(keys) => {
                for key in slice(&program.keys, *keys) {
                    match key {
                        Key::Number(value) => self.operand(program, *value),
                        Key::Address(which) => self.address(*which),
                        Key::Flow => self.all(),
                        Key::Bytes { .. } => {}
                    }
                }
            }
            Spread::RoundRobin { .. } | Spread::Random | Spread::Cpu | Spread::RxQueue => {}
        }
    }
}

/// Where the nodes of a program begin in the translation, and what is known on all ways there.
///
/// Edges only point forward, so when a node is translated all ways to it have been seen.
pub(crate) struct Ways<L> {
    /// The node's label, and how many payload bytes are there for certain; `None`: no way leads there yet.
    places: Vec<Option<(L, u32)>>,
}

impl<L: Copy> Ways<L> {
    pub(crate) fn new(nodes: usize) -> Self {
        Ways { places: vec![None; nodes] }
    }

    /// A way to the node from a place where `known` bytes are there.
    pub(crate) fn way(&mut self, node: Label, known: u32, make: impl FnOnce() -> L) -> L {
        // A node that does not exist gets a label that nobody places, which the assemblers refuse.
        let Some(place) = self.places.get_mut(node as usize) else { return make() };
        let (label, least) =
            place.map_or_else(|| (make(), known), |(label, least)| (label, least.min(known)));
        *place = Some((label, least));
        label
    }

    /// The node's label and what is known there; `None`: it is never reached.
    pub(crate) fn arrive(&self, node: usize) -> Option<(L, u32)> {
        self.places.get(node).copied().flatten()
    }
}

/// The range `low..=high` as a table of where each number leads.
pub(crate) fn range_cases(low: u64, high: u64, yes: Label, no: Label) -> Vec<(u64, Label)> {
    set_cases(&[(low, high)], yes, no)
}

/// Sorted, disjoint ranges as a table of where each number leads: `(lowest number, where to)`, the first at 0.
pub(crate) fn set_cases(ranges: &[(u64, u64)], yes: Label, no: Label) -> Vec<(u64, Label)> {
    let mut cases: Vec<(u64, Label)> = vec![(0, no)];
    for &(low, high) in ranges {
        match cases.last_mut() {
            Some(last) if last.0 == low => last.1 = yes,
            _ => cases.push((low, yes)),
        }
        if let Some(next) = high.checked_add(1) {
            cases.push((next, no));
        }
    }
    // Two ranges may touch.
    cases.dedup_by_key(|(_, to)| *to);
    cases
}

/// The four words of an address, most significant first.
pub(crate) fn words(address: u128) -> [u32; 4] {
    [96, 64, 32, 0].map(|shift| (address >> shift) as u32)
}

pub(crate) fn slice<T>(table: &[T], part: Part) -> &[T] {
    table.get(part.start as usize..part.end as usize).unwrap_or_default()
}

impl RuleSet {
    pub(crate) fn unsupported(&self, rule: usize, why: Why) -> Unsupported {
        let rule = self.rules.get(rule).map_or_else(|| format!("rule{}", rule + 1), |(name, _)| name.clone());
        Unsupported { rule, why }
    }
}
