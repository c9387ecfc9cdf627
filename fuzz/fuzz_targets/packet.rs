//! Any bytes as a frame: a datagram found lies inside the frame, and a second parser, written from the RFCs with a cursor and
//! no regard to speed, finds the same one or refuses for the same reason.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use millrace_core::{
    packet::{checksum, parse_ethernet},
    packet::FrameDrop,
};

fuzz_target!(|frame: &[u8]| {
    let found = parse_ethernet(frame);
    if let Ok(udp) = &found {
        for part in [udp.payload, udp.header.as_slice()] {
            let (whole, part) = (frame.as_ptr_range(), part.as_ptr_range());
            assert!(whole.start <= part.start && part.end <= whole.end, "bytes from outside the frame");
        }
        // Any verdict will do, a panic will not.
        let _ = checksum::verify(udp);
    }
    let want = Cursor(frame).ethernet();
    let found = found.map(|udp| {
        let (src, dst) = (udp.src.to_ip(), udp.dst.to_ip());
        Datagram {
            src,
            dst,
            ports: (udp.src_port, udp.dst_port),
            payload: udp.payload.to_vec(),
            options: udp.options,
        }
    });
    assert_eq!(found, want);
});

#[derive(Debug, PartialEq)]
struct Datagram {
    src: IpAddr,
    dst: IpAddr,
    ports: (u16, u16),
    payload: Vec<u8>,
    options: bool,
}

type Parsed = Result<Datagram, FrameDrop>;

/// What of the frame is not read yet.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], FrameDrop> {
        if count > self.0.len() {
            return Err(FrameDrop::Malformed);
        }
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, FrameDrop> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, FrameDrop> {
        Ok(u16::from(self.u8()?) << 8 | u16::from(self.u8()?))
    }

    fn ethernet(mut self) -> Parsed {
        self.take(12)?;
        let mut ether_type = self.u16()?;
        let mut tags = 0;
        while tags < 2 && [0x8100, 0x88a8].contains(&ether_type) {
            self.take(2)?;
            ether_type = self.u16()?;
            tags += 1;
        }
        match ether_type {
            0x0800 => self.ipv4(),
            0x86dd => self.ipv6(),
            _ => Err(FrameDrop::Foreign),
        }
    }

    /// RFC 791.
    fn ipv4(mut self) -> Parsed {
        let available = self.0.len();
        let first = self.u8()?;
        let (version, header) = (first / 16, usize::from(first % 16) * 4);
        self.take(1)?;
        let total = usize::from(self.u16()?);
        self.take(2)?;
        let fragment = self.u16()?;
        self.take(1)?;
        let protocol = self.u8()?;
        self.take(2)?;
        let src: [u8; 4] = self.take(4)?.try_into().unwrap();
        let dst: [u8; 4] = self.take(4)?.try_into().unwrap();
        if version != 4 || header < 20 || header > total || total > available {
            return Err(FrameDrop::Malformed);
        }
        if protocol != 17 {
            return Err(FrameDrop::Foreign);
        }
        let (more, offset) = (fragment & 0x2000 != 0, fragment & 0x1fff);
        if more || offset != 0 {
            return Err(FrameDrop::Fragment);
        }
        self.take(header - 20)?;
        let segment = Cursor(self.take(total - header)?);
        segment.udp(src.into(), dst.into(), header != 20, false)
    }

    /// RFC 8200.
    fn ipv6(mut self) -> Parsed {
        let version = self.u8()? / 16;
        self.take(3)?;
        let length = usize::from(self.u16()?);
        let mut next = self.u8()?;
        self.take(1)?;
        let src: [u8; 16] = self.take(16)?.try_into().unwrap();
        let dst: [u8; 16] = self.take(16)?.try_into().unwrap();
        let mapped = |a: &[u8; 16]| std::net::Ipv6Addr::from(*a).to_ipv4_mapped().is_some();
        if version != 6 || length > self.0.len() || mapped(&src) || mapped(&dst) {
            return Err(FrameDrop::Malformed);
        }
        let mut rest = Cursor(self.take(length)?);
        let mut headers = 0;
        loop {
            // The parser under test stops after the ninth header of any kind.
            if headers == 9 {
                return Err(FrameDrop::Malformed);
            }
            match next {
                17 => return rest.udp(src.into(), dst.into(), headers > 0, true),
                0 | 43 | 60 => {
                    let after = rest.u8()?;
                    let more = usize::from(rest.u8()?) * 8 + 6;
                    rest.take(more)?;
                    next = after;
                }
                44 => {
                    let after = rest.u8()?;
                    rest.take(1)?;
                    let fragment = rest.u16()?;
                    rest.take(4)?;
                    if fragment >> 3 != 0 || fragment & 1 != 0 {
                        return Err(FrameDrop::Fragment);
                    }
                    next = after;
                }
                _ => return Err(FrameDrop::Foreign),
            }
            headers += 1;
        }
    }

    /// RFC 768, and RFC 2675 for a length of zero.
    fn udp(mut self, src: IpAddr, dst: IpAddr, options: bool, v6: bool) -> Parsed {
        let available = self.0.len();
        let ports = (self.u16()?, self.u16()?);
        let mut length = usize::from(self.u16()?);
        self.take(2)?;
        if v6 && length == 0 {
            length = available;
        }
        let payload = length.checked_sub(8).ok_or(FrameDrop::Malformed)?;
        Ok(Datagram { src, dst, ports, payload: self.take(payload)?.to_vec(), options })
    }
}
