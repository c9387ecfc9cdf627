//! The moment at which one group's frames end and the next one's begin.
//!
//! While a new group takes over both groups get every frame, and the frame's time of arrival decides whose it is: the
//! old group's before the cut, the new one's from then on. That is exact because both rings are told the same time. The
//! stack stamps a packet once, on its way in and before any packet socket sees it, while at least one socket asks for
//! times (SO_TIMESTAMPNS; Documentation/networking/timestamping.rst, net/core/dev.c `net_timestamp_check`), and a ring
//! takes that stamp; without one each ring would read the clock for itself (`tpacket_rcv`).
//!
//! What overflows meanwhile has no time: each group counts what its own rings had no room for, and so a frame that the
//! other one delivers or counts too may be among the lost. That is too much, and never too little.
//!
//! It does not matter whether the clock is right. One that is set back while both groups get frames is seen at the end,
//! and the new group then begins where the clock was by then: see [`Cut::ended`]. One that is set back a moment later would
//! hide frames, as many as arrive in the time it is set back by, at most [`OVERLAP`]; so a member stops looking at the
//! beginning of its group as soon as nothing older can come.

use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, AtomicU64, Ordering, fence},
    thread,
    time::{Duration, Instant},
};

use super::full_ring;
use crate::{
    config::{EngineConfig, Tpacket},
    datagram::Timestamp,
    sys::socket,
};

/// No cut yet.
const NONE: u64 = 0;
/// One is being set.
const PENDING: u64 = u64::MAX;
/// The cut lies so far ahead when it is made known, ns: more than CPUs' clocks differ.
const LEAD: u64 = 1_000_000;
/// Older frames than this before the beginning were never in both groups, ns. A limit in case the clock is set back.
const OVERLAP: u64 = 200_000_000;
/// The kernel starts to stamp in a work item of its own, which a busy machine may delay: until a stamped frame has been
/// seen, but no longer than this. Where so little arrives it is unlikely that anything does at the moment of the cut.
const UNTIL_STAMPED: Duration = Duration::from_millis(100);
/// Packets that came in before that are through the stack by then.
const UNTIL_THROUGH: Duration = Duration::from_millis(5);

/// So long after moving to a group a member may still find frames that the old one had too, in a block not handed over
/// yet or on their way through the stack.
const FRESH: Duration = Duration::from_millis(250);

/// Where a member's group began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since {
    /// The cut, to tell whether there is another one by now.
    cut: u64,
    /// Frames from before belong to the group before, ns since the epoch; 0 when none can come any more.
    from: u64,
    /// When the member moved.
    moved: Option<Instant>,
}

impl Since {
    /// Of the first group.
    pub(super) fn start() -> Self {
        Since { cut: NONE, from: 0, moved: None }
    }

    /// To be told of every pass that found nothing.
    pub(super) fn idle(&mut self) {
        if self.moved.is_some_and(|at| at.elapsed() >= FRESH) {
            (self.from, self.moved) = (0, None);
        }
    }
}

/// The last cut.
pub(super) struct Cut {
    /// ns since the epoch.
    at: AtomicU64,
    /// See [`Since::from`]: of the group that began with it.
    from: AtomicU64,
    /// Somebody waits for a frame that the stack has stamped.
    awaits_stamp: AtomicBool,
}

