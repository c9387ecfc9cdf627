//! UDP checksum errors, as the network namespace counts them (`InCsumErrors` of /proc/net/snmp and snmp6, proc(5)). Most
//! such datagrams are thrown away before a socket is looked up, so the number covers the whole namespace, every process in
//! it included, and can only be a note.

use std::{fs::File, os::unix::fs::FileExt};

/// The two tables. They are opened once, because an open file of /proc/net stays with the namespace it was opened in.
pub(super) struct ChecksumErrors {
    v4: Option<File>,
    v6: Option<File>,
    /// The sum of both when they were opened.
    start: u64,
}

impl ChecksumErrors {
    /// Counts from now on, in the network namespace of the calling thread.
    pub(super) fn new() -> Self {
        let open = |table: &str| File::open(format!("/proc/thread-self/net/{table}")).ok();
        let mut errors = ChecksumErrors { v4: open("snmp"), v6: open("snmp6"), start: 0 };
        errors.start = errors.total();
        errors
    }

    /// Errors since [`ChecksumErrors::new`].
    pub(super) fn count(&self) -> u64 {
        self.total().saturating_sub(self.start)
    }

    fn total(&self) -> u64 {
        let v4 = self.v4.as_ref().and_then(read).as_deref().and_then(from_snmp);
        let v6 = self.v6.as_ref().and_then(read).as_deref().and_then(from_snmp6);
        v4.unwrap_or(0) + v6.unwrap_or(0)
    }
}

fn read(file: &File) -> Option<String> {
    // Both tables are a few KiB; the kernel renders them anew for a read at offset 0.
    let (mut text, mut piece) = (Vec::new(), [0u8; 4096]);
    loop {
        match file.read_at(&mut piece, text.len() as u64).ok()? {
            0 => return String::from_utf8(text).ok(),
            n => text.extend_from_slice(&piece[..n]),
        }
    }
}

/// Finds the value in /proc/net/snmp, which has a line of names and then a line of values, both starting with `Udp:`.
fn from_snmp(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|l| l.starts_with("Udp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|n| n == "InCsumErrors")?;
    values.split_whitespace().nth(at)?.parse().ok()
}

/// Finds the value in /proc/net/snmp6, whose lines are `name value`.
fn from_snmp6(text: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.starts_with("Udp6InCsumErrors"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_columns() {
        let snmp = "Tcp: InCsumErrors\nTcp: 9\nUdp: InDatagrams InCsumErrors MemErrors\nUdp: 1 7 3\nUdpLite: InCsumErrors\nUdpLite: 5\n";
        assert_eq!(from_snmp(snmp), Some(7));
        assert_eq!(from_snmp6("Udp6InErrors \t4\nUdp6InCsumErrors \t6\n"), Some(6));
        assert_eq!((from_snmp(""), from_snmp6("")), (None, None));
    }
}
