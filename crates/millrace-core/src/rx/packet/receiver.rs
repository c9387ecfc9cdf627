//! One member of the fanout group: its ring, read by one thread.

use std::{mem, os::fd::OwnedFd, sync::Arc, time::Duration};

use super::{
    cutover::GroupStart,
    deliver::deliver,
    frame::Frame,
    regroup::SharedGroup,
    ring_listen::RingListen,
    rings::Rings,
    statistics::{ROLLOVER, Statistics},
};
use crate::{
    bpf::classic,
    error::{Code, Error, Result},
    net,
    packet::FrameDrop,
    rx::{KernelCounters, Receiver, Sink, guard::GuardReceiver},
    sys::{poll, socket},
};

/// The longest wait while a new group may come. A ring of n blocks bridges about n ms: with a longer wait the new ring of a
/// small configuration could overflow before its member moves; a shorter one costs wake-ups for half a second.
const REBUILD_WAIT: Duration = Duration::from_millis(5);
/// A receiver that never waits checks that its interface exists once in so many passes that found nothing; such a pass is a
/// few loads. Checking more often costs system calls, and less often delays the end when the interface was removed.
const IDLE_PASSES_PER_CHECK: u32 = 1 << 16;

/// Reads one TPACKET_V3 or TPACKET_V2 ring.
///
/// The stack verifies UDP checksums, a ring does not: a datagram with a wrong checksum is delivered here, unless
/// `verify_checksum` is on, and dropped by the socket backend.
pub struct PacketReceiver {
    // The ring comes before the socket, so that it is unmapped first.
    ring: Rings,
    fd: Arc<OwnedFd>,
    listen: RingListen,
    /// The member's index in the group.
    index: u16,
    shared: Arc<SharedGroup>,
    /// The group that the ring belongs to, as [`SharedGroup::generation`] counts.
    generation: u32,
    /// The beginning of that group.
    start: GroupStart,
    /// The ring is that of an old group, and all its frames are in blocks that the kernel has handed over.
    settled: bool,
    /// `close_intake` was called.
    closed: bool,
    /// The group has rollover statistics.
    rolls_over: bool,
    /// The link went down and nothing has come since: the interface may be gone for good.
    link_was_down: bool,
    idle_passes: u32,
    statistics: Statistics,
}

impl PacketReceiver {
    pub(super) fn new(
        fd: Arc<OwnedFd>,
        ring: Rings,
        listen: RingListen,
        index: u16,
        shared: Arc<SharedGroup>,
        rolls_over: bool,
    ) -> Self {
        PacketReceiver {
            ring,
            fd,
            listen,
            index,
            shared,
            generation: 0,
            start: GroupStart::first(),
            settled: false,
            closed: false,
            rolls_over,
            link_was_down: false,
            idle_passes: 0,
            statistics: Statistics::default(),
        }
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Returns true when there is a new group that this member has not moved to. It stays with the old ring until that is
    /// empty. What waits for it stays with `shared`, which makes no further group before all members have moved.
    #[inline]
    fn must_move(&self) -> bool {
        self.generation != self.shared.generation()
    }

    /// Makes one pass over the ring of the old group, which gets no more frames, or, once that is empty, moves and makes the
    /// first pass over the new ring.
    #[cold]
    fn move_over<S: Sink>(&mut self, sink: &mut S) -> usize {
        if !self.settled {
            self.ring.settle();
            self.settled = true;
        }
        let frames = self.pass(sink);
        if frames > 0 {
            return frames;
        }
        self.settled = false;
        self.generation = self.shared.generation();
        self.start = self.shared.cutover.group_start();
        // Nothing waits for a member that closed before the new group was made.
        if let Some((ring, fd)) = self.shared.take_replacement(self.index) {
            self.statistics.read_last(&self.fd, self.rolls_over);
            // The pair holds the ring before the socket, as this struct does, so that the ring is unmapped first.
            self.shared
                .close_in_background((mem::replace(&mut self.ring, ring), mem::replace(&mut self.fd, fd)));
            if self.closed {
                self.ring.settle();
            }
        }
        self.pass(sink)
    }

    /// Handles at most one block or 256 slots, and returns the number of frames.
    #[inline]
    fn pass<S: Sink>(&mut self, sink: &mut S) -> usize {
        let (listen, index) = (&self.listen, self.index);
        let verify_checksum = self.shared.config.verify_checksum;
        let (cutover, start) = (&self.shared.cutover, &self.start);
        let mut stamped = false;
        let (frames, unreadable) = self.ring.read_pass(|frame: &Frame<'_>| {
            stamped = frame.stack_stamped;
            if cutover.delivers(start, frame.time) {
                deliver(sink, listen, index, verify_checksum, frame);
            }
        });
        self.shared.stamps.note(stamped);
        for _ in 0..unreadable {
            sink.frame_dropped(FrameDrop::Malformed);
        }
        frames
    }

