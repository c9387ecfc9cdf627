//! The two traits of receiving: a [`Receiver`] reads frames from the kernel, a [`Sink`] consumes what it reads.

use std::time::Duration;

use super::KernelCounters;
use crate::{datagram::Datagram, error::Result, packet::FrameDrop};

/// Consumer of what a receiver reads. The receive threads implement it with rules and lanes
/// (`scatter::Scatter`); benches and tests have implementations of their own.
pub trait Sink {
    /// Consumes one datagram. The borrow ends with the call, because the receiver then gives the frame back.
    fn datagram(&mut self, datagram: &Datagram<'_>);
    /// Counts one frame that is not a datagram for this process.
    fn frame_dropped(&mut self, reason: FrameDrop);
}

/// One receive thread's source of datagrams. The thread that owns a receiver makes every call.
pub trait Receiver: Send + 'static {
    /// The receiver, beside those of this type, of what a backend cannot read; [`super::NoGuard`] where it can read
    /// everything.
    type Guard: Receiver;

    /// True when [`Receiver::wait`] wakes once for many frames by itself (a TPACKET_V3 ring wakes once per block), so
    /// that the receive thread does not have to pace its passes.
    const POLL_COALESCES: bool = false;

    /// True when the other members of a group take over this receiver's share as soon as it is dropped. The receive
    /// thread then does not close the intake of one that ends alone: until the drop, a closed filter would lose what goes
    /// on arriving for it.
    const OTHERS_TAKE_OVER: bool = false;

    /// Reads what is available now, at most a few hundred frames, hands it to `sink`, and gives the frames back to the
    /// kernel before it returns. Returns how many frames it read, whether they were datagrams or not; 0 means idle.
    ///
    /// # Errors
    /// An error ends the thread. Transient kernel errors (EAGAIN, EINTR, link down) are therefore not errors here.
    fn receive<S: Sink>(&mut self, sink: &mut S) -> Result<usize>;

    /// Sleeps until frames may be available, or `timeout` has passed.
    ///
    /// # Errors
    /// Those of [`Receiver::receive`].
    fn wait(&mut self, timeout: Duration) -> Result<()>;

    /// Stops new arrivals (drop filter, empty XSKMAP slot), so that calls of [`Receiver::receive`] until one returns 0
    /// leave nothing behind. Called once, before the final [`Receiver::counters`].
    fn close_intake(&mut self);

    /// Kernel counters, cumulative since open. The receive thread calls it a few times a second and once at the end, so
    /// implementations also do their periodic maintenance here.
    fn counters(&mut self) -> KernelCounters;

    /// The rx queue, ring member or socket index that this receiver serves; the first one where it serves several.
    fn rx_queue(&self) -> u16;

    /// Why nothing can be received at present although the receiver goes on, as text for the user: its interface was
    /// removed and is waited for. None while it can receive.
    fn away(&self) -> Option<String> {
        None
    }
}
