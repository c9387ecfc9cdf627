//! The UDP checksum of a datagram that was read below the stack, which nobody has verified yet (RFC 768, RFC 8200 §8.1).

use super::{IPPROTO_UDP, Udp};

/// What a checksum says about its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is right.
    Right,
    /// None was sent (zero, which only IPv4 allows).
    Absent,
    /// It holds the sum of the pseudo header alone, as the kernel leaves it for hardware to complete: a datagram of a
    /// sender on this host that never crossed a wire. One in 65,536 spoilt datagrams looks so, too.
    NotReady,
    /// It is wrong.
    Wrong,
}

/// Verifies the checksum of a datagram.
pub fn verify(udp: &Udp<'_>) -> Verdict {
    let checksum = u16::from_be_bytes([udp.header[6], udp.header[7]]);
    let v4 = udp.src.is_v4();
    if checksum == 0 {
        return if v4 { Verdict::Absent } else { Verdict::Wrong };
    }
    // Mapped addresses differ from IPv4 ones by twelve bytes that are not on the wire.
    let addresses = if v4 { [&udp.src.0[12..], &udp.dst.0[12..]] } else { [&udp.src.0[..], &udp.dst.0[..]] };
    let length = (8 + udp.payload.len()) as u64;
    let pseudo = sum(addresses[0]) + sum(addresses[1]) + length + u64::from(IPPROTO_UDP);
    if fold(pseudo + sum(udp.header) + sum(udp.payload)) == 0xffff {
        Verdict::Right
    } else if checksum == fold(pseudo) {
        Verdict::NotReady
    } else {
        Verdict::Wrong
    }
}

/// Sum of the bytes as big-endian 32-bit words; folded, it is the sum of 16-bit words, because 2¹⁶ ≡ 1 modulo 2¹⁶ − 1.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(4);
    let mut rest = [0; 4];
    rest[..words.remainder().len()].copy_from_slice(words.remainder());
    let sum: u64 = words.map(|w| u64::from(u32::from_be_bytes([w[0], w[1], w[2], w[3]]))).sum();
    sum + u64::from(u32::from_be_bytes(rest))
}

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

    fn verdict(frame: &[u8]) -> Verdict {
        verify(&parse_ethernet(frame).unwrap())
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for frame in frames() {
            for size in [0, 1, 2, 3, 4, 5, 40, 1400] {
                let payload: Vec<u8> = (0..size).map(|i| (i * 7) as u8).collect();
                let mut bytes = frame.bytes(&payload);
                assert_eq!(verdict(&bytes), Verdict::Right, "{size}");
                let first = bytes.len() - size;
                for at in first..bytes.len() {
                    bytes[at] ^= 0x10;
                    assert_ne!(verdict(&bytes), Verdict::Right, "{size} {at}");
                    bytes[at] ^= 0x10;
                }
            }
        }
    }

    #[test]
    fn zero_is_allowed_for_ipv4_only() {
        let [v4, v6] = frames().map(|f| Frame { checksum: false, ..f }.bytes(b"abc"));
        assert_eq!((verdict(&v4), verdict(&v6)), (Verdict::Absent, Verdict::Wrong));
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
            assert_eq!(verdict(&bytes), Verdict::NotReady);
        }
    }
}
