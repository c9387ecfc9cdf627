//! Random rule sets.

use std::net::Ipv4Addr;

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
