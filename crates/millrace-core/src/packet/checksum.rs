//! The UDP checksum of a datagram that was read below the stack, where the kernel has not verified it yet (RFC 768,
//! RFC 8200 §8.1).

use super::parse::Udp;
use crate::protocol::IPPROTO_UDP;

/// The state of a datagram's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumState {
    /// The checksum is right.
    Valid,
    /// No checksum was sent: the field is zero, which only IPv4 allows.
    Absent,
    /// The field holds the sum of the pseudo header alone, as the kernel leaves it for hardware to complete
    /// (CHECKSUM_PARTIAL, include/linux/skbuff.h): the sender is on this host, and the datagram never crossed a wire. One in
    /// 65,536 corrupted datagrams has that value, too.
    Partial,
    /// The checksum is wrong.
    Invalid,
}

/// Computes the checksum of a datagram and compares it with the one it has.
pub fn verify(udp: &Udp<'_>) -> ChecksumState {
    let checksum = u16::from_be_bytes([udp.header[6], udp.header[7]]);
    let v4 = udp.src.is_v4();
    if checksum == 0 {
        return if v4 { ChecksumState::Absent } else { ChecksumState::Invalid };
    }
    // A mapped address has twelve bytes before the IPv4 address that are not on the wire.
    let addresses = if v4 { [&udp.src.0[12..], &udp.dst.0[12..]] } else { [&udp.src.0[..], &udp.dst.0[..]] };
    let length = (8 + udp.payload.len()) as u64;
    let pseudo = sum(addresses[0]) + sum(addresses[1]) + length + u64::from(IPPROTO_UDP);
    if fold(pseudo + sum(udp.header) + sum(udp.payload)) == 0xffff {
        ChecksumState::Valid
    } else if checksum == fold(pseudo) {
        ChecksumState::Partial
    } else {
        ChecksumState::Invalid
    }
}

/// Adds up the big-endian 32-bit words of `bytes`, the last one padded with zeroes. Folded, the result is the sum of the
/// 16-bit words, because 2¹⁶ ≡ 1 modulo 2¹⁶ − 1.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(4);
    let mut rest = [0; 4];
    rest[..words.remainder().len()].copy_from_slice(words.remainder());
    let sum: u64 = words.map(|w| u64::from(u32::from_be_bytes([w[0], w[1], w[2], w[3]]))).sum();
    sum + u64::from(u32::from_be_bytes(rest))
}

/// Folds a sum to 16 bits, in ones' complement (RFC 1071).
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{build::Frame, parse_ethernet};

    fn frames() -> [Frame; 2] {
        [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")]
            .map(|(s, d)| Frame::new((s.parse().unwrap(), 1234), (d.parse().unwrap(), 9000)))
    }

    fn state(frame: &[u8]) -> ChecksumState {
        verify(&parse_ethernet(frame).unwrap())
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for frame in frames() {
            for size in [0, 1, 2, 3, 4, 5, 40, 1400] {
                let payload: Vec<u8> = (0..size).map(|i| (i * 7) as u8).collect();
                let mut bytes = frame.bytes(&payload);
                assert_eq!(state(&bytes), ChecksumState::Valid, "{size}");
                let first = bytes.len() - size;
                for at in first..bytes.len() {
                    bytes[at] ^= 0x10;
                    assert_ne!(state(&bytes), ChecksumState::Valid, "{size} {at}");
                    bytes[at] ^= 0x10;
                }
            }
        }
    }

    #[test]
    fn zero_is_allowed_for_ipv4_only() {
        let [v4, v6] = frames().map(|f| Frame { checksum: false, ..f }.bytes(b"abc"));
        assert_eq!((state(&v4), state(&v6)), (ChecksumState::Absent, ChecksumState::Invalid));
    }

    #[test]
    fn the_pseudo_headers_sum_is_not_ready() {
        for frame in frames() {
            let mut bytes = Frame { checksum: false, ..frame }.bytes(b"abcd");
            let udp = parse_ethernet(&bytes).unwrap();
            let skip = if udp.src.is_v4() { 12 } else { 0 };
            let pseudo = fold(sum(&udp.src.0[skip..]) + sum(&udp.dst.0[skip..]) + 12 + 17);
            let at = bytes.len() - 4 - 2;
            bytes[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
            assert_eq!(state(&bytes), ChecksumState::Partial);
        }
    }
}
