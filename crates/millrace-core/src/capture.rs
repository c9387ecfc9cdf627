//! What a rule set would have done with a capture: counts by queue and rule, skew, and the heaviest keys.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use serde::Serialize;

use crate::{
    error::{Code, Error, Result},
    packet::FrameDrop,
    packet::{self, Udp},
    protocol::{ETH_P_IP, ETH_P_IPV6},
    rule::{Facts, RuleSet, Verdict},
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
    let file = File::open(path);
    file.map_err(|e| e.to_string())
        .and_then(|file| read(rules, queues, file))
        .map_err(|what| Error::new(Code::Config, format!("capture {name}: {what}")))
}

/// The report, or what is wrong with the capture.
fn read(rules: &RuleSet, queues: u16, capture: impl Read + Send) -> Result<CaptureReport, String> {
    let mut reader = create_reader(BUFFER, Whole(capture)).map_err(|e| match e {
        PcapError::Eof => "it is empty; expected pcap or pcapng".into(),
        PcapError::Incomplete(_) => "it ends within the header of pcap or pcapng".into(),
        e => format!("this is neither pcap nor pcapng ({})", reason(&e)),
    })?;
    let mut tally = Tally::new(rules, queues);
    let mut links: Vec<Linktype> = Vec::new();
    let mut size = BUFFER;
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
            }
            Err(PcapError::Eof) => break,
            // The block ends behind what the buffer holds, or behind all that it could hold.
            Err(PcapError::Incomplete(_) | PcapError::BufferTooSmall) => {
                if reader.reader_exhausted() {
                    tally.report.truncated = true;
                    break;
                }
                // Full with this one block.
                if reader.data().len() == size {
                    size *= 2;
                    if size > LARGEST_BUFFER || !reader.grow(size) {
                        return Err(format!("a block of more than {LARGEST_BUFFER} bytes"));
                    }
                }
                reader.refill().map_err(|e| reason(&e))?;
            }
            Err(PcapError::UnexpectedEof) => {
                tally.report.truncated = true;
                break;
            }
            Err(e) => return Err(format!("after {} packets: {}", tally.report.packets, reason(&e))),
        }
    }
    Ok(tally.finish())
}

/// Fills the buffer it is given, however little a pipe hands over at a time: the parser wants the whole header from its
/// first read, and less than it has room for means the end.
struct Whole<R>(R);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(space) = buffer.get_mut(filled..).filter(|space| !space.is_empty()) {
            match self.0.read(space) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe whose writer is slow.
    struct Trickle<R>(R);

    impl<R: Read> Read for Trickle<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let some = buffer.len().min(1);
            buffer.get_mut(..some).map_or(Ok(0), |byte| self.0.read(byte))
        }
    }

    /// The header of a pcap file, then one for each packet and as many zeros as it has bytes.
    fn pcap(packets: &[u32]) -> Vec<u8> {
        let mut out = 0xa1b2_c3d4u32.to_le_bytes().to_vec();
        out.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]);
        for length in packets {
            out.extend([0; 8]);
            out.extend(length.to_le_bytes());
            out.extend(length.to_le_bytes());
            out.resize(out.len() + *length as usize, 0);
        }
        out
    }

    #[test]
    fn a_capture_may_come_byte_by_byte_and_have_blocks_longer_than_the_buffer() {
        let rules = RuleSet::compile("queue(0)", 1).unwrap();
        let file = pcap(&[60, 60, 3 * BUFFER as u32, 60, BUFFER as u32 - 16, 60]);
        for end in [file.len(), file.len() - 1] {
            let report = read(&rules, 1, Trickle(&file[..end])).unwrap();
            let whole = end == file.len();
            assert_eq!((report.packets, report.truncated), (5 + u64::from(whole), !whole));
        }
    }

    #[test]
    fn a_block_without_end_is_refused() {
        let rules = RuleSet::compile("queue(0)", 1).unwrap();
        let mut file = pcap(&[60, 0]);
        let at = file.len() - 8;
        file.splice(at..at + 4, u32::MAX.to_le_bytes());
        let e = read(&rules, 1, file.as_slice().chain(io::repeat(0))).unwrap_err();
        assert!(e.contains("a block of more than 67108864 bytes"), "{e}");
    }
}
