//! A rule set applied to a capture: counts by queue and rule, skew, and the heaviest keys.
//!
//! `reader` reads pcap and pcapng files packet by packet, `link` finds the datagram in a packet, `summary` counts what the
//! rules decide; `summarize` puts them together.

mod link;
mod reader;
mod summarize;
mod summary;

pub use summarize::summarize;
pub use summary::{CaptureSummary, KeyCount, RuleCount};
