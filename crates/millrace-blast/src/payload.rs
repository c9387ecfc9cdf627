//! The payload of a datagram: a running number, and a fill that the receiver can recompute.

use std::{fmt, str::FromStr};

use millrace_core::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};

/// 2^64 / golden ratio: the usual odd step of SplitMix64-like generators.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Byte order of the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Endian {
    /// Network order.
    #[default]
    Be,
    /// Little-endian.
    Le,
}

/// Position and format of the running number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Offset of its first byte in the payload.
    pub offset: u16,
    /// Bytes: 4 (the number modulo 2^32) or 8.
    pub width: u8,
    /// Byte order.
    pub endian: Endian,
}

impl Default for Counter {
    fn default() -> Self {
        Counter { offset: 0, width: 4, endian: Endian::Be }
    }
}

/// The bytes of the payload outside the counter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// Derived from the number alone, see [`payload`].
    #[default]
    Pattern,
    /// Pseudo-random, reproducible from (seed, number).
    Random,
    /// These bytes, repeated up to the size of the datagram. Never empty.
    Bytes(Vec<u8>),
}

/// How payloads are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// The running number; `None` sends none (the receiver then can only count).
    pub counter: Option<Counter>,
    /// All other bytes.
    pub fill: Fill,
}

impl Default for Payload {
    fn default() -> Self {
        Payload { counter: Some(Counter::default()), fill: Fill::Pattern }
    }
}

/// The default payload of datagram number `n` with `size` bytes: what a receiver compares with, byte for byte.
///
/// - Byte `j` of the fill is byte `j % 8`, little-endian, of `mix(n mod 2^32) + (j / 8) * 0x9e3779b97f4a7c15`
///   (wrapping), where `mix` is the finaliser of SplitMix64. Only the low 32 bits of `n` count, because those are
///   what a receiver finds in the datagram.
/// - Bytes 0..4 are then overwritten by `n mod 2^32` in network order. A datagram of 0 to 3 bytes holds as many of
///   the counter's **first** (most significant) bytes as fit, and so does not carry its number.
pub fn payload(n: u64, size: usize) -> Vec<u8> {
    let mut out = vec![0; size];
    Payload::default().write(n, 0, &mut out);
    out
}

/// The number in a default payload; `None` when it is too short to hold one.
pub fn number(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|b| u32::from_be_bytes(*b))
}

impl Payload {
    /// Fills `out` with the payload of datagram `n`. `seed` matters for [`Fill::Random`] only.
    #[inline]
    pub fn write(&self, n: u64, seed: u64, out: &mut [u8]) {
        match &self.fill {
            Fill::Pattern => {
                let base = mix(n & 0xffff_ffff);
                fill_words(out, |i| base.wrapping_add(i.wrapping_mul(STEP)));
            }
            Fill::Random => {
                let base = mix(seed ^ mix(n));
                fill_words(out, |i| mix(base.wrapping_add(i.wrapping_mul(STEP))));
            }
            Fill::Bytes(bytes) => {
                for chunk in out.chunks_mut(bytes.len().max(1)) {
                    chunk.copy_from_slice(&bytes[..chunk.len()]);
                }
            }
        }
        if let Some(counter) = self.counter {
            counter.write(n, out);
        }
    }

    /// The length of the fixed bytes, the natural size of a datagram made of them.
    pub fn natural_size(&self) -> Option<usize> {
        match &self.fill {
            Fill::Bytes(bytes) => Some(bytes.len()),
            _ => None,
        }
    }
}

impl Counter {
    #[inline]
    fn write(self, n: u64, out: &mut [u8]) {
        let Some(room) = out.get_mut(usize::from(self.offset)..) else { return };
        let width = usize::from(self.width);
        let bytes = match self.endian {
            Endian::Be => (n << (64 - 8 * width)).to_be_bytes(),
            Endian::Le => n.to_le_bytes(),
        };
        let fits = width.min(room.len());
        room[..fits].copy_from_slice(&bytes[..fits]);
    }
}

