//! Random rules and datagrams, and a classic BPF machine, for the tests that run the same rules in several places.
#![allow(dead_code, unreachable_pub)]

pub mod sockets;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use millrace_core::{
    datagram::Addr,
    packet::build::Frame,
    rule::{Facts, RuleSet, RuleState, Verdict},
};

/// The queue counts of the issue.
pub const QUEUES: [u16; 6] = [1, 2, 3, 5, 8, 64];

/// xorshift64*: the same sequence on every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Writes rule sets. Small numbers and offsets, so that tests often hold, and reads are often just in or just out.
pub struct Rules<'r> {
    pub random: &'r mut Random,
    /// Only what every target can express, most of the time.
    pub narrow: bool,
    pub queues: u16,
}

impl Rules<'_> {
    pub fn text(&mut self) -> String {
        if self.random.one_in(6) {
            return self.dispatch();
        }
        let n = 1 + self.random.below(4);
        let mut rules: Vec<String> =
            (0..n).map(|_| format!("{} => {}", self.condition(3), self.action())).collect();
        rules.push(self.action());
        rules.join("\n")
    }

    /// Many rules on one field, as the decision structure likes them.
    fn dispatch(&mut self) -> String {
        let field = self.field();
        let n = 3 + self.random.below(12);
        let mut rules = Vec::new();
        for i in 0..n {
            let (a, b) = (self.random.below(12), self.random.below(6));
            let test = match self.random.below(5) {
                0 => format!("{field} in {{{a}, {}..{}}}", a + 2, a + 3 + b),
                1 => format!("{field} {} {a}", self.random.pick(&["<", ">=", "!=", ">"])),
                2 => format!("{field} == {a} and u8[{b}] < 3"),
                _ => format!("{field} == {}", i + b),
            };
            rules.push(format!("{test} => {}", self.action()));
        }
        rules.join("\n")
    }

    fn field(&mut self) -> String {
        let at = self.random.below(12);
        let wide = if self.narrow { 12 } else { 4 };
        if self.random.one_in(wide) {
            return format!("{}[{}]", self.random.pick(&["u64", "u64le"]), self.random.below(6));
        }
        match self.random.below(12) {
            0..6 => format!("u8[{at}]"),
            6 => format!("u16[{at}]"),
            7 => format!("u16le[{at}]"),
            8 => format!("u32[{at}]"),
            9 => format!("u32le[{at}]"),
            10 => "len".into(),
            _ => self.random.pick(&["sport", "dport"]).into(),
        }
    }

    fn number(&mut self, depth: u64) -> String {
        if depth == 0 || self.random.one_in(2) {
            return self.field();
        }
        // What keeps numbers within 32 bits comes more often, or nothing would be left to compare with classic BPF.
        let ops: &[&str] = if self.narrow && !self.random.one_in(6) {
            &["&", ">>", "/", "%", "&", "^", "|"]
        } else {
            &["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"]
        };
        let left = self.number(depth - 1);
        let right = match self.random.below(4) {
            0 => format!("({})", self.number(depth - 1)),
            1 => self.field(),
            _ => self
                .random
                .pick(&[
                    "1",
                    "2",
                    "3",
                    "5",
                    "7",
                    "8",
                    "31",
                    "32",
                    "33",
                    "63",
                    "64",
                    "0xff",
                    "0xffff",
                    "0x1_0000_0001",
                ])
                .into(),
        };
        let left = if self.random.one_in(2) { left } else { format!("({left})") };
        format!("{left} {} {right}", self.random.pick(ops))
    }

    fn test(&mut self) -> String {
        let (n, m) = (self.random.below(5), self.random.below(5));
        let cmp = self.random.pick(&["==", "!=", "<", "<=", ">", ">="]);
        match self.random.below(14) {
            0..4 => format!("{} {cmp} {n}", self.number(2)),
            4 => format!("{} {cmp} {}", self.number(1), self.number(1)),
            5 => format!("{} in {}..{}", self.number(1), n.min(m), n.max(m)),
            6 => format!("{} not in {{{n}, {m}, {}..9}}", self.number(1), 5 + n),
            7 | 8 => {
                let (at, bytes) = (self.random.below(10), 1 + self.random.below(9));
                let hex: String = (0..bytes).map(|_| format!("{:02x}", self.random.below(2))).collect();
                format!("bytes[{at}..{}] {} x\"{hex}\"", at + bytes, self.random.pick(&["==", "!="]))
            }
            9 => {
                let bits = self.random.below(33) as u32;
                let net = u32::from(Ipv4Addr::new(127, 0, n as u8 / 2, m as u8))
                    & u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                let which = self.random.pick(&["src", "dst"]);
                format!(
                    "{which} in {{{}/{bits}, ::1, 10.0.0.3, 10.0.0.4, 2001:db8:0:7::/64}}",
                    Ipv4Addr::from(net)
                )
            }
            10 => self
                .random
                .pick(&[
                    "src == dst",
                    "src != 127.0.0.1",
                    "dst == ::1",
                    "src in ::/3",
                    "src in {2001:db8::/32, 2001:db9::/33}",
                ])
                .into(),
            11 => format!("len {cmp} {}", self.random.below(20)),
            12 => format!("u64[{n}] in {{0, 0x100000000..0x100000001, 0x20000000{m}..0x300000000}}"),
            _ => format!("sport {} 5003", self.random.pick(&["<", ">="])),
        }
    }

    fn condition(&mut self, depth: u64) -> String {
        if depth == 0 || self.random.one_in(3) {
            return self.test();
        }
        let two = self.random.below(2);
        let mut parts = |word: &str| {
            let n = 2 + self.random.below(2);
            let parts: Vec<String> = (0..n).map(|_| self.condition(depth - 1)).collect();
            format!("({})", parts.join(word))
        };
        match depth % 2 + two {
            0 => parts(" and "),
            1 => parts(" or "),
            _ => format!("not ({})", self.condition(depth - 1)),
        }
    }

    fn action(&mut self) -> String {
        let rare = if self.narrow { 40 } else { 5 };
        if self.random.one_in(rare) {
            return self
                .random
                .pick(&["drop", "round_robin", "random", "sample(2)", "cpu", "rxq", "hash(flow) spill"])
                .into();
        }
        let n = u64::from(self.queues);
        let on = match (self.random.below(n), self.random.below(n)) {
            (a, b) if self.random.one_in(4) => format!(" on {}..{}", a.min(b), a.max(b)),
            _ => String::new(),
        };
        match self.random.below(7) {
            0 => format!("queue({})", self.random.below(n)),
            1..4 => format!("mod({}){on}", self.number(2)),
            _ => {
                let keys: Vec<String> = (0..1 + self.random.below(3)).map(|_| self.key()).collect();
                format!("hash({}){on}", keys.join(", "))
            }
        }
    }

    fn key(&mut self) -> String {
        let (at, bytes) = (self.random.below(8), 1 + self.random.below(9));
        match self.random.below(7) {
            0 | 1 => self.number(1),
            2 => "flow".into(),
            3 => "src".into(),
            4 => "dst".into(),
            _ => format!("bytes[{at}..{}]", at + bytes),
        }
    }
}

