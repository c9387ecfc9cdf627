//! Finds the process that holds a UDP port, from /proc (proc(5)), as far as this process may read it.

use std::{fs, net::IpAddr, os::unix::fs::MetadataExt};

/// Describes the socket, and where it is visible the process, that conflicts with binding `address`:`port`; for example
/// `0.0.0.0:53 is held by pid 812 (coredns)`. `port` is in host order.
pub(crate) fn describe(address: IpAddr, port: u16) -> String {
    let Some((inode, uid, local)) = find_socket(address, port) else {
        return "no socket of this network namespace shows it in /proc/net/udp".into();
    };
    match find_process(inode) {
        Some((pid, name)) => format!("{local} is held by pid {pid} ({name})"),
        None => format!(
            "{local} is held by a socket of uid {uid} (inode {inode}) whose process is not visible from here: \
             another container, or another user"
        ),
    }
}

/// Returns inode, uid and printed local address of the first UDP socket that conflicts with `address`:`port`. It reads
/// /proc/thread-self/net, because /proc/net is the main thread's network namespace.
fn find_socket(address: IpAddr, port: u16) -> Option<(u64, u32, String)> {
    ["udp", "udp6"].iter().find_map(|table| {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok()?;
        text.lines().skip(1).find_map(|line| parse_line(line, address, port))
    })
}

/// Parses one line of /proc/net/udp or udp6: `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`.
/// `None` for a socket that does not conflict with `address`:`port`.
fn parse_line(line: &str, address: IpAddr, port: u16) -> Option<(u64, u32, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (hex_address, hex_port) = words.get(1)?.split_once(':')?;
    if u16::from_str_radix(hex_port, 16).ok()? != port {
        return None;
    }
    let local = parse_address(hex_address)?;
    if local != address && !local.is_unspecified() && !address.is_unspecified() {
        return None;
    }
    let local = match local {
        IpAddr::V4(a) => format!("{a}:{port}"),
        IpAddr::V6(a) => format!("[{a}]:{port}"),
    };
    Some((words.get(9)?.parse().ok()?, words.get(7)?.parse().ok()?, local))
}

/// Parses a hexadecimal address. The kernel prints addresses as 32-bit words in host order, so each word is turned back to
/// memory order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let mut bytes = [0u8; 16];
    let words = hex.len() / 8;
    for i in 0..words.min(4) {
        let word = u32::from_str_radix(hex.get(i * 8..i * 8 + 8)?, 16).ok()?;
        bytes[i * 4..i * 4 + 4].copy_from_slice(&word.to_ne_bytes());
    }
    match words {
        1 => Some(IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])),
        4 => Some(IpAddr::from(bytes)),
        _ => None,
    }
}

/// Returns pid and name of the first visible process that has the socket with this inode open.
fn find_process(inode: u64) -> Option<(u32, String)> {
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        // The descriptors of other users' processes cannot be read; they are skipped.
        let Ok(fds) = fs::read_dir(process.path().join("fd")) else { continue };
        for fd in fds.flatten() {
            // stat(2) follows the link, and for `socket:[n]` the inode number is n.
            let is_socket = fs::read_link(fd.path())
                .is_ok_and(|t| t.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
            if is_socket && fs::metadata(fd.path()).is_ok_and(|m| m.ino() == inode) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some((pid, name.trim().to_owned()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_of_both_tables() {
        let v4 = "  12: 0100007F:2328 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 4711 2 0 0";
        let any = IpAddr::from([0; 16]);
        assert_eq!(parse_line(v4, any, 9000), Some((4711, 1000, "127.0.0.1:9000".into())));
        assert_eq!(parse_line(v4, any, 9001), None);
        assert_eq!(parse_line(v4, IpAddr::from([10, 0, 0, 1]), 9000), None);
        let v6 = "  1: 00000000000000000000000001000000:2328 00000000000000000000000000000000:0000 07 0:0 0:0 0 0 0 99 2";
        assert_eq!(parse_line(v6, any, 9000), Some((99, 0, "[::1]:9000".into())));
        assert_eq!(parse_line("header", any, 9000), None);
    }
}