/// Fills `out` with little-endian words; the last one is truncated to what is left.
#[inline]
fn fill_words(out: &mut [u8], word: impl Fn(u64) -> u64) {
    let mut i = 0;
    let mut chunks = out.chunks_exact_mut(8);
    for chunk in &mut chunks {
        chunk.copy_from_slice(&word(i).to_le_bytes());
        i += 1;
    }
    let tail = chunks.into_remainder();
    tail.copy_from_slice(&word(i).to_le_bytes()[..tail.len()]);
}

/// SplitMix64's finaliser: every input bit reaches every output bit.
#[inline]
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One `--payload` argument of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadArgument {
    /// `counter@OFF`
    Counter(u16),
    /// `random`, `hex:…`, `file:PATH`
    Fill(Fill),
}

impl FromStr for PayloadArgument {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(
                Code::Config,
                format!("payload {text:?}: {why}; expected counter@OFFSET, random, hex:DIGITS or file:PATH"),
            )
        };
        if text == "random" {
            Ok(PayloadArgument::Fill(Fill::Random))
        } else if text == "counter" {
            Ok(PayloadArgument::Counter(0))
        } else if let Some(offset) = text.strip_prefix("counter@") {
            offset
                .parse()
                .map(PayloadArgument::Counter)
                .map_err(|_| bad("the offset is no number from 0 to 65535"))
        } else if let Some(digits) = text.strip_prefix("hex:") {
            let bytes =
                unhex(digits).ok_or_else(|| bad("an even, non-zero number of hex digits is needed"))?;
            Ok(PayloadArgument::Fill(Fill::Bytes(bytes)))
        } else if let Some(path) = text.strip_prefix("file:") {
            let bytes = std::fs::read(path).map_err(|e| bad(&format!("cannot read the file: {e}")))?;
            match bytes.len() {
                0 => Err(bad("the file is empty")),
                1..=65_507 => Ok(PayloadArgument::Fill(Fill::Bytes(bytes))),
                n => Err(bad(&format!("the file has {n} bytes, more than a datagram's 65507"))),
            }
        } else {
            Err(bad("unknown kind"))
        }
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let d: Vec<u8> =
        digits.chars().filter(|c| !matches!(c, ' ' | ':' | '_')).map(nibble).collect::<Option<_>>()?;
    (!d.is_empty() && d.len().is_multiple_of(2)).then(|| d.chunks(2).map(|p| p[0] << 4 | p[1]).collect())
}

fn nibble(c: char) -> Option<u8> {
    c.to_digit(16).and_then(|d| u8::try_from(d).ok())
}

impl Payload {
    /// The payload that the arguments of a command line describe: at most one counter and at most one fill. Without any it is
    /// the default, and a fill without a counter is sent without one.
    ///
    /// # Errors
    /// Two counters or two fills.
    pub fn from_arguments(arguments: &[PayloadArgument], width: u8, endian: Endian) -> Result<Self> {
        let mut counter = None;
        let mut fill = None;
        for argument in arguments {
            let twice = match argument {
                PayloadArgument::Counter(offset) => {
                    counter.replace(Counter { offset: *offset, width, endian }).map(|_| "counter")
                }
                PayloadArgument::Fill(f) => fill.replace(f.clone()).map(|_| "fill (random, hex, file)"),
            };
            if let Some(what) = twice {
                return Err(Error::new(Code::Config, format!("payload: two of {what} given; expected one")));
            }
        }
        if arguments.is_empty() {
            counter = Some(Counter { offset: 0, width, endian });
        }
        Ok(Payload { counter, fill: fill.unwrap_or_default() })
    }
}