/// A datagram, and how it is wrapped.
#[derive(Debug, Clone)]
pub struct Sample {
    pub payload: Vec<u8>,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ports: (u16, u16),
    /// Of IPv4.
    pub options: Vec<u8>,
    /// VLAN tags, outermost first.
    pub vlan: Vec<(u16, u16)>,
    /// Bytes behind the IP packet, as short Ethernet frames have them.
    pub padding: usize,
}

impl Sample {
    pub fn random(random: &mut Random) -> Self {
        let payload: Vec<u8> = (0..random.below(24))
            .map(|_| if random.one_in(5) { random.next() as u8 } else { random.below(5) as u8 })
            .collect();
        let v6 = random.one_in(3);
        let mut address = || -> IpAddr {
            match (v6, random.below(4)) {
                (false, 0) => Ipv4Addr::new(10, 0, 0, random.below(6) as u8).into(),
                (false, 1) => Ipv4Addr::from(random.next() as u32).into(),
                (false, _) => Ipv4Addr::new(127, 0, random.below(3) as u8, random.below(5) as u8).into(),
                (true, 0) => Ipv6Addr::LOCALHOST.into(),
                (true, 1) => {
                    Ipv6Addr::from(u128::from(random.next()) << 64 | u128::from(random.next())).into()
                }
                (true, _) => Ipv6Addr::new(
                    0x2001,
                    0xdb8 + random.below(2) as u16,
                    0,
                    7,
                    random.below(2) as u16,
                    0,
                    0,
                    1,
                )
                .into(),
            }
        };
        let src = address();
        let dst = address();
        let dst = if random.one_in(8) { src } else { dst };
        let options =
            if !v6 && random.one_in(3) { vec![1; 4 * (1 + random.below(10) as usize)] } else { vec![] };
        let vlan = match random.below(8) {
            0 => vec![(0x8100, 5)],
            1 => vec![(0x88a8, 5), (0x8100, 0x0800)],
            2 => vec![(0x8100, 7), (0x88a8, 0x86dd)],
            _ => vec![],
        };
        Sample {
            payload,
            src,
            dst,
            ports: (5000 + random.below(6) as u16, 6000 + random.below(2) as u16),
            options,
            vlan,
            padding: if random.one_in(3) { random.below(20) as usize } else { 0 },
        }
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts {
            payload: &self.payload,
            src: Addr::from(self.src).0,
            dst: Addr::from(self.dst).0,
            src_port: self.ports.0,
            dst_port: self.ports.1,
            rx_queue: 0,
            cpu: 0,
        }
    }

    /// The whole Ethernet frame.
    pub fn frame(&self, like: &Frame) -> Vec<u8> {
        let mut frame = Frame {
            vlan: self.vlan.clone(),
            src: self.src,
            dst: self.dst,
            src_port: self.ports.0,
            dst_port: self.ports.1,
            ipv4_options: self.options.clone(),
            ..like.clone()
        }
        .bytes(&self.payload);
        frame.resize(frame.len() + self.padding, 0x55);
        frame
    }

