//! Reads pcap (libpcap's savefile(5)) and pcapng (draft-ietf-opsawg-pcapng) files packet by packet.

use std::io::{self, ErrorKind, Read};

use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// First size of the read buffer, in bytes; it doubles until a block fits.
const BUFFER: usize = 1 << 16;
/// Largest size of the read buffer. It bounds the memory that a file with a wrong length field can request.
const LARGEST_BUFFER: usize = 64 << 20;

/// How the reading of a capture ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) packets: u64,
    /// The capture ends in the middle of a packet.
    pub(super) truncated: bool,
}

/// Calls `packet` with the link type, if the capture tells one, and the captured bytes of every packet.
///
/// # Errors
/// The error says what is wrong with the capture, for a message.
pub(super) fn read_packets(
    capture: impl Read + Send,
    mut packet: impl FnMut(Option<Linktype>, &[u8]),
) -> Result<End, String> {
    let mut reader = create_reader(BUFFER, FillBuffer(capture)).map_err(|e| match e {
        PcapError::Eof => "it is empty; expected pcap or pcapng".into(),
        PcapError::Incomplete(_) => "it ends within the header of pcap or pcapng".into(),
        e => format!("this is neither pcap nor pcapng ({})", error_name(&e)),
    })?;
    let mut end = End { packets: 0, truncated: false };
    let mut found = |link: Option<&Linktype>, data: &[u8], captured: usize| {
        end.packets += 1;
        // Blocks of pcapng are padded to 32-bit words.
        packet(link.copied(), data.get(..captured).unwrap_or(data));
    };
    // The link types of a section's interfaces, by their number; a pcap file has just one.
    let mut links: Vec<Linktype> = Vec::new();
    let mut size = BUFFER;
    loop {
        match reader.next() {
            Ok((used, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => links = vec![header.network],
                    PcapBlockOwned::Legacy(p) => found(links.first(), p.data, p.caplen as usize),
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => links.clear(),
                    PcapBlockOwned::NG(Block::InterfaceDescription(i)) => links.push(i.linktype),
                    PcapBlockOwned::NG(Block::EnhancedPacket(p)) => {
                        found(links.get(p.if_id as usize), p.data, p.caplen as usize);
                    }
                    // Such a block has no captured length; its data is as long as the packet, or truncated at the snap length.
                    PcapBlockOwned::NG(Block::SimplePacket(p)) => {
                        found(links.first(), p.data, p.origlen as usize);
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                reader.consume(used);
            }
            Err(PcapError::Eof) => break,
            // The block ends behind what the buffer holds, or behind all that it could hold.
            Err(PcapError::Incomplete(_) | PcapError::BufferTooSmall) => {
                if reader.reader_exhausted() {
                    end.truncated = true;
                    break;
                }
                // The block fills the whole buffer.
                if reader.data().len() == size {
                    size *= 2;
                    if size > LARGEST_BUFFER || !reader.grow(size) {
                        return Err(format!("a block of more than {LARGEST_BUFFER} bytes"));
                    }
                }
                reader.refill().map_err(|e| error_name(&e))?;
            }
            Err(PcapError::UnexpectedEof) => {
                end.truncated = true;
                break;
            }
            Err(e) => return Err(format!("after {} packets: {}", end.packets, error_name(&e))),
        }
    }
    Ok(end)
}

/// A reader that fills the buffer it is given, however little a pipe hands over at a time: pcap-parser expects the whole header
/// from its first read, and takes a read that does not fill the buffer for the end of the file.
struct FillBuffer<R>(R);

impl<R: Read> Read for FillBuffer<R> {
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

/// The name of the error. Its text would repeat the input.
fn error_name<I>(e: &PcapError<I>) -> String
where
    I: std::fmt::Debug + Sized,
{
    let text = format!("{e:?}");
    text.split(['(', '{']).next().unwrap_or("unknown").trim().to_owned()
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
        let file = pcap(&[60, 60, 3 * BUFFER as u32, 60, BUFFER as u32 - 16, 60]);
        for end in [file.len(), file.len() - 1] {
            let read = read_packets(Trickle(&file[..end]), |_, _| {}).unwrap();
            let whole = end == file.len();
            assert_eq!((read.packets, read.truncated), (5 + u64::from(whole), !whole));
        }
    }

    #[test]
    fn a_block_without_end_is_refused() {
        let mut file = pcap(&[60, 0]);
        let at = file.len() - 8;
        file.splice(at..at + 4, u32::MAX.to_le_bytes());
        let e = read_packets(file.as_slice().chain(io::repeat(0)), |_, _| {}).unwrap_err();
        assert!(e.contains("a block of more than 67108864 bytes"), "{e}");
    }
}
