//! What a rule set would have done with a capture: counts by queue and rule, skew, and the heaviest keys.

use std::{collections::HashMap, fs::File, path::Path};

use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use serde::Serialize;

use crate::{
    error::{Code, Error, Result},
    packet::{self, ETH_P_IP, ETH_P_IPV6, Udp},
    rule::{Facts, RuleSet, Verdict},
    rx::FrameDrop,
};

/// Keys that are counted; the ones that come later are only counted together.
const MOST_KEYS: usize = 1 << 20;
/// Keys that are shown.
const HEAVIEST: usize = 10;
/// First size of the read buffer; it grows with the largest block.
const BUFFER: usize = 1 << 16;
const LARGEST_BUFFER: usize = 64 << 20;

/// The result. Field names are those of `millrace rules explain --json`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct CaptureReport {
    pub packets: u64,
    pub datagrams: u64,
    /// Packets that are no whole UDP datagram, by reason.
    pub frames: HashMap<&'static str, u64>,
    /// Datagrams by queue.
    pub queues: Vec<u64>,
    pub rules: Vec<RuleCount>,
    /// The fullest queue, as a multiple of the mean.
    pub skew: f64,
    pub heaviest: Vec<KeyCount>,
    /// Different keys; a lower bound when `keysCut`.
    pub keys: usize,
    pub keys_cut: bool,
    /// The file ends in the middle of a packet.
    pub truncated: bool,
}

/// Datagrams of one rule.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct RuleCount {
    pub name: String,
    pub text: String,
    pub matched: u64,
    pub dropped: u64,
}

/// Datagrams of one key: the number that `mod` reduces (its lower 32 bits) or the hash.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct KeyCount {
    pub rule: String,
    pub key: u32,
    pub queue: u16,
    pub datagrams: u64,
}

