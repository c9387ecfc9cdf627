//! The losses of a socket: the kernel's counter `sk_drops`, 32 bits, widened by its owner.
//!
//! It is read by SO_MEMINFO, one system call for each socket, and not from SO_RXQ_OVFL, which is the same counter but costs
//! a control message on every datagram. Besides a full receive buffer it counts what the stack threw away at this socket
//! for want of memory (net.ipv4.udp_mem), what a socket filter dropped, and those datagrams with a wrong UDP checksum that
//! poll(2) was the first to find. Other wrong checksums are in no socket's counter: short datagrams (up to 76 bytes) are
//! checked before a socket is looked up, long ones when they are read, and recvmmsg(2) does not count them for the socket
//! (measured on 6.18); see [`super::checksum_errors`].

use std::os::fd::OwnedFd;

use crate::sys::socket;

/// SO_MEMINFO (asm-generic/socket.h), since Linux 4.12. Its value is an array of 32-bit words (linux/sock_diag.h).
const SO_MEMINFO: libc::c_int = 55;
/// `SK_MEMINFO_VARS`: the number of words.
const SK_MEMINFO_VARS: usize = 9;
/// `SK_MEMINFO_DROPS`: the index of the word that is `sk_drops`.
const SK_MEMINFO_DROPS: usize = 8;

/// The value of a socket's `sk_drops` when it was last read.
#[derive(Default)]
pub(crate) struct DropCounter {
    last: u32,
}

impl DropCounter {
    /// Reads the counter and returns how many datagrams were dropped since it was last read. It must be read before the
    /// kernel's 32 bits wrap twice.
    pub(crate) fn read_new(&mut self, fd: &OwnedFd) -> u64 {
        // This cannot fail on an open socket of Linux 4.12 or later; before that, no loss is seen.
        match socket::get_words::<SK_MEMINFO_VARS>(fd, libc::SOL_SOCKET, SO_MEMINFO) {
            Ok(words) => self.advance(words[SK_MEMINFO_DROPS]),
            Err(_) => 0,
        }
    }

    fn advance(&mut self, now: u32) -> u64 {
        let new = now.wrapping_sub(self.last);
        self.last = now;
        new.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_counter_survives_its_wrap() {
        let mut drops = DropCounter::default();
        let lost: u64 = [u32::MAX - 1, 3, 3].into_iter().map(|now| drops.advance(now)).sum();
        assert_eq!(lost, u64::from(u32::MAX - 1) + 5);
        assert_eq!(drops.advance(10), 7);
    }
}
