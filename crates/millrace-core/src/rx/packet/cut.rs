//! The moment at which one group's frames end and the next one's begin.
//!
//! While a new group takes over both groups get every frame, and the frame's time of arrival decides whose it is: the
//! old group's before the cut, the new one's from then on. That is exact because both rings are told the same time. The
//! stack stamps a packet once, on its way in and before any packet socket sees it, while at least one socket asks for
//! times (SO_TIMESTAMPNS; Documentation/networking/timestamping.rst, net/core/dev.c `net_timestamp_check`), and a ring
//! takes that stamp; without one each ring would read the clock for itself (`tpacket_rcv`).
//!
//! It does not matter whether the clock is right. Only one that is set back between the cut and the end of the old
//! group would hide frames, and then as many as arrive in the time they are set back by, at most [`OVERLAP`].

use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, AtomicU64, Ordering, fence},
    thread,
    time::{Duration, Instant},
};

use crate::{
    config::{EngineConfig, Tpacket},
    datagram::Timestamp,
    rx::socket::sys,
};

/// No cut yet.
const NONE: u64 = 0;
/// One is being set.
const PENDING: u64 = u64::MAX;
/// The cut lies so far ahead when it is made known, ns: more than CPUs' clocks differ.
const LEAD: u64 = 1_000_000;
/// Older frames than this before the cut were never in both groups, ns. A limit in case the clock is set back later.
const OVERLAP: u64 = 200_000_000;
/// The kernel starts to stamp in a work item of its own, which a busy machine may delay: until a stamped frame has been
/// seen, but no longer than this. Where so little arrives it is unlikely that anything does at the moment of the cut.
const UNTIL_STAMPED: Duration = Duration::from_millis(100);
/// Packets that came in before that are through the stack by then.
const UNTIL_THROUGH: Duration = Duration::from_millis(5);

/// The last cut.
pub(super) struct Cut {
    /// ns since the epoch.
    at: AtomicU64,
    /// Somebody waits for a frame that the stack has stamped.
    awaits_stamp: AtomicBool,
}

impl Cut {
    pub(super) fn none() -> Self {
        Cut { at: AtomicU64::new(NONE), awaits_stamp: AtomicBool::new(false) }
    }

    /// Sets the cut a moment ahead and returns when it has passed. From before the call on both groups must get frames.
    pub(super) fn make(&self) {
        // Who looked at a frame without seeing PENDING did so before the clock is read below: the frame is from before the
        // cut. Who sees it waits. So nobody takes a frame from the old group that the cut gives to the new one.
        self.at.store(PENDING, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.at.store(nanos(Timestamp::now()) + LEAD, Ordering::Release);
        thread::sleep(Duration::from_nanos(LEAD));
    }

    /// The cut. To be asked after the frame was found: see [`Cut::make`].
    #[inline]
    pub(super) fn at(&self) -> u64 {
        match self.at.load(Ordering::Acquire) {
            PENDING => self.wait(),
            at => at,
        }
    }

    #[cold]
    fn wait(&self) -> u64 {
        loop {
            thread::yield_now();
            let at = self.at.load(Ordering::Acquire);
            if at != PENDING {
                return at;
            }
        }
    }

    /// Whether a frame in the ring of a group counts there. `since` is the cut that the group began with.
    #[inline]
    pub(super) fn counts(&self, since: u64, time: Timestamp) -> bool {
        let at = self.at();
        if at == NONE {
            return true;
        }
        let time = nanos(time);
        if at == since { time >= at || at - time > OVERLAP } else { time < at }
    }

    /// To be told after each pass whether its last frame was stamped by the stack.
    #[inline]
    pub(super) fn saw(&self, stamped: bool) {
        if stamped && self.awaits_stamp.load(Ordering::Relaxed) {
            self.awaits_stamp.store(false, Ordering::Relaxed);
        }
    }
}

fn nanos(t: Timestamp) -> u64 {
    u64::from(t.secs) * 1_000_000_000 + u64::from(t.nanos)
}

/// While it lives the stack stamps every packet, once.
pub(super) struct Stamped {
    _asks: OwnedFd,
}

impl Stamped {
    /// Returns when the kernel has begun, as far as can be told.
    pub(super) fn begin(cut: &Cut) -> io::Result<Self> {
        let asks = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        cut.awaits_stamp.store(true, Ordering::Relaxed);
        sys::set_int(&asks, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        let start = Instant::now();
        while cut.awaits_stamp.load(Ordering::Relaxed) && start.elapsed() < UNTIL_STAMPED {
            thread::sleep(Duration::from_millis(1));
        }
        cut.awaits_stamp.store(false, Ordering::Relaxed);
        thread::sleep(UNTIL_THROUGH);
        Ok(Stamped { _asks: asks })
    }
}

/// How long both groups get frames after the cut: until what was stamped before it has come through the stack. The new
/// rings fill meanwhile, so no more than a part of what they hold.
pub(super) fn overlap(config: &EngineConfig) -> Duration {
    match config.tpacket {
        // A block is used up each millisecond.
        Tpacket::V3 => Duration::from_millis(u64::from(config.packet_blocks / 4).clamp(1, 50)),
        Tpacket::V2 => Duration::from_millis(4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(nanos: u64) -> Timestamp {
        Timestamp { secs: (nanos / 1_000_000_000) as u32, nanos: (nanos % 1_000_000_000) as u32 }
    }

    #[test]
    fn every_time_counts_in_one_group() {
        let cut = Cut::none();
        assert!(cut.counts(NONE, time(5)));
        cut.make();
        let first = cut.at();
        assert!(nanos(Timestamp::now()) >= first);
        for t in [first - OVERLAP, first - 1, first, first + 1, first + OVERLAP] {
            assert_eq!(cut.counts(NONE, time(t)), t < first);
            assert_eq!(cut.counts(first, time(t)), t >= first);
        }
        assert!(cut.counts(first, time(first - OVERLAP - 1)), "the clock was set back");
        cut.make();
        assert!(cut.at() > first);
        assert!(cut.counts(first, time(first)) && !cut.counts(first, time(cut.at())));
        assert!(!cut.counts(cut.at(), time(cut.at() - 1)) && cut.counts(cut.at(), time(cut.at())));
    }
}
