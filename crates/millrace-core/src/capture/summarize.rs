//! Runs a rule set over a capture file.

use std::{fs::File, path::Path};

use super::{
    link::parse,
    reader::read_packets,
    summary::{CaptureSummary, Counter},
};
use crate::{
    error::{Code, Error, Result},
    rule::RuleSet,
};

/// Runs the rules over a pcap or pcapng file. `rxq` and `cpu` are 0, and `random` always draws the same.
///
/// # Errors
/// [`Code::Config`] when the file cannot be read or is no capture.
pub fn summarize(rules: &RuleSet, queues: u16, path: &Path) -> Result<CaptureSummary> {
    let mut counter = Counter::new(rules, queues);
    let end = File::open(path).map_err(|e| e.to_string()).and_then(|file| {
        read_packets(file, |link, data| match parse(link, data) {
            Ok(datagram) => counter.datagram(&datagram),
            Err(reason) => counter.dropped_frame(reason),
        })
    });
    match end {
        Ok(end) => Ok(counter.finish(end.packets, end.truncated)),
        Err(what) => Err(Error::new(Code::Config, format!("capture {}: {what}", path.display()))),
    }
}
