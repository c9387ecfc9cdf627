//! Early drops: leading `drop` rules that the XDP program carries out itself, before a frame costs user space anything.

use std::sync::Arc;

use crate::{
    bpf::{
        CounterMap,
        ebpf::{Assembler, Label, Reg},
        xdp_program::BeforeRedirect,
    },
    error::Result,
    rule::{EarlyDrop, RuleSet},
};

/// The early drops of one rule set, counted by rule. The counts live in a BPF map of their own, so they outlive every
/// program and attachment that uses them.
#[derive(Debug)]
pub struct EarlyRules {
    rules: Arc<RuleSet>,
    counters: CounterMap,
    count: u16,
}

impl EarlyRules {
    /// The leading `drop` rules of a set, with counters of their own; `None` when the set begins with no `drop` rule.
    ///
    /// # Errors
    /// Those of [`CounterMap::new`].
    pub fn new(rules: &Arc<RuleSet>) -> Result<Option<Self>> {
        let Some(count) = rules.early_drop().map(|early| early.rules()) else { return Ok(None) };
        let counters = CounterMap::new(count.into())?;
        Ok(Some(EarlyRules { rules: Arc::clone(rules), counters, count }))
    }

    /// Number of rules; they are the first ones of the set.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Datagrams that each of the rules dropped since the set was put in force.
    pub fn dropped(&self) -> Vec<u64> {
        // Reading an array map fails only for an index beyond it, and the map was made for `count`.
        self.counters.read(self.count.into()).unwrap_or_default()
    }

    /// The drops as code for the generator of the XDP program.
    pub(super) fn code(&self) -> Option<EarlyCode<'_>> {
        self.rules.early_drop().map(|rules| EarlyCode { rules, counters_fd: self.counters.raw_fd() })
    }
}

/// The leading `drop` rules as code of the XDP program.
#[derive(Debug, Clone, Copy)]
pub struct EarlyCode<'a> {
    /// The rules.
    pub rules: EarlyDrop<'a>,
    /// File descriptor of an array map with one counter per rule ([`CounterMap`]).
    pub counters_fd: i32,
}

impl BeforeRedirect for EarlyCode<'_> {
    fn append(&self, assembler: &mut Assembler, network: Reg, v6: bool, redirect: Label) {
        self.rules.append(assembler, network, v6, self.counters_fd, redirect);
    }
}
