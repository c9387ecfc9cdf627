//! Frames from templates: the headers of a flow are made once, then only lengths, payload and checksums change.

use millrace_core::packet::build::{Frame, fold, ones_sum};

use crate::{config::RunConfig, destination::Destination, payload::Payload};

/// First source port of the raw paths: the start of the dynamic range (RFC 6335).
const FIRST_PORT: u16 = 49_152;
const ETHERNET: usize = 14;

/// The headers of one flow.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    header: Vec<u8>,
    v4: bool,
    /// Sum of the IPv4 header without length and checksum.
    ip_sum: u32,
    /// Sum of the pseudo header and the ports, without the lengths.
    udp_sum: u32,
}

impl Template {
    /// Takes the headers of `frame`, which must carry neither VLAN tags nor options.
    pub(crate) fn new(frame: &Frame) -> Self {
        let mut header = Frame { checksum: false, ..frame.clone() }.bytes(&[]);
        let v4 = frame.dst.is_ipv4();
        let udp = header.len() - 8;
        // The length fields of the prebuilt header are for no payload; the sums leave them out.
        header[udp + 4..udp + 8].fill(0);
        let addresses = if v4 {
            header[ETHERNET + 2..ETHERNET + 4].fill(0);
            header[ETHERNET + 10..ETHERNET + 12].fill(0);
            ETHERNET + 12..udp
        } else {
            ETHERNET + 8..udp
        };
        let ip_sum = if v4 { ones_sum(0, &header[ETHERNET..udp]) } else { 0 };
        let ports = ones_sum(17, &header[udp..udp + 4]);
        let udp_sum = ones_sum(ports, &header[addresses]);
        Template { header, v4, ip_sum, udp_sum }
    }

    /// Frame bytes with a payload of `size`.
    pub(crate) fn len(&self, size: usize) -> usize {
        self.header.len() + size
    }

    /// Writes a whole frame; `out` is as long as [`Template::len`] says, `fill` writes the payload.
    #[inline]
    pub(crate) fn write(&self, out: &mut [u8], fill: impl FnOnce(&mut [u8])) {
        let (header, payload) = out.split_at_mut(self.header.len());
        header.copy_from_slice(&self.header);
        fill(payload);
        // At most 65,507 + 8 + 20: the MTU was checked, and it is 16 bits where it matters.
        let udp_len = (payload.len() + 8) as u16;
        let udp = self.header.len() - 8;
        if self.v4 {
            let total = udp_len + 20;
            put_u16(header, ETHERNET + 2, total);
            put_u16(header, ETHERNET + 10, !fold(self.ip_sum + u32::from(total)));
        } else {
            put_u16(header, ETHERNET + 4, udp_len);
        }
        put_u16(header, udp + 4, udp_len);
        // The length counts twice: in the pseudo header and in the UDP header.
        let sum = u64::from(self.udp_sum) + 2 * u64::from(udp_len) + u64::from(checksum_words(payload));
        let sum = !fold((sum & 0xffff_ffff) as u32 + (sum >> 32) as u32);
        // RFC 768: a computed zero is sent as all ones.
        put_u16(header, udp + 6, if sum == 0 { 0xffff } else { sum });
    }
}

#[inline]
fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Returns `ones_sum(0, bytes)` folded to 16 bits, computed four bytes at a time: RFC 1071 allows any word size, because the
/// carry goes round.
#[inline]
fn checksum_words(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    let mut chunks = bytes.chunks_exact(4);
    for c in &mut chunks {
        sum += u64::from(u32::from_be_bytes([c[0], c[1], c[2], c[3]]));
    }
    let mut tail = [0; 4];
    let rest = chunks.remainder();
    tail[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_be_bytes(tail));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The frames of one thread's flows, taken in turn: number `n` goes to flow `n % flows` of the thread.
#[derive(Debug)]
pub(crate) struct Frames {
    templates: Vec<Template>,
    config: RunConfig,
    sizes: crate::config::Sizes,
    payload: Payload,
}

impl Frames {
    pub(crate) fn new(config: &RunConfig, destination: &Destination, flows: &[u32]) -> Self {
        let base = config.src_port.unwrap_or(FIRST_PORT);
        let source = destination.source.unwrap_or(destination.target);
        let templates = flows
            .iter()
            .map(|&flow| {
                // 16,384 flows from 49,152 on end at 65,535; with --src-port the config was checked.
                let port = base.wrapping_add(flow as u16);
                let frame = Frame {
                    src_mac: destination.src_mac,
                    dst_mac: destination.dst_mac,
                    ..Frame::new((source, port), (destination.target, destination.port(flow)))
                };
                Template::new(&frame)
            })
            .collect();
        Frames {
            templates,
            config: config.clone(),
            sizes: config.effective_sizes(),
            payload: config.payload.clone(),
        }
    }

    /// Bytes of the largest frame.
    pub(crate) fn largest(&self) -> usize {
        self.templates[0].len(usize::from(self.sizes.last))
    }

    /// Bytes of frame `n`.
    #[inline]
    pub(crate) fn len(&self, n: u64) -> usize {
        self.templates[0].len(self.sizes.of(n))
    }

    /// Writes frame `n`.
    #[inline]
    pub(crate) fn write(&self, n: u64, out: &mut [u8]) {
        let template = match self.templates.len() {
            1 => &self.templates[0],
            flows => &self.templates[(n % flows as u64) as usize],
        };
        template.write(out, |payload| self.payload.write(n, self.config.seed, payload));
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_template_writes_what_the_builder_builds() {
        for (src, dst) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::ffff")] {
            let ip = |a: &str| a.parse::<IpAddr>().unwrap();
            let frame = Frame::new((ip(src), 50_000), (ip(dst), 9));
            let template = Template::new(&frame);
            for size in (0..300).chain([1472, 8972, 65_000]) {
                for byte in [0, 0xff, 0x5a] {
                    let payload = vec![byte; size];
                    let mut out = vec![1; template.len(size)];
                    template.write(&mut out, |p| p.copy_from_slice(&payload));
                    assert_eq!(out, frame.bytes(&payload), "{dst} size {size} byte {byte}");
                }
            }
        }
    }

    #[test]
    fn a_checksum_of_zero_becomes_all_ones() {
        let ip = |a: &str| a.parse::<IpAddr>().unwrap();
        let frame = Frame::new((ip("192.0.2.1"), 1), (ip("192.0.2.2"), 2));
        let template = Template::new(&frame);
        let mut zeroes = 0;
        for word in 0..=u16::MAX {
            let mut out = vec![0; template.len(2)];
            template.write(&mut out, |p| p.copy_from_slice(&word.to_be_bytes()));
            assert_ne!(out[40..42], [0, 0]);
            zeroes += u32::from(out[40..42] == [0xff, 0xff]);
        }
        // Two words (0 and 0xffff stand for the same) would make the sum zero; at least one exists.
        assert!(zeroes >= 1);
    }
}
