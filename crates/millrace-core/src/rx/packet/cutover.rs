//! The cutover: the moment at which the frames of one fanout group end and those of the next one begin.
//!
//! While a new group takes over, both groups get every frame, and the frame's time of arrival decides which of them delivers
//! it: the old group delivers what arrived before the cutover, the new one what arrived from then on. That is exact because
//! both rings get the same time. The stack stamps a packet once, on its way in and before any packet socket sees it,
//! while at least one socket requests times ([`super::stack_timestamps`]; net/core/dev.c, `net_timestamp_check`), and a ring
//! takes that stamp; without one each ring would read the clock for itself (net/packet/af_packet.c, `tpacket_rcv`).
//!
//! What overflows meanwhile has no time. Each group counts what its own rings had no room for, and so a frame that the other
//! group delivers or counts too may be among the lost. That is too much, and never too little.
//!
//! The clock need not be right. When it is set back while both groups get frames, [`Cutover::finish`] sees it, and the new
//! group begins where the clock is by then. When it is set back a moment later, frames would be hidden, as many as arrive in
//! the time it is set back by, at most [`MAX_SHARED_AGE`]; so a member stops comparing with the beginning of its group as soon
//! as nothing older can come ([`GroupStart::idle`]).

use std::{
    sync::atomic::{AtomicU64, Ordering, fence},
    thread,
    time::{Duration, Instant},
};

use super::rings::RequestedSize;
use crate::{
    config::{EngineConfig, Tpacket},
    datagram::Timestamp,
};

/// The value of [`Cutover::at`] before the first cutover.
const NONE: u64 = 0;
/// The value of [`Cutover::at`] while a cutover is being set.
const PENDING: u64 = u64::MAX;
/// How far ahead the cutover lies when it is made known, in ns. It must be more than the clocks of CPUs differ, or the old
/// group could have delivered a frame that the cutover gives to the new one. More only makes the switch longer.
const LEAD: u64 = 1_000_000;
/// The largest age, in ns, that a frame shared by both groups has at the beginning of the new group. It must exceed the time
/// in which both groups get every frame, or the new group would deliver shared frames again. The larger it is, the more frames
/// are hidden when the clock is set back just after the switch.
const MAX_SHARED_AGE: u64 = 200_000_000;
/// How long after moving to a group a member may still find frames that the old group had too, in a block not handed over yet
/// or on their way through the stack. If it were too short, such frames would be delivered again; the longer it is, the longer
/// a clock that is set back hides frames.
const SHARED_FRAMES_GONE: Duration = Duration::from_millis(250);
/// The pause between two reads of a cutover that is being set, which takes far less than a microsecond unless the thread that
/// sets it is preempted. It is a sleep and not a yield, because a receive thread with real-time priority would not let that
/// thread run. A longer pause keeps a receive thread from its ring for longer.
const PENDING_PAUSE: Duration = Duration::from_micros(50);

/// The beginning of a member's group.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupStart {
    /// The cutover that the group began with, to tell whether there has been another one since.
    cutover: u64,
    /// Frames from before this time belong to the group before, ns since the epoch; 0 when none can come any more.
    from: u64,
    /// The time at which the member moved to the group; `None` in the first group and when `from` is 0.
    moved: Option<Instant>,
}

impl GroupStart {
    /// Returns the start of the first group, which delivers everything.
    pub(super) fn first() -> Self {
        GroupStart { cutover: NONE, from: 0, moved: None }
    }

    /// The member calls this after each pass that found nothing. It forgets the start when nothing older can come.
    pub(super) fn idle(&mut self) {
        if self.moved.is_some_and(|at| at.elapsed() >= SHARED_FRAMES_GONE) {
            (self.from, self.moved) = (0, None);
        }
    }
}

/// The last cutover, shared by all members.
pub(super) struct Cutover {
    /// Time of the cutover in ns since the epoch, or [`NONE`] or [`PENDING`].
    at: AtomicU64,
    /// [`GroupStart::from`] of the group that began with it.
    from: AtomicU64,
}

impl Cutover {
    /// Returns the state before the first cutover.
    pub(super) fn none() -> Self {
        Cutover { at: AtomicU64::new(NONE), from: AtomicU64::new(0) }
    }

