//! The guard's receiver: reads all its sockets and delivers what the fast path does not have.

use std::{os::fd::OwnedFd, time::Duration};

use super::{memberships::Memberships, role::Role, selection::Selection};
use crate::{
    datagram::flags,
    error::{Code, Error, Result},
    packet::FrameDrop,
    rx::{
        KernelCounters, NoGuard, Receiver, Sink,
        socket::{
            batch::Batch,
            bind::BoundSocket,
            control,
            deliver::{Origin, PassTime, deliver},
            drop_counter::DropCounter,
            intake,
            read::read_batch,
        },
    },
    sys::poll,
};

/// The guard has one receiver, whose datagrams have this rx queue.
const RX_QUEUE: u16 = 0;

/// A socket that the guard reads.
pub(super) struct GuardSocket {
    bound: BoundSocket,
    role: Role,
    drops: DropCounter,
    /// The ring has some of what this socket gets, so that what its buffer loses may be no loss. This holds for a
    /// REASSEMBLED socket always, and for another one from the first datagram on that was not delivered.
    overlaps_ring: bool,
}

impl GuardSocket {
    pub(super) fn new(bound: BoundSocket, role: Role) -> Self {
        let overlaps_ring = role == Role::Reassembled;
        GuardSocket { bound, role, drops: DropCounter::default(), overlaps_ring }
    }
}

/// The receiver of all sockets of the guard. It puts [`flags::SLOW_PATH`] on every datagram, and has rx queue 0.
pub struct GuardReceiver {
    sockets: Vec<GuardSocket>,
    batch: Batch,
    /// Only beside a packet ring.
    selection: Option<Selection>,
    /// Only beside xdp, and only where multicast groups are configured.
    memberships: Option<Memberships>,
    /// Datagrams lost since open.
    lost: u64,
    /// Datagrams lost since open of which nothing tells whether the ring had them.
    unsure: u64,
    /// Multicast groups joined again since open, on an interface that was made anew.
    rejoined: u64,
    /// Set by `close_intake`: from then on the kernel's counters also count what the closing filter drops.
    closed: bool,
}

impl GuardReceiver {
    /// The guard beside a packet ring.
    pub(super) fn beside_ring(sockets: Vec<GuardSocket>, selection: Selection) -> Self {
        Self::new(sockets, Some(selection), None)
    }

    /// The guard beside xdp.
    pub(super) fn beside_xdp(sockets: Vec<GuardSocket>, memberships: Option<Memberships>) -> Self {
        Self::new(sockets, None, memberships)
    }

    fn new(
        sockets: Vec<GuardSocket>,
        selection: Option<Selection>,
        memberships: Option<Memberships>,
    ) -> Self {
        GuardReceiver {
            sockets,
            batch: Batch::new(),
            selection,
            memberships,
            lost: 0,
            unsure: 0,
            rejoined: 0,
            closed: false,
        }
    }

    fn read_drops(&mut self) {
        for socket in &mut self.sockets {
            let new = socket.drops.read_new(&socket.bound.fd);
            *if socket.overlaps_ring { &mut self.unsure } else { &mut self.lost } += new;
        }
    }
}

fn fds(sockets: &[GuardSocket]) -> impl Iterator<Item = &OwnedFd> + Clone {
    sockets.iter().map(|socket| &*socket.bound.fd)
}

impl Receiver for GuardReceiver {
    type Guard = NoGuard;

    /// A guard thread that ends alone reads its sockets out before it closes them, like those of the socket backend.
    const OTHERS_TAKE_OVER: bool = true;

    fn receive<S: Sink>(&mut self, sink: &mut S) -> Result<usize> {
        let mut seen = 0;
        let mut pass = PassTime::default();
        for socket in &mut self.sockets {
            let count = read_batch(&mut self.batch, &socket.bound)?;
            seen += count;
            for i in 0..count {
                let message = self.batch.message(i);
                let control = control::parse(message.control);
                let dst = socket.bound.destination(&control);
                let in_ring = control.broadcast_or_multicast
                    && self
                        .selection
                        .as_ref()
                        .is_some_and(|s| s.is_in_ring(control.ifindex, dst, socket.bound.port));
                if !socket.role.delivers(&control, message.payload.len(), in_ring) {
                    socket.overlaps_ring = true;
                    continue;
                }
                if message.truncated {
                    sink.frame_dropped(FrameDrop::Truncated);
                    continue;
                }
                let origin =
                    Origin { socket: &socket.bound, dst, rx_queue: RX_QUEUE, flags: flags::SLOW_PATH };
                deliver(sink, &origin, &message, &control, &mut pass);
            }
        }
        Ok(seen)
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        let watched = fds(&self.sockets).chain(self.selection.as_ref().map(Selection::fd));
        let mut fds: Vec<libc::pollfd> = watched.map(poll::for_input).collect();
        poll::ppoll(&mut fds, timeout).map_err(|e| Error::os(Code::Kernel, "poll on UDP sockets", e))?;
        if let (Some(selection), Some(interfaces)) = (&mut self.selection, fds.last())
            && interfaces.revents != 0
        {
            selection.refresh();
        }
        Ok(())
    }

    fn close_intake(&mut self) {
        intake::close(fds(&self.sockets));
        if !self.closed {
            self.read_drops();
            self.closed = true;
        }
    }

    /// `lost`: `guard_rcvbuf`, datagrams that only the guard had. Notes beside a packet ring: `guard_rcvbuf_unsure`,
    /// datagrams that overflowed a socket which also gets what the ring has (nothing about a datagram that was never read
    /// tells whether it was reassembled, or whole and in the ring as well), and `guard_program_cut`, the times that a
    /// selection program had to omit more than before, or could not be replaced, counted for each endpoint. Note beside xdp
    /// with multicast groups: `multicast_rejoined`.
    fn counters(&mut self) -> KernelCounters {
        // `wait` does it too, but a guard that never sleeps does not call `wait`.
        self.selection.iter_mut().for_each(Selection::refresh);
        if !self.closed {
            self.read_drops();
            if let Some(memberships) = &mut self.memberships {
                self.rejoined += memberships.renew(fds(&self.sockets));
            }
        }
        let mut notes = Vec::new();
        if let Some(selection) = &self.selection {
            notes.push(("guard_rcvbuf_unsure", self.unsure));
            notes.push(("guard_program_cut", selection.times_shortened()));
        }
        if self.memberships.is_some() {
            notes.push(("multicast_rejoined", self.rejoined));
        }
        KernelCounters { lost: vec![("guard_rcvbuf", self.lost)], notes }
    }

    fn rx_queue(&self) -> u16 {
        RX_QUEUE
    }
}
