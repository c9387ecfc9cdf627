//! Receiving: three backends behind one trait.
//!
//! A [`Receiver`] belongs to one receive thread. [`xdp`], [`packet`] and [`socket`] each have an `open` that returns
//! one receiver per thread; [`ladder`] tries them in order and says why a rung was refused.

use std::time::Duration;

use serde::Serialize;

use crate::{datagram::Datagram, error::Result, packet::FrameDrop};

pub mod early;
pub mod guard;
pub mod ladder;
mod local;
mod no_guard;
mod opened;
pub mod packet;
pub mod socket;
pub mod steering;
pub mod xdp;

pub use no_guard::NoGuard;
pub use opened::Opened;
pub use steering::{Steer, Steering};

/// Takes what a receiver finds. Implemented by the engine (rules + lanes), by benches and by tests.
pub trait Sink {
    /// One datagram; the borrow ends with the call.
    fn datagram(&mut self, datagram: &Datagram<'_>);
    /// One frame that is not a datagram for us.
    fn frame_dropped(&mut self, reason: FrameDrop);
}

/// Datagrams (or frames) the kernel lost on our behalf, cumulative since open. The fields of `lost` add up to the
/// loss and never overlap; `notes` are further kernel counters that may overlap and are for diagnosis only.
#[derive(Debug, Clone, Default, Serialize, PartialEq, Eq)]
pub struct KernelCounters {
    /// `(reason, count)`: e.g. `("xsk_rx_dropped", 3)`.
    pub lost: Vec<(&'static str, u64)>,
    /// `(name, value)`: e.g. `("xsk_fill_ring_empty", 3)`.
    pub notes: Vec<(&'static str, u64)>,
}

/// One receive thread's source of datagrams.
pub trait Receiver: Send + 'static {
    /// The receiver, beside those of this type, of what a backend cannot read; [`NoGuard`] where it can read everything.
    type Guard: Receiver;

    /// `wait` wakes once for many frames by itself (a TPACKET_V3 ring: once a block), so that there is no need to pace it.
    const POLL_COALESCES: bool = false;

    /// Takes what is there now, at most a few hundred frames, and gives the frames back to the kernel before it
    /// returns. Returns how many frames it looked at; 0 means idle. Transient kernel errors (EAGAIN, EINTR, link down)
    /// are not errors here; an `Err` ends the thread.
    fn receive<S: Sink>(&mut self, sink: &mut S) -> Result<usize>;

    /// Sleeps until something may be there, or `timeout` has passed.
    fn wait(&mut self, timeout: Duration) -> Result<()>;

    /// Stops new arrivals (drop filter, empty XSKMAP slot) so that a last series of `receive` calls until 0 leaves
    /// nothing behind. Called once, before the final [`Receiver::counters`].
    fn close_intake(&mut self);

    /// When it is dropped the others of its group get its share at once. One that ends alone is therefore not closed first:
    /// until it is dropped, a filter would lose what goes on arriving for it.
    const OTHERS_TAKE_OVER: bool = false;

    /// Kernel counters, cumulative since open. Called by the owning thread a few times a second and at the end; what a
    /// receiver must look after now and then it does here.
    fn counters(&mut self) -> KernelCounters;

    /// The rx queue, ring member or socket index this receiver serves; the first of several.
    fn rx_queue(&self) -> u16;

    /// Why nothing can be received at present although the receiver goes on, for people: its interface was removed and
    /// is waited for. None when all is well.
    fn away(&self) -> Option<String> {
        None
    }
}

/// What the kernel granted, for logs, `/metrics` and the demo.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendInfo {
    /// `xdp`, `packet` or `socket`.
    pub backend: &'static str,
    /// e.g. `native copy`, `generic copy`, `tpacket_v3 fanout cbpf`, `reuseport`.
    pub mode: String,
    /// Interface, where one is bound.
    pub interface: Option<String>,
    /// `(what, value)` read back from the kernel: ring sizes, SO_RCVBUF, busy-poll, …
    pub granted: Vec<(String, String)>,
    /// Things asked for that were not granted, one sentence each.
    pub degraded: Vec<String>,
}

impl BackendInfo {
    /// Replaces an entry of `granted`, or adds it.
    pub fn grant(&mut self, what: &str, value: String) {
        match self.granted.iter_mut().find(|(key, _)| key == what) {
            Some(entry) => entry.1 = value,
            None => self.granted.push((what.into(), value)),
        }
    }
}
