//! Counts what a rule set decides about datagrams.

use std::{cmp::Reverse, collections::HashMap};

use serde::Serialize;

use crate::{
    packet::{FrameDrop, Udp},
    rule::{Facts, RuleSet, RuleState, Verdict},
};

/// Keys that are counted one by one; those that come later are left out, which bounds memory to some 50 MB.
const MAX_KEYS: usize = 1 << 20;
/// Keys that a summary lists.
const HEAVIEST: usize = 10;

/// The decisions of a rule set about the packets of a capture. It serializes to the JSON of `millrace rules explain --pcap
/// --json`.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct CaptureSummary {
    pub packets: u64,
    pub datagrams: u64,
    /// Packets that are not a whole UDP datagram, by reason.
    #[cfg_attr(test, ts(type = "Record<string, number>"))]
    pub frames: HashMap<&'static str, u64>,
    /// Datagrams by queue.
    pub queues: Vec<u64>,
    pub rules: Vec<RuleCount>,
    /// The datagrams of the fullest queue, as a multiple of the mean of all queues; 0 without datagrams.
    pub skew: f64,
    /// The keys with the most datagrams, in falling order.
    pub heaviest: Vec<KeyCount>,
    /// Number of different keys; a lower bound when `keysCut`.
    pub keys: usize,
    /// There were more keys than are counted.
    pub keys_cut: bool,
    /// The file ends in the middle of a packet.
    pub truncated: bool,
}

/// Datagrams of one rule.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[allow(missing_docs)]
pub struct RuleCount {
    pub name: String,
    pub text: String,
    pub matched: u64,
    pub dropped: u64,
}

/// Datagrams of one key: the number that `mod` reduces (its lower 32 bits) or the hash.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[allow(missing_docs)]
pub struct KeyCount {
    pub rule: String,
    pub key: u32,
    pub queue: u16,
    pub datagrams: u64,
}

/// Counts the packets of one capture.
pub(super) struct Counter<'r> {
    rules: &'r RuleSet,
    state: RuleState,
    /// Rule and key → queue and datagrams.
    keys: HashMap<(u16, u32), (u16, u64)>,
    summary: CaptureSummary,
}

impl<'r> Counter<'r> {
    /// `random` always draws the same.
    pub(super) fn new(rules: &'r RuleSet, queues: u16) -> Self {
        let count = |(name, text)| RuleCount { name, text, matched: 0, dropped: 0 };
        let summary = CaptureSummary {
            queues: vec![0; queues.into()],
            rules: rules.describe().into_iter().map(count).collect(),
            ..CaptureSummary::default()
        };
        Counter { rules, state: rules.state_seeded(0, 0), keys: HashMap::new(), summary }
    }

    /// Counts a packet that is not a whole UDP datagram.
    pub(super) fn dropped_frame(&mut self, reason: FrameDrop) {
        *self.summary.frames.entry(reason.as_str()).or_default() += 1;
    }

    /// Decides about a datagram, and counts it.
    pub(super) fn datagram(&mut self, d: &Udp<'_>) {
        self.summary.datagrams += 1;
        let facts = Facts {
            payload: d.payload,
            src: d.src.0,
            dst: d.dst.0,
            src_port: d.src_port,
            dst_port: d.dst_port,
            rx_queue: 0,
            cpu: 0,
        };
        let verdict = self.rules.evaluate(&facts, &mut self.state);
        let (Verdict::Drop { rule } | Verdict::Queue { rule, .. }) = verdict;
        let counts = self.summary.rules.get_mut(usize::from(rule));
        if let Some(counts) = counts {
            counts.matched += 1;
            counts.dropped += u64::from(matches!(verdict, Verdict::Drop { .. }));
        }
        let Verdict::Queue { queue, key, .. } = verdict else { return };
        if let Some(count) = self.summary.queues.get_mut(usize::from(queue)) {
            *count += 1;
        }
        if self.keys.len() < MAX_KEYS || self.keys.contains_key(&(rule, key)) {
            self.keys.entry((rule, key)).or_insert((queue, 0)).1 += 1;
        } else {
            self.summary.keys_cut = true;
        }
    }

    /// The counts, for a capture that ended so.
    pub(super) fn finish(mut self, packets: u64, truncated: bool) -> CaptureSummary {
        (self.summary.packets, self.summary.truncated) = (packets, truncated);
        let queues = &self.summary.queues;
        let total: u64 = queues.iter().sum();
        let fullest = queues.iter().copied().max().unwrap_or(0);
        self.summary.skew =
            if total == 0 { 0.0 } else { fullest as f64 * queues.len() as f64 / total as f64 };
        self.summary.keys = self.keys.len();
        let mut keys: Vec<_> = self.keys.into_iter().collect();
        // The largest count comes first; equal counts are in the order of the keys, so that the output is always the same.
        keys.sort_unstable_by_key(|((rule, key), (_, count))| (Reverse(*count), *rule, *key));
        keys.truncate(HEAVIEST);
        let name = |rule: u16| {
            self.summary.rules.get(usize::from(rule)).map_or_else(String::new, |r| r.name.clone())
        };
        let heaviest = keys
            .into_iter()
            .map(|((rule, key), (queue, datagrams))| KeyCount { rule: name(rule), key, queue, datagrams })
            .collect();
        self.summary.heaviest = heaviest;
        self.summary
    }
}