    /// Sets the cutover a moment ahead and returns when it has passed. Both groups must get all frames from before the call.
    pub(super) fn set(&self) {
        // A member that did not see PENDING after it found a frame did so before the clock is read below: the frame is from
        // before the cutover. A member that sees PENDING waits. So none takes a frame from the old group that the cutover
        // gives to the new one.
        self.at.store(PENDING, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.at.store(nanos(Timestamp::now()) + LEAD, Ordering::Release);
        thread::sleep(Duration::from_nanos(LEAD));
    }

    /// Fixes where the new group begins; to be called when the old group gets no more frames. The clock may have been set back
    /// since the cutover: then the old group took for its own all that came meanwhile, and the new one has what comes from now
    /// on.
    pub(super) fn finish(&self) {
        self.from.store(self.at().min(nanos(Timestamp::now())), Ordering::Release);
    }

    /// Returns the start of the group for a member that moves to it now; to be called only after [`Cutover::finish`].
    pub(super) fn group_start(&self) -> GroupStart {
        GroupStart {
            cutover: self.at(),
            from: self.from.load(Ordering::Acquire),
            moved: Some(Instant::now()),
        }
    }

    /// Returns the time of the cutover. A member must ask after it found the frame: see [`Cutover::set`].
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
            thread::sleep(PENDING_PAUSE);
            let at = self.at.load(Ordering::Acquire);
            if at != PENDING {
                return at;
            }
        }
    }

    /// Returns true when a frame that arrived at `time` is delivered by the group that begins at `start`.
    #[inline]
    pub(super) fn delivers(&self, start: &GroupStart, time: Timestamp) -> bool {
        let at = self.at();
        if at == NONE {
            return true;
        }
        let time = nanos(time);
        let begun = time >= start.from || start.from - time > MAX_SHARED_AGE;
        begun && (at == start.cutover || time < at)
    }
}

fn nanos(t: Timestamp) -> u64 {
    u64::from(t.secs) * 1_000_000_000 + u64::from(t.nanos)
}

/// Returns how long both groups get all frames after the cutover: until what was stamped before it has come through the stack.
/// A frame is stamped before it waits in a CPU's backlog, where it may stay for a few scheduler ticks. That makes 20 ms where
/// the new rings, which fill meanwhile and are not read, can bridge twice that. If it is too short, a frame from before the
/// cutover that is still in a backlog is lost; if it is too long, the new rings overflow.
pub(super) fn overlap(config: &EngineConfig) -> Duration {
    overlap_for(config.tpacket, RequestedSize::of(config).capacity)
}

/// [`overlap`] for rings of so many blocks or slots.
fn overlap_for(tpacket: Tpacket, capacity: usize) -> Duration {
    let ms = match tpacket {
        // A block is used up each millisecond.
        Tpacket::V3 => (capacity / 4).clamp(20, 50).min(capacity / 2).max(1),
        // Slots go by frames: 100 a millisecond are many for one member.
        Tpacket::V2 => (capacity / 200).clamp(4, 20),
    };
    Duration::from_millis(ms as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(nanos: u64) -> Timestamp {
        Timestamp { secs: (nanos / 1_000_000_000) as u32, nanos: (nanos % 1_000_000_000) as u32 }
    }

    /// Sets and finishes a cutover and returns the start of the group that begins there.
    fn set_and_finish(cutover: &Cutover) -> GroupStart {
        cutover.set();
        cutover.finish();
        cutover.group_start()
    }

    #[test]
    fn every_time_counts_in_one_group() {
        let (cutover, old) = (Cutover::none(), GroupStart::first());
        assert!(cutover.delivers(&old, time(5)));
        let new = set_and_finish(&cutover);
        let first = new.cutover;
        assert!(nanos(Timestamp::now()) >= first && new.from == first);
        for t in [first - MAX_SHARED_AGE, first - 1, first, first + 1, first + MAX_SHARED_AGE] {
            assert_eq!(cutover.delivers(&old, time(t)), t < first);
            assert_eq!(cutover.delivers(&new, time(t)), t >= first);
        }
        assert!(cutover.delivers(&new, time(first - MAX_SHARED_AGE - 1)), "the clock was set back");
        let newer = set_and_finish(&cutover);
        let second = newer.cutover;
        assert!(second > first);
        // What the group shared with the one before is not its own after a second cutover either.
        for (t, of) in [(first - 1, [false, false]), (first, [true, false]), (second, [false, true])] {
            assert_eq!([&new, &newer].map(|start| cutover.delivers(start, time(t))), of, "{}", t - first);
        }
    }

    #[test]
    fn the_beginning_is_forgotten_when_nothing_older_can_come() {
        let cutover = Cutover::none();
        let mut start = set_and_finish(&cutover);
        let before = time(start.from - 1000);
        start.idle();
        assert!(!cutover.delivers(&start, before));
        start.moved = start.moved.and_then(|at| at.checked_sub(SHARED_FRAMES_GONE));
        start.idle();
        assert!(cutover.delivers(&start, before), "the clock was set back a little, long after");
    }

    #[test]
    fn a_clock_set_back_during_the_overlap_neither_hides_nor_doubles() {
        let (cutover, old) = (Cutover::none(), GroupStart::first());
        cutover.set();
        // As if the cutover had been set before the clock was set back by ten seconds.
        let set_back = 10_000_000_000;
        cutover.at.fetch_add(set_back, Ordering::Relaxed);
        cutover.finish();
        let new = cutover.group_start();
        let (overlapping, later) = (time(new.from - 1_000_000), time(new.from + 1));
        assert!(cutover.delivers(&old, overlapping) && !cutover.delivers(&new, overlapping));
        assert!(cutover.delivers(&new, later), "the old group gets nothing any more");
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
