//! The 32-bit hash of the `hash` action. Its definition is part of the language (`docs/rules.md`, "The hash"): the
//! evaluator, the cBPF and the eBPF compiler must agree on it bit for bit, on every machine.
//!
//! It only uses what classic BPF has: 32-bit wrapping multiplication, xor and logical right shift on one accumulator,
//! with one scratch word. Every step is a bijection of the state, so keys of one word never collide.

/// State before the first word.
pub(crate) const SEED: u32 = 0x9e37_79b9;

/// The multipliers and shifts of MurmurHash3's 32-bit finalizer (fmix32), of which `step` uses the first multiplication.
pub(crate) const MULTIPLIER: u32 = 0x85eb_ca6b;
/// The finalizer's second multiplier.
pub(crate) const FINAL_MULTIPLIER: u32 = 0xc2b2_ae35;

/// The state after one more word.
#[inline(always)]
pub(crate) const fn step(state: u32, word: u32) -> u32 {
    let h = (state ^ word).wrapping_mul(MULTIPLIER);
    h ^ (h >> 15)
}

/// The hash, from the state after the last word.
#[inline(always)]
pub(crate) const fn finish(state: u32) -> u32 {
    let h = state ^ (state >> 16);
    let h = h.wrapping_mul(MULTIPLIER);
    let h = h ^ (h >> 13);
    let h = h.wrapping_mul(FINAL_MULTIPLIER);
    h ^ (h >> 16)
}

/// A number: its upper 32 bits, then its lower.
#[inline(always)]
pub(crate) const fn number(state: u32, value: u64) -> u32 {
    step(step(state, (value >> 32) as u32), value as u32)
}

/// Bytes: big-endian words, the last one filled up with zero bytes on the right.
#[inline]
pub(crate) fn bytes(mut state: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        state = step(state, u32::from_be_bytes(*word));
    }
    if rest.is_empty() {
        return state;
    }
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    step(state, u32::from_be_bytes(last))
}

/// An address: the four words of its 16 bytes.
#[inline]
pub(crate) fn address(state: u32, addr: &[u8; 16]) -> u32 {
    bytes(state, addr)
}

/// A flow: the words of both addresses in turn, then `source port << 16 | destination port`.
///
/// They alternate so that the six words which all pairs of IPv4 addresses have in common come first: for IPv4 the hash
/// starts from a constant and mixes in three words instead of nine.
#[inline]
pub(crate) fn flow(state: u32, src: &[u8; 16], dst: &[u8; 16], src_port: u16, dst_port: u16) -> u32 {
    let (s, d) = (words(src), words(dst));
    let state = if state == SEED && [s[0], s[1], s[2]] == V4 && [d[0], d[1], d[2]] == V4 {
        V4_PAIR
    } else {
        (0..3).fold(state, |h, i| step(step(h, s[i]), d[i]))
    };
    step(step(step(state, s[3]), d[3]), u32::from(src_port) << 16 | u32::from(dst_port))
}

/// The first three words of a mapped IPv4 address.
const V4: [u32; 3] = [0, 0, 0xffff];

/// State after the words that all pairs of IPv4 addresses begin with.
const V4_PAIR: u32 = {
    let h = step(step(SEED, V4[0]), V4[0]);
    let h = step(step(h, V4[1]), V4[1]);
    step(step(h, V4[2]), V4[2])
};

#[inline(always)]
fn words(addr: &[u8; 16]) -> [u32; 4] {
    let n = u128::from_be_bytes(*addr);
    [(n >> 96) as u32, (n >> 64) as u32, (n >> 32) as u32, n as u32]
}