    /// # Errors
    /// [`Code::Interface`] when the interface is gone.
    fn check_interface(&self) -> Result<()> {
        if net::interface_exists(self.shared.ifindex) {
            return Ok(());
        }
        Err(Error::new(Code::Interface, format!("interface {} was removed", self.shared.interface)))
    }
}

impl Receiver for PacketReceiver {
    type Guard = GuardReceiver;

    const POLL_COALESCES: bool = true;
    const OTHERS_TAKE_OVER: bool = true;

    /// Handles at most one block, or 256 slots.
    fn receive<S: Sink>(&mut self, sink: &mut S) -> Result<usize> {
        if !self.closed {
            self.shared.rebuild_when_due();
        }
        // After closing too: what was in the ring that waits for us when it was closed is still to be read.
        if self.must_move() {
            return Ok(self.move_over(sink));
        }
        let frames = self.pass(sink);
        if frames > 0 {
            self.link_was_down = false;
        } else {
            self.start.idle();
            self.idle_passes = self.idle_passes.wrapping_add(1);
            if self.idle_passes.is_multiple_of(IDLE_PASSES_PER_CHECK) {
                self.check_interface()?;
            }
        }
        Ok(frames)
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        // The order matters: see `rebuild_expected`.
        let timeout = if self.shared.rebuild_expected() { timeout.min(REBUILD_WAIT) } else { timeout };
        if self.must_move() {
            return Ok(());
        }
        let mut fds = [poll::for_input(&self.fd)];
        poll::ppoll(&mut fds, timeout).map_err(|e| Error::os(Code::Kernel, "poll on a packet ring", e))?;
        if fds[0].revents & libc::POLLERR != 0 {
            // The socket has ENETDOWN, once for each time the link goes down; reading it clears it. The kernel hooks the socket
            // in again when the link comes back. When the interface is being removed this is the only sign as well, and it
            // comes before the name is gone: so check again after every wait until something arrives.
            let _ = socket::get_int(&self.fd, libc::SOL_SOCKET, libc::SO_ERROR);
            self.link_was_down = true;
        }
        if self.link_was_down { self.check_interface() } else { Ok(()) }
    }

    fn close_intake(&mut self) {
        self.closed = true;
        self.shared.intake_closed(self.index);
        // It fails only without memory; then the final drain is merely not finite, and the engine bounds it in time.
        let _ = socket::attach_cbpf(&self.fd, libc::SO_ATTACH_FILTER, &classic::drop_all());
        self.ring.settle();
    }

    /// `lost` has `ring_full`. `notes` has `packets` (frames that passed the filter, lost ones included), `freezes` (times
    /// the kernel ran into a block that was not given back yet), and with rollover those of its statistics. `group_rebuilds`
    /// and `group_rebuild_failed` appear after the first time that a new group was due.
    fn counters(&mut self) -> KernelCounters {
        self.statistics.read(&self.fd);
        let mut notes = vec![("packets", self.statistics.packets), ("freezes", self.statistics.freezes)];
        if self.rolls_over {
            notes.extend(ROLLOVER.into_iter().zip(self.statistics.rollover(&self.fd)));
        }
        let failed = self.shared.rebuild_failed();
        if self.generation > 0 || failed {
            notes.push(("group_rebuilds", self.generation.into()));
            notes.push(("group_rebuild_failed", failed.into()));
        }
        KernelCounters { lost: vec![("ring_full", self.statistics.drops)], notes }
    }

    fn rx_queue(&self) -> u16 {
        self.index
    }
}

impl Drop for PacketReceiver {
    fn drop(&mut self) {
        self.shared.member_died(self.index);
    }
}
