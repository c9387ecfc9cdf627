//! Random datagrams, and the frames around them as the kernel's programs see them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use millrace_core::{datagram::Addr, packet::build::Frame, rule::Facts};

use super::{classic_machine::Packet, rules::Random};

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