impl Cut {
    pub(super) fn none() -> Self {
        Cut { at: AtomicU64::new(NONE), from: AtomicU64::new(0), awaits_stamp: AtomicBool::new(false) }
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

    /// To be called when the old group gets no more. The clock may have been set back since the cut: then the old group
    /// took for its own all that came meanwhile, and the new one has what comes from now on.
    pub(super) fn ended(&self) {
        self.from.store(self.at().min(nanos(Timestamp::now())), Ordering::Release);
    }

    /// Where the group begins that a member moves to now. Only after [`Cut::ended`].
    pub(super) fn begin(&self) -> Since {
        Since { cut: self.at(), from: self.from.load(Ordering::Acquire), moved: Some(Instant::now()) }
    }

    /// The cut. To be asked after the frame was found: see [`Cut::make`].
    #[inline]
    fn at(&self) -> u64 {
        match self.at.load(Ordering::Acquire) {
            PENDING => self.wait(),
            at => at,
        }
    }

    #[cold]
    fn wait(&self) -> u64 {
        loop {
            // Not a yield: a receive thread with real-time priority would not let the one run that sets it.
            thread::sleep(Duration::from_micros(50));
            let at = self.at.load(Ordering::Acquire);
            if at != PENDING {
                return at;
            }
        }
    }

    /// Whether a frame in the ring of a group counts there.
    #[inline]
    pub(super) fn counts(&self, since: &Since, time: Timestamp) -> bool {
        let at = self.at();
        if at == NONE {
            return true;
        }
        let time = nanos(time);
        let begun = time >= since.from || since.from - time > OVERLAP;
        begun && (at == since.cut || time < at)
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
        let asks = socket::open(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        cut.awaits_stamp.store(true, Ordering::Relaxed);
        socket::set_int(&asks, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        let start = Instant::now();
        while cut.awaits_stamp.load(Ordering::Relaxed) && start.elapsed() < UNTIL_STAMPED {
            thread::sleep(Duration::from_millis(1));
        }
        cut.awaits_stamp.store(false, Ordering::Relaxed);
        thread::sleep(UNTIL_THROUGH);
        Ok(Stamped { _asks: asks })
    }
}

/// How long both groups get frames after the cut: until what was stamped before it has come through the stack. A frame is
/// stamped before it waits in a CPU's backlog, where it may stay for a few scheduler ticks: 20 ms where the new rings, which
/// fill meanwhile, can bridge twice that.
pub(super) fn overlap(config: &EngineConfig) -> Duration {
    overlap_for(config.tpacket, full_ring(config).0)
}

/// For rings of so many blocks or slots.
fn overlap_for(tpacket: Tpacket, units: usize) -> Duration {
    let ms = match tpacket {
        // A block is used up each millisecond.
        Tpacket::V3 => (units / 4).clamp(20, 50).min(units / 2).max(1),
        // Slots go by frames: 100 a millisecond are many for one member.
        Tpacket::V2 => (units / 200).clamp(4, 20),
    };
    Duration::from_millis(ms as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(nanos: u64) -> Timestamp {
        Timestamp { secs: (nanos / 1_000_000_000) as u32, nanos: (nanos % 1_000_000_000) as u32 }
    }

    /// A cut, over, and the group that begins there.
    fn cut_and_end(cut: &Cut) -> Since {
        cut.make();
        cut.ended();
        cut.begin()
    }

    #[test]
    fn every_time_counts_in_one_group() {
        let (cut, old) = (Cut::none(), Since::start());
        assert!(cut.counts(&old, time(5)));
        let new = cut_and_end(&cut);
        let first = new.cut;
        assert!(nanos(Timestamp::now()) >= first && new.from == first);
        for t in [first - OVERLAP, first - 1, first, first + 1, first + OVERLAP] {
            assert_eq!(cut.counts(&old, time(t)), t < first);
            assert_eq!(cut.counts(&new, time(t)), t >= first);
        }
        assert!(cut.counts(&new, time(first - OVERLAP - 1)), "the clock was set back");
        let newer = cut_and_end(&cut);
        let second = newer.cut;
        assert!(second > first);
        // What the group shared with the one before is not its own after a second cut either.
        for (t, of) in [(first - 1, [false, false]), (first, [true, false]), (second, [false, true])] {
            assert_eq!([&new, &newer].map(|since| cut.counts(since, time(t))), of, "{}", t - first);
        }
    }

    #[test]
    fn the_beginning_is_forgotten_when_nothing_older_can_come() {
        let cut = Cut::none();
        let mut since = cut_and_end(&cut);
        let before = time(since.from - 1000);
        since.idle();
        assert!(!cut.counts(&since, before));
        since.moved = since.moved.and_then(|at| at.checked_sub(FRESH));
        since.idle();
        assert!(cut.counts(&since, before), "the clock was set back a little, long after");
    }

    #[test]
    fn a_clock_set_back_during_the_overlap_neither_hides_nor_doubles() {
        let (cut, old) = (Cut::none(), Since::start());
        cut.make();
        // As if the cut had been made before the clock was set back by ten seconds.
        let set_back = 10_000_000_000;
        cut.at.fetch_add(set_back, Ordering::Relaxed);
        cut.ended();
        let new = cut.begin();
        let (overlapping, later) = (time(new.from - 1_000_000), time(new.from + 1));
        assert!(cut.counts(&old, overlapping) && !cut.counts(&new, overlapping));
        assert!(cut.counts(&new, later), "the old group gets nothing any more");
    }

    #[test]
    fn the_overlap_is_no_more_than_the_new_rings_hold() {
        let of = |tpacket, units| overlap_for(tpacket, units).as_millis();
        for (units, ms) in [(4, 2), (20, 10), (64, 20), (128, 32), (4096, 50)] {
            assert_eq!(of(Tpacket::V3, units), ms, "{units} blocks");
        }
        for (slots, ms) in [(64, 4), (2000, 10), (8192, 20), (1 << 20, 20)] {
            assert_eq!(of(Tpacket::V2, slots), ms, "{slots} slots");
        }
    }
}
