//! The kernel's counters for one member.

use std::os::fd::OwnedFd;

use libc::{PACKET_ROLLOVER_STATS, PACKET_STATISTICS, SOL_PACKET};

use crate::sys::socket;

/// Names of the counters of `struct tpacket_rollover_stats`: frames that a member had no room for and that went to another,
/// those of them that belonged to a flow which fills rings, and those that no member had room for.
pub(super) const ROLLOVER: [&str; 3] = ["rollover_all", "rollover_huge", "rollover_failed"];

/// Counters since the member was opened, whatever sockets it had.
#[derive(Default)]
pub(super) struct Statistics {
    /// Frames that the filter let through, those dropped included.
    pub(super) packets: u64,
    /// Frames for which the ring had no room.
    pub(super) drops: u64,
    /// Times that the kernel found the next block not given back (V3 only).
    pub(super) freezes: u64,
    /// [`ROLLOVER`] of the sockets that the member moved away from.
    rollover_before: [u64; 3],
}

impl Statistics {
    /// Adds what the socket counted since it was last read: reading PACKET_STATISTICS sets the kernel's counters to zero
    /// (packet(7)).
    pub(super) fn read(&mut self, fd: &OwnedFd) {
        // struct tpacket_stats_v3: packets (with drops), drops, freeze count. That of V2 ends before the third.
        if let Ok([packets, drops, freezes]) = socket::get_words::<3>(fd, SOL_PACKET, PACKET_STATISTICS) {
            self.packets += u64::from(packets);
            self.drops += u64::from(drops);
            self.freezes += u64::from(freezes);
        }
    }

    /// Adds all that is left in a socket that the member moves away from. `rollover` says whether its group rolls over.
    pub(super) fn read_last(&mut self, fd: &OwnedFd, rollover: bool) {
        self.read(fd);
        if rollover {
            self.rollover_before = self.rollover(fd);
        }
    }

    /// Returns [`ROLLOVER`] since the member was opened. PACKET_ROLLOVER_STATS counts since the socket was made (since Linux
    /// 4.3; net/packet/af_packet.c, `packet_getsockopt`).
    pub(super) fn rollover(&self, fd: &OwnedFd) -> [u64; 3] {
        let words = socket::get_words::<6>(fd, SOL_PACKET, PACKET_ROLLOVER_STATS).unwrap_or_default();
        let mut sums = self.rollover_before;
        for (sum, pair) in sums.iter_mut().zip(words.chunks_exact(2)) {
            let bytes = [pair[0].to_ne_bytes(), pair[1].to_ne_bytes()].concat();
            *sum += u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        sums
    }
}