    /// The frame as a fanout program sees it: the outer VLAN tag went into metadata.
    pub fn at_fanout(&self) -> Packet {
        let frame = self.frame(&Frame::new((self.src, 0), (self.dst, 0)));
        let at = if self.vlan.is_empty() { 12 } else { 16 };
        Packet {
            protocol: u16::from_be_bytes([frame[at], frame[at + 1]]),
            network: at + 2,
            data: at + 2..frame.len(),
            bytes: frame,
        }
    }

    /// The frame as a reuseport program sees it.
    pub fn at_reuseport(&self) -> Packet {
        let plain = Sample { vlan: vec![], ..self.clone() };
        let mut packet = plain.at_fanout();
        let start = packet.bytes.len() - plain.padding - plain.payload.len();
        packet.data = start..start + plain.payload.len();
        packet
    }
}

/// What the evaluator says: a queue, or `None` for a drop.
pub fn evaluate(set: &RuleSet, state: &mut RuleState, sample: &Sample) -> Option<u16> {
    match set.evaluate(&sample.facts(), state) {
        Verdict::Queue { queue, .. } => Some(queue),
        Verdict::Drop { .. } => None,
    }
}

/// A packet in the kernel, as far as BPF programs see it.
#[derive(Debug, Clone)]
pub struct Packet {
    pub bytes: Vec<u8>,
    /// Offset 0 and the end.
    pub data: std::ops::Range<usize>,
    /// Of the network header.
    pub network: usize,
    pub protocol: u16,
}

const NET_OFF: i64 = -0x10_0000;
const AD_PROTOCOL: i64 = -0x1000;

impl Packet {
    fn load(&self, at: i64, width: usize) -> Option<u32> {
        if at == AD_PROTOCOL {
            return Some(self.protocol.into());
        }
        let (start, end) = match at {
            0.. => (self.data.start as i64 + at, self.data.end),
            NET_OFF..AD_PROTOCOL => (self.network as i64 + at - NET_OFF, self.bytes.len()),
            _ => panic!("load at {at}"),
        };
        let start = usize::try_from(start).ok()?;
        let bytes = self.bytes.get(start..start + width).filter(|_| start + width <= end)?;
        Some(bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
    }
}

/// Runs classic BPF as Documentation/networking/filter.rst says.
pub fn run_cbpf(program: &[libc::sock_filter], packet: &Packet) -> u32 {
    let (mut a, mut x, mut m) = (0u32, 0u32, [None::<u32>; 16]);
    let mut pc = 0;
    loop {
        let i = program[pc];
        pc += 1;
        let k = i.k;
        let operand = if i.code & 8 != 0 { x } else { k };
        let width = |code: u16| match code & 0x18 {
            0x00 => 4,
            0x08 => 2,
            _ => 1,
        };
        let signed = i64::from(k as i32);
        match i.code {
            0x00 => a = k,
            0x60 => a = m[k as usize].expect("load of a word never stored"),
            0x61 => x = m[k as usize].expect("load of a word never stored"),
            0x80 => a = packet.data.len() as u32,
            // A random word.
            0x20 if k == (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32 => a = 4,
            0x20 | 0x28 | 0x30 => match packet.load(signed, width(i.code)) {
                Some(v) => a = v,
                None => return 0,
            },
            0x40 | 0x48 | 0x50 => match packet.load(i64::from(x) + signed, width(i.code)) {
                Some(v) => a = v,
                None => return 0,
            },
            0xb1 => match packet.load(signed, 1) {
                Some(v) => x = 4 * (v & 15),
                None => return 0,
            },
            0x02 => m[k as usize] = Some(a),
            0x07 => x = a,
            0x87 => a = x,
            0x06 => return k,
            0x16 => return a,
            0x05 => pc += k as usize,
            code if code & 7 == 4 => {
                a = match code & 0xf0 {
                    0x00 => a.wrapping_add(operand),
                    0x10 => a.wrapping_sub(operand),
                    0x20 => a.wrapping_mul(operand),
                    0x30 => a / operand,
                    0x40 => a | operand,
                    0x50 => a & operand,
                    0x60 => a.checked_shl(operand).expect("shift by less than 32"),
                    0x70 => a.checked_shr(operand).expect("shift by less than 32"),
                    0x90 => a % operand,
                    0xa0 => a ^ operand,
                    op => panic!("alu {op:#x}"),
                };
            }
            code if code & 7 == 5 => {
                let yes = match code & 0xf0 {
                    0x10 => a == operand,
                    0x20 => a > operand,
                    0x30 => a >= operand,
                    0x40 => a & operand != 0,
                    op => panic!("jump {op:#x}"),
                };
                pc += usize::from(if yes { i.jt } else { i.jf });
            }
            code => panic!("instruction {code:#x}"),
        }
    }
}
