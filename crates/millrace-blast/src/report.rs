//! The report of a run.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{Sizes, Via};

/// Sends the kernel refused. Each was tried again; none is counted as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Retries {
    /// The device or its queue dropped the frame and reported it (ENOBUFS; EBUSY on the XDP path).
    pub enobufs: u64,
    /// No room in the socket or the ring at the moment (EAGAIN).
    pub eagain: u64,
    /// An ICMP error about an earlier datagram (ECONNREFUSED and unreachables). The earlier datagram was sent.
    pub refused: u64,
    /// A batch the kernel stopped early; sendmmsg(2) hides the reason then, which is one of the three above.
    pub partial: u64,
}

impl std::ops::AddAssign for Retries {
    fn add_assign(&mut self, other: Self) {
        self.enobufs += other.enobufs;
        self.eagain += other.eagain;
        self.refused += other.refused;
        self.partial += other.partial;
    }
}

/// Numbers that a thread had drawn but could not send before the run was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First number not sent.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// The account of a run. Sent are exactly the numbers `first .. next`, without those in `unsent`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The target, as it was given.
    pub target: String,
    /// The path by which the datagrams were sent.
    pub via: Via,
    /// Interface whose drops are reported.
    pub interface: String,
    /// Datagrams the kernel took.
    pub sent: u64,
    /// Payload bytes of these datagrams.
    pub bytes: u64,
    /// From the first datagram's due time to the end of the last send, seconds.
    pub seconds: f64,
    /// `sent / seconds`.
    pub rate_pps: f64,
    /// Number of the first datagram.
    pub first: u64,
    /// Number of the last datagram; `None` when nothing was sent.
    pub last: Option<u64>,
    /// The number a following run should start with.
    pub next: u64,
    /// Sends that the kernel refused.
    pub retries: Retries,
    /// Datagrams counted as sent that the interface dropped afterwards: what its `tx_dropped` (`rx_dropped` on loopback)
    /// grew by, less the drops that the kernel reported to the sender (those were sent again). Other senders on the interface
    /// count too. With GSO a count may stand for a whole GSO frame, see the crate documentation.
    pub interface_tx_dropped: u64,
    /// How much `tx_dropped` of the interface grew, with the drops that the kernel reported.
    pub interface_tx_dropped_raw: u64,
    /// Number of flows.
    pub flows: u32,
    /// Number of sending threads.
    pub threads: u32,
    /// Datagrams a GSO send; 1 without GSO.
    pub gso: u32,
    /// Payload sizes, bytes.
    pub sizes: Sizes,
    /// Normally empty: see [`Gap`].
    pub unsent: Vec<Gap>,
}

/// The state of a run in progress.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Seconds since the start.
    pub seconds: f64,
    /// Datagrams sent so far.
    pub sent: u64,
    /// Datagrams a second since the last progress.
    pub rate_pps: f64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:6.1} s  {:>12} sent  {:>12.0} /s", self.seconds, self.sent, self.rate_pps)
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "{name:<22}{value}");
        row("target", format!("{} via {} on {}", self.target, self.via, self.interface))?;
        row("sent", format!("{} datagrams, {} payload bytes", self.sent, self.bytes))?;
        let numbers = match self.last {
            Some(last) => format!("{} to {last}, next {}", self.first, self.next),
            None => format!("none, next {}", self.next),
        };
        row("numbers", numbers)?;
        for gap in &self.unsent {
            row("not sent", format!("{} from number {}", gap.count, gap.first))?;
        }
        row("time", format!("{:.3} s", self.seconds))?;
        let bits = if self.seconds > 0.0 { self.bytes as f64 * 8.0 / self.seconds / 1e6 } else { 0.0 };
        row("rate", format!("{:.0} datagrams/s, {bits:.1} Mbit/s of payload", self.rate_pps))?;
        let r = self.retries;
        row(
            "retries",
            format!(
                "{} enobufs, {} eagain, {} refused, {} partial",
                r.enobufs, r.eagain, r.refused, r.partial
            ),
        )?;
        row(
            "interface tx_dropped",
            format!("{} ({} raw)", self.interface_tx_dropped, self.interface_tx_dropped_raw),
        )?;
        let shape =
            format!("{} flows, {} threads, sizes {}, gso {}", self.flows, self.threads, self.sizes, self.gso);
        row("shape", shape)
    }
}