/// Runs the rules over a pcap or pcapng file. `rxq` and `cpu` are 0, `random` always draws the same.
///
/// # Errors
/// [`Code::Config`] when the file cannot be read or is no capture.
pub fn analyse(rules: &RuleSet, queues: u16, path: &Path) -> Result<CaptureReport> {
    let name = path.display();
    let fail = |what: String| Error::new(Code::Config, format!("capture {name}: {what}"));
    let file = File::open(path).map_err(|e| fail(e.to_string()))?;
    let mut reader = create_reader(BUFFER, file).map_err(|e| match e {
        PcapError::Eof => fail("it is empty; expected pcap or pcapng".into()),
        PcapError::Incomplete(_) => fail("it ends within the header of pcap or pcapng".into()),
        e => fail(format!("this is neither pcap nor pcapng ({})", reason(&e))),
    })?;
    let mut tally = Tally::new(rules, queues);
    let mut links: Vec<Linktype> = Vec::new();
    let mut size = BUFFER;
    let mut exhausted = false;
    loop {
        match reader.next() {
            Ok((used, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => links = vec![header.network],
                    PcapBlockOwned::Legacy(p) => tally.packet(links.first(), p.data, p.caplen as usize),
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => links.clear(),
                    PcapBlockOwned::NG(Block::InterfaceDescription(i)) => links.push(i.linktype),
                    PcapBlockOwned::NG(Block::EnhancedPacket(p)) => {
                        tally.packet(links.get(p.if_id as usize), p.data, p.caplen as usize);
                    }
                    PcapBlockOwned::NG(Block::SimplePacket(p)) => {
                        tally.packet(links.first(), p.data, p.origlen as usize);
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                reader.consume(used);
                exhausted = false;
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => {
                if exhausted && reader.reader_exhausted() {
                    tally.report.truncated = true;
                    break;
                }
                if exhausted {
                    // The buffer is full and the block larger.
                    size *= 2;
                    if size > LARGEST_BUFFER || !reader.grow(size) {
                        return Err(fail(format!("a block of more than {LARGEST_BUFFER} bytes")));
                    }
                }
                reader.refill().map_err(|e| fail(reason(&e)))?;
                exhausted = true;
            }
            Err(PcapError::UnexpectedEof) => {
                tally.report.truncated = true;
                break;
            }
            Err(e) => return Err(fail(format!("after {} packets: {}", tally.report.packets, reason(&e)))),
        }
    }
    Ok(tally.finish())
}

/// The parser's own text would repeat the input.
fn reason<I>(e: &PcapError<I>) -> String
where
    I: std::fmt::Debug + Sized,
{
    let text = format!("{e:?}");
    text.split(['(', '{']).next().unwrap_or("unknown").trim().to_owned()
}

struct Tally<'r> {
    rules: &'r RuleSet,
    state: crate::rule::RuleState,
    keys: HashMap<(u16, u32), (u16, u64)>,
    report: CaptureReport,
}

impl<'r> Tally<'r> {
    fn new(rules: &'r RuleSet, queues: u16) -> Self {
        let count = |(name, text)| RuleCount { name, text, matched: 0, dropped: 0 };
        let report = CaptureReport {
            queues: vec![0; queues.into()],
            rules: rules.describe().into_iter().map(count).collect(),
            ..CaptureReport::default()
        };
        Tally { rules, state: rules.state_seeded(0, 0), keys: HashMap::new(), report }
    }

    fn packet(&mut self, link: Option<&Linktype>, data: &[u8], captured: usize) {
        self.report.packets += 1;
        // pcapng pads to words.
        let data = data.get(..captured).unwrap_or(data);
        match parse(link.copied(), data) {
            Ok(datagram) => self.datagram(&datagram),
            Err(why) => *self.report.frames.entry(why.as_str()).or_default() += 1,
        }
    }

    fn datagram(&mut self, d: &Udp<'_>) {
        self.report.datagrams += 1;
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
        let counts = self.report.rules.get_mut(usize::from(rule));
        if let Some(counts) = counts {
            counts.matched += 1;
            counts.dropped += u64::from(matches!(verdict, Verdict::Drop { .. }));
        }
        let Verdict::Queue { queue, key, .. } = verdict else { return };
        if let Some(count) = self.report.queues.get_mut(usize::from(queue)) {
            *count += 1;
        }
        if self.keys.len() < MOST_KEYS || self.keys.contains_key(&(rule, key)) {
            self.keys.entry((rule, key)).or_insert((queue, 0)).1 += 1;
        } else {
            self.report.keys_cut = true;
        }
    }

    fn finish(mut self) -> CaptureReport {
        let queues = &self.report.queues;
        let total: u64 = queues.iter().sum();
        let fullest = queues.iter().copied().max().unwrap_or(0);
        self.report.skew = if total == 0 { 0.0 } else { fullest as f64 * queues.len() as f64 / total as f64 };
        self.report.keys = self.keys.len();
        let mut keys: Vec<_> = self.keys.into_iter().collect();
        // By count; then by key, so that the order is always the same.
        keys.sort_unstable_by_key(|((rule, key), (_, count))| (std::cmp::Reverse(*count), *rule, *key));
        keys.truncate(HEAVIEST);
        let name =
            |rule: u16| self.report.rules.get(usize::from(rule)).map_or_else(String::new, |r| r.name.clone());
        let heaviest = keys
            .into_iter()
            .map(|((rule, key), (queue, datagrams))| KeyCount { rule: name(rule), key, queue, datagrams })
            .collect();
        self.report.heaviest = heaviest;
        self.report
    }
}

/// A packet of any link type we know as a datagram.
fn parse(link: Option<Linktype>, data: &[u8]) -> Result<Udp<'_>, FrameDrop> {
    let behind = |at: usize| data.get(at..).ok_or(FrameDrop::Malformed);
    let ether_type = |at: usize| {
        data.get(at..at + 2)
            .and_then(|b| b.first_chunk())
            .map(|b| u16::from_be_bytes(*b))
            .ok_or(FrameDrop::Malformed)
    };
    let by_version = |packet| match <[u8]>::first(packet).map(|b| b >> 4) {
        Some(4) => packet::parse_network(ETH_P_IP, packet),
        Some(6) => packet::parse_network(ETH_P_IPV6, packet),
        _ => Err(FrameDrop::Foreign),
    };
    match link {
        Some(Linktype::ETHERNET) => packet::parse_ethernet(data),
        Some(Linktype::LINUX_SLL) => packet::parse_network(ether_type(14)?, behind(16)?),
        Some(Linktype::LINUX_SLL2) => packet::parse_network(ether_type(0)?, behind(20)?),
        // A host-order address family of four bytes, whose numbers differ; the version says the same.
        Some(Linktype::NULL) => by_version(behind(4)?),
        Some(Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 | Linktype(12)) => by_version(data),
        _ => Err(FrameDrop::Foreign),
    }
}
