//! The configuration of a run.

use std::{fmt, net::IpAddr, str::FromStr};

use millrace_core::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};

use crate::payload::Payload;

/// Most datagrams in one GSO send; the kernel's UDP_MAX_SEGMENTS was 64 before Linux 6.9.
pub const MAX_SEGMENTS: u32 = 64;

/// The path by which datagrams are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// Connected UDP sockets, sendmmsg, UDP GSO. Needs no privilege.
    #[default]
    Socket,
    /// AF_PACKET: ready-made frames past the IP stack. Needs CAP_NET_RAW.
    Packet,
    /// AF_XDP in copy mode: ready-made frames from shared memory. Needs CAP_NET_RAW.
    Xdp,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Via::Socket => "socket",
            Via::Packet => "packet",
            Via::Xdp => "xdp",
        })
    }
}

/// Payload sizes in bytes, cycled: datagram `n` has `first + n % (last - first + 1)` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sizes {
    /// Smallest payload, bytes.
    pub first: u16,
    /// Largest payload, bytes, inclusive.
    pub last: u16,
}

impl Sizes {
    /// One size for all.
    pub const fn fixed(size: u16) -> Self {
        Sizes { first: size, last: size }
    }

    /// Payload bytes of datagram `n`.
    #[inline]
    pub fn of(self, n: u64) -> usize {
        if self.first == self.last {
            return usize::from(self.first);
        }
        usize::from(self.first) + (n % (u64::from(self.last - self.first) + 1)) as usize
    }

    /// Whether all datagrams have the same size.
    pub fn equal(self) -> bool {
        self.first == self.last
    }
}

impl FromStr for Sizes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last && last <= 65_507 => Ok(Sizes { first, last }),
            _ => Err(Error::new(
                Code::Config,
                format!("size {text:?}: expected payload bytes from 0 to 65507, like 100 or 64..1472"),
            )),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.equal() { write!(f, "{}", self.first) } else { write!(f, "{}..{}", self.first, self.last) }
    }
}

impl TryFrom<String> for Sizes {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Sizes> for String {
    fn from(sizes: Sizes) -> String {
        sizes.to_string()
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad =
            || Error::new(Code::Config, format!("MAC {text:?}: expected six bytes like 02:00:00:00:00:01"));
        let bytes = text
            .split(':')
            .map(|b| (b.len() == 2).then(|| u8::from_str_radix(b, 16).ok()).flatten())
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(bad)?;
        bytes.try_into().map(Mac).map_err(|_| bad())
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for Mac {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

/// UDP segmentation offload: how many datagrams one send may carry (socket path, equal sizes only).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gso {
    /// As many as fit on loopback; off elsewhere, so that every drop is one datagram (see the crate documentation).
    #[default]
    Auto,
    /// One datagram a send.
    Off,
    /// At most this many, 1 to 64; fewer when they would not fit into 64 KiB.
    Segments(u32),
}

impl FromStr for Gso {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Gso::Auto),
            "off" => Ok(Gso::Off),
            _ => match text.parse() {
                Ok(n) if (1..=MAX_SEGMENTS).contains(&n) => Ok(Gso::Segments(n)),
                _ => Err(Error::new(
                    Code::Config,
                    format!(
                        "gso {text:?}: expected auto, off or a number of segments from 1 to {MAX_SEGMENTS}"
                    ),
                )),
            },
        }
    }
}

/// The configuration of a run. [`RunConfig::to`] gives the defaults; every field may be changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// `host:port`, `[v6]:port`, or a host alone when `ports` is set.
    pub target: String,
    /// Datagrams a second over all threads; 0: unpaced.
    #[serde(default)]
    pub rate: u64,
    /// Ends the run after this many datagrams.
    #[serde(default)]
    pub count: Option<u64>,
    /// Ends the run after this many seconds. With neither this nor `count`: 5.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// Payload sizes; `None`: the length of fixed bytes (hex, file), otherwise 100.
    #[serde(default)]
    pub sizes: Option<Sizes>,
    /// Flows, each with a source port of its own; `None`: as many as needed (one per thread and destination port).
    #[serde(default)]
    pub flows: Option<u32>,
    /// Destination ports; flow `f` sends to `ports[f % ports.len()]`. Empty: the port of `target`.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Selects the content of the datagrams.
    #[serde(default)]
    pub payload: Payload,
    /// Number of the first datagram.
    #[serde(default)]
    pub start: u64,
    /// The path by which datagrams are sent.
    #[serde(default)]
    pub via: Via,
    /// Interface to send on; `None`: the one the route names.
    #[serde(default)]
    pub interface: Option<String>,
    /// Source address; `None`: the one the route names.
    #[serde(default)]
    pub src_ip: Option<IpAddr>,
    /// Source port of flow 0, flow `f` has `src_port + f`; `None`: the kernel's choice (socket), 49152 (raw paths).
    #[serde(default)]
    pub src_port: Option<u16>,
    /// Source MAC on the raw paths; `None`: the interface's.
    #[serde(default)]
    pub src_mac: Option<Mac>,
    /// Destination MAC on the raw paths; `None`: from the neighbour table.
    #[serde(default)]
    pub dst_mac: Option<Mac>,
    /// UDP segmentation offload (socket path).
    #[serde(default)]
    pub gso: Gso,
    /// Messages or frames a system call, 1 to 1024.
    #[serde(default = "default_batch")]
    pub batch: u32,
    /// Sending threads.
    #[serde(default = "default_threads")]
    pub threads: u32,
    /// Seed of the random fill.
    #[serde(default)]
    pub seed: u64,
    /// Packet path: skip the interface's queueing discipline.
    #[serde(default = "default_bypass")]
    pub qdisc_bypass: bool,
    /// XDP path: queue of thread 0, thread `t` has `queue + t`.
    #[serde(default)]
    pub queue: u32,
}