impl fmt::Display for Endian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Endian::Be => "be",
            Endian::Le => "le",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_payload_is_pinned() {
        // Receivers written in other languages rely on these bytes.
        assert_eq!(payload(1, 20)[..4], [0, 0, 0, 1]);
        let base = mix(1);
        assert_eq!(payload(1, 20)[4..8], base.to_le_bytes()[4..]);
        assert_eq!(payload(1, 20)[8..16], base.wrapping_add(STEP).to_le_bytes());
        assert_eq!(payload(1, 20)[16..], base.wrapping_add(STEP.wrapping_mul(2)).to_le_bytes()[..4]);
        // SplitMix64 with seed 1234567 gives 6457827717110365317 first (the published test value).
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
    }

    #[test]
    fn small_datagrams_hold_a_truncated_counter() {
        let n = 0x0102_0304;
        for size in 0..4 {
            assert_eq!(payload(n, size), [1, 2, 3, 4][..size]);
            assert_eq!(number(&payload(n, size)), None);
        }
        assert_eq!(number(&payload(n, 4)), Some(0x0102_0304));
    }

    #[test]
    fn only_the_low_32_bits_show() {
        assert_eq!(payload(7, 100), payload(7 + (1 << 32), 100));
        assert_ne!(payload(7, 100), payload(8, 100));
    }

    #[test]
    fn counters_of_every_kind() {
        let with = |offset, width, endian| Payload {
            counter: Some(Counter { offset, width, endian }),
            fill: Fill::Bytes(vec![0xaa, 0xbb]),
        };
        let made = |p: &Payload, n| {
            let mut out = [0; 10];
            p.write(n, 0, &mut out);
            out
        };
        let n = 0x1122_3344_5566_7788;
        assert_eq!(
            made(&with(1, 4, Endian::Be), n),
            [0xaa, 0x55, 0x66, 0x77, 0x88, 0xbb, 0xaa, 0xbb, 0xaa, 0xbb]
        );
        assert_eq!(made(&with(1, 4, Endian::Le), n)[1..5], [0x88, 0x77, 0x66, 0x55]);
        assert_eq!(made(&with(2, 8, Endian::Be), n)[2..], n.to_be_bytes());
        assert_eq!(made(&with(8, 8, Endian::Be), n)[8..], [0x11, 0x22]);
        assert_eq!(made(&with(10, 4, Endian::Be), n), made(&with(99, 4, Endian::Be), n));
    }

    #[test]
    fn random_depends_on_seed_and_number() {
        let p = Payload { counter: None, fill: Fill::Random };
        let made = |n, seed| {
            let mut out = [0; 33];
            p.write(n, seed, &mut out);
            out
        };
        assert_eq!(made(1, 2), made(1, 2));
        assert_ne!(made(1, 2), made(2, 2));
        assert_ne!(made(1, 2), made(1, 3));
    }

    #[test]
    fn parts_parse() {
        assert_eq!("counter@12".parse::<PayloadArgument>().unwrap(), PayloadArgument::Counter(12));
        assert_eq!(
            "hex:00fF".parse::<PayloadArgument>().unwrap(),
            PayloadArgument::Fill(Fill::Bytes(vec![0, 255]))
        );
        for bad in ["counter@x", "counter@70000", "hex:", "hex:0", "hex:zz", "file:/nonexistent", "noise", ""]
        {
            let e = bad.parse::<PayloadArgument>().unwrap_err().to_string();
            assert!(e.starts_with("MILLRACE_E_CONFIG") && !e.contains('\n'), "{e}");
        }
        let parts = [PayloadArgument::Counter(0), PayloadArgument::Fill(Fill::Random)];
        assert_eq!(Payload::from_arguments(&parts, 4, Endian::Be).unwrap().counter, Some(Counter::default()));
        assert_eq!(Payload::from_arguments(&parts[1..], 4, Endian::Be).unwrap().counter, None);
        assert_eq!(Payload::from_arguments(&[], 4, Endian::Be).unwrap(), Payload::default());
        assert!(
            Payload::from_arguments(
                &[PayloadArgument::Counter(0), PayloadArgument::Counter(4)],
                4,
                Endian::Be
            )
            .is_err()
        );
    }
}