fn default_batch() -> u32 {
    64
}

fn default_threads() -> u32 {
    1
}

fn default_bypass() -> bool {
    true
}

impl RunConfig {
    /// The defaults: 100-byte numbered datagrams from one socket, unpaced, for 5 s.
    pub fn to(target: impl Into<String>) -> Self {
        RunConfig {
            target: target.into(),
            rate: 0,
            count: None,
            seconds: None,
            sizes: None,
            flows: None,
            ports: Vec::new(),
            payload: Payload::default(),
            start: 0,
            via: Via::Socket,
            interface: None,
            src_ip: None,
            src_port: None,
            src_mac: None,
            dst_mac: None,
            gso: Gso::Auto,
            batch: default_batch(),
            threads: default_threads(),
            seed: 0,
            qdisc_bypass: default_bypass(),
            queue: 0,
        }
    }

    /// Payload sizes after defaults.
    pub fn effective_sizes(&self) -> Sizes {
        let natural = self.payload.natural_size().and_then(|n| u16::try_from(n).ok()).unwrap_or(100);
        self.sizes.unwrap_or(Sizes::fixed(natural))
    }

    /// Flows after defaults: every thread needs one, every destination port needs one.
    pub fn effective_flows(&self) -> u32 {
        self.flows.unwrap_or_else(|| self.threads.max(self.ports.len() as u32))
    }

    /// Time limit in nanoseconds after defaults.
    pub(crate) fn limit_ns(&self) -> Option<u64> {
        let seconds = self.seconds.or(if self.count.is_none() { Some(5.0) } else { None })?;
        Some((seconds * 1e9) as u64)
    }

    /// Checks everything that does not depend on the kernel.
    ///
    /// # Errors
    /// The first value that is out of range or contradicts another.
    pub fn validate(&self) -> Result<()> {
        let sizes = self.effective_sizes();
        let flows = self.effective_flows();
        let bad = |m: String| Err(Error::new(Code::Config, m));
        if sizes.first > sizes.last || sizes.last > 65_507 {
            return bad(format!("size {sizes}: expected payload bytes from 0 to 65507, smallest first"));
        }
        if self.count == Some(0) {
            return bad("count 0: expected at least 1".into());
        }
        if let Some(s) = self.seconds
            && !(s > 0.0 && s <= 1e6)
        {
            return bad(format!("seconds {s}: expected more than 0, at most 1000000"));
        }
        if self.rate > 1_000_000_000 {
            return bad(format!("rate {}: expected at most 1G datagrams a second", self.rate));
        }
        if !(1..=1024).contains(&self.batch) {
            return bad(format!("batch {}: expected 1 to 1024", self.batch));
        }
        if !(1..=256).contains(&self.threads) {
            return bad(format!("threads {}: expected 1 to 256", self.threads));
        }
        if flows < self.threads || flows < self.ports.len() as u32 || flows > 16_384 {
            return bad(format!(
                "flows {flows}: expected at least one per thread ({}) and per destination port ({}), at most 16384",
                self.threads,
                self.ports.len()
            ));
        }
        if self.ports.contains(&0) {
            return bad("port 0: expected 1 to 65535".into());
        }
        if let Some(p) = self.src_port
            && (p == 0 || u32::from(p) + flows > 65_536)
        {
            return bad(format!("source port {p}: expected 1 to 65535, also after adding {flows} flows"));
        }
        if self.via == Via::Socket && (self.src_mac.is_some() || self.dst_mac.is_some()) {
            return bad(
                "source or destination MAC: only the raw paths write it; expected --via packet or xdp".into(),
            );
        }
        if let Gso::Segments(n) = self.gso {
            if !(1..=MAX_SEGMENTS).contains(&n) {
                return bad(format!("gso {n}: expected 1 to {MAX_SEGMENTS}"));
            }
            if n > 1 && self.via != Via::Socket {
                return bad(format!("gso {n}: only the socket path has it, not via {}", self.via));
            }
            if n > 1 && !sizes.equal() {
                return bad(format!("gso {n}: needs equal sizes, given {sizes}"));
            }
        }
        if let Some(c) = self.payload.counter
            && !matches!(c.width, 4 | 8)
        {
            return bad(format!("counter width {}: expected 4 or 8", c.width));
        }
        if matches!(&self.payload.fill, crate::payload::Fill::Bytes(b) if b.is_empty()) {
            return bad("payload of fixed bytes is empty: expected at least one byte".into());
        }
        Ok(())
    }
}

/// Reads `A,B,C`, `A-B`, or both mixed.
///
/// # Errors
/// One line that says what was given and what was expected.
pub fn parse_ports(text: &str) -> Result<Vec<u16>> {
    let bad = || {
        Error::new(Code::Config, format!("ports {text:?}: expected 1 to 65535 like 9000,9001 or 9000-9003"))
    };
    let mut ports = Vec::new();
    for part in text.split(',') {
        let (a, b) = part.split_once('-').unwrap_or((part, part));
        let (a, b): (u16, u16) = (a.parse().map_err(|_| bad())?, b.parse().map_err(|_| bad())?);
        if a == 0 || a > b {
            return Err(bad());
        }
        ports.extend(a..=b);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_and_cycle() {
        let s: Sizes = "64..66".parse().unwrap();
        assert_eq!((0..5).map(|n| s.of(n)).collect::<Vec<_>>(), [64, 65, 66, 64, 65]);
        assert_eq!("100".parse::<Sizes>().unwrap(), Sizes::fixed(100));
        assert_eq!("0..65507".parse::<Sizes>().unwrap().to_string(), "0..65507");
        for bad in ["", "x", "5..4", "65508", "-1", "1..", "1..2..3"] {
            assert!(bad.parse::<Sizes>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_and_macs_parse() {
        assert_eq!(parse_ports("1,5-7").unwrap(), [1, 5, 6, 7]);
        for bad in ["", "0", "7-5", "70000", "1,,2"] {
            assert!(parse_ports(bad).is_err(), "{bad}");
        }
        assert_eq!("02:00:00:00:0a:ff".parse::<Mac>().unwrap().to_string(), "02:00:00:00:0a:ff");
        for bad in ["", "02", "02:00:00:00:0a:fg", "02:00:00:00:0a:01:01", "2:0:0:0:0:1"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_plan_survives_json_and_defaults_fill_in() {
        let mut config = RunConfig::to("[::1]:9");
        config.sizes = Some(Sizes { first: 1, last: 9 });
        config.dst_mac = Some(Mac([2, 0, 0, 0, 0, 1]));
        config.gso = Gso::Segments(7);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<RunConfig>(&text).unwrap(), config);
        assert_eq!(serde_json::from_str::<RunConfig>(r#"{"target":"h:1"}"#).unwrap(), RunConfig::to("h:1"));
        assert!(serde_json::from_str::<RunConfig>(r#"{"target":"h:1","rat":1}"#).is_err());
    }

    #[test]
    fn contradictions_are_named() {
        let with = |change: fn(&mut RunConfig)| {
            let mut config = RunConfig::to("h:1");
            change(&mut config);
            config.validate()
        };
        assert!(with(|_| ()).is_ok());
        let bad: [fn(&mut RunConfig); 11] = [
            |p| p.dst_mac = Some(Mac::default()),
            |p| p.count = Some(0),
            |p| p.seconds = Some(0.0),
            |p| p.seconds = Some(f64::NAN),
            |p| p.batch = 0,
            |p| p.threads = 0,
            |p| (p.threads, p.flows) = (2, Some(1)),
            |p| (p.ports, p.flows) = (vec![1, 2], Some(1)),
            |p| (p.src_port, p.flows) = (Some(65_535), Some(2)),
            |p| (p.gso, p.sizes) = (Gso::Segments(2), Some(Sizes { first: 1, last: 2 })),
            |p| (p.gso, p.via) = (Gso::Segments(2), Via::Xdp),
        ];
        for change in bad {
            let e = with(change).unwrap_err().to_string();
            assert!(
                e.starts_with("MILLRACE_E_CONFIG: ") && e.contains("expected")
                    || e.contains("needs")
                    || e.contains("only"),
                "{e}"
            );
        }
    }
}
