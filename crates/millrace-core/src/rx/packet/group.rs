//! What the members of a fanout group share: enough to make the group anew when one of them is gone.
//!
//! The kernel moves the last member into the place of one that closes (measured on 6.18), so that programs which name a
//! member by its number would steer to the wrong one. A place cannot be patched: a socket joins once. So the members
//! left get new sockets and rings in a new group, in index order again. Nothing else permutes members: a link that goes
//! down and up puts them back in the order in which their sockets were made, and that is index order.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use libc::sock_filter;

use super::{Rings, attach, fanout, make, packet_socket};
use crate::{config::EngineConfig, error::Result, rx::cbpf};

/// Between the death of a member and the new group. Meanwhile the group is one smaller and loses nothing. When the
/// whole service stops, all members are gone before that.
const GRACE: Duration = Duration::from_millis(500);

/// Shared by the receivers.
pub(super) struct Shared {
    pub(super) config: EngineConfig,
    pub(super) wanted: fanout::Wanted,
    pub(super) interface: String,
    pub(super) ifindex: u32,
    /// The members' filter.
    pub(super) filter: Vec<sock_filter>,
    /// Number of deaths that no new group has answered yet, looked at in every pass.
    deaths: AtomicU32,
    /// Number of new groups made, looked at in every pass.
    made: AtomicU32,
    places: Mutex<Places>,
}

struct Places {
    /// Socket of each member that is alive.
    sockets: Vec<Option<Arc<OwnedFd>>>,
    /// What waits for a member to move to.
    next: Vec<Option<(Rings, Arc<OwnedFd>)>>,
    last_death: Option<Instant>,
    failed: bool,
}

impl Shared {
    pub(super) fn new(
        config: &EngineConfig,
        wanted: fanout::Wanted,
        (interface, ifindex): (&str, u32),
        filter: Vec<sock_filter>,
        sockets: &[Arc<OwnedFd>],
    ) -> Self {
        Shared {
            config: config.clone(),
            wanted,
            interface: interface.into(),
            ifindex,
            filter,
            deaths: AtomicU32::new(0),
            made: AtomicU32::new(0),
            places: Mutex::new(Places {
                sockets: sockets.iter().cloned().map(Some).collect(),
                next: sockets.iter().map(|_| None).collect(),
                last_death: None,
                failed: false,
            }),
        }
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// New groups so far.
    #[inline]
    pub(super) fn generation(&self) -> u32 {
        self.made.load(Ordering::Acquire)
    }

    /// A member takes no more: no new group counts it in, and the ring that may wait for it fills no further.
    pub(super) fn leave(&self, index: u16) {
        let mut places = self.places();
        let index = usize::from(index);
        places.sockets[index] = None;
        if let Some((_, socket)) = &places.next[index] {
            // As in `close_intake`: fails only without memory.
            let _ = attach(socket, &cbpf::drop_all());
        }
    }

    /// A member's receiver is gone.
    pub(super) fn died(&self, index: u16) {
        let mut places = self.places();
        let index = usize::from(index);
        places.sockets[index] = None;
        let waiting = places.next[index].take();
        places.last_death = Some(Instant::now());
        self.deaths.fetch_add(1, Ordering::Release);
        // Closing a packet socket waits for other CPUs: not under the lock.
        drop(places);
        drop(waiting);
    }

    /// What member `index` moves to.
    pub(super) fn take_next(&self, index: u16) -> Option<(Rings, Arc<OwnedFd>)> {
        self.places().next[usize::from(index)].take()
    }

    /// True when making a new group failed; the old one stays in use, its members permuted.
    pub(super) fn failed(&self) -> bool {
        self.places().failed
    }

    /// Makes a new group when a member died long enough ago. Called by every member in every pass: one load when
    /// nothing happened.
    #[inline]
    pub(super) fn tend(&self) {
        if self.deaths.load(Ordering::Acquire) != 0 {
            self.rebuild();
        }
    }

    #[cold]
    fn rebuild(&self) {
        let mut places = self.places();
        // Whoever is still moving has a ring of the last new group to fetch first.
        let moving = places.next.iter().any(Option::is_some);
        if self.deaths.load(Ordering::Acquire) == 0
            || moving
            || places.last_death.is_some_and(|at| at.elapsed() < GRACE)
        {
            return;
        }
        self.deaths.store(0, Ordering::Release);
        match self.replace(&mut places) {
            Ok(()) => drop(self.made.fetch_add(1, Ordering::Release)),
            Err(_) => places.failed = true,
        }
    }

    /// The old members drop everything from some moment on, the new ones take everything from a moment later on: what
    /// arrives in the few microseconds between is lost, where the other order would deliver it twice.
    fn replace(&self, places: &mut Places) -> Result<()> {
        let alive: Vec<usize> = (0..places.sockets.len()).filter(|&i| places.sockets[i].is_some()).collect();
        let sockets = alive.iter().map(|_| packet_socket(self.config.tpacket)).collect::<Result<Vec<_>>>()?;
        let made =
            make(&self.config, &self.wanted, sockets, (&self.interface, self.ifindex), &mut Vec::new())?;
        for old in places.sockets.iter().flatten() {
            attach(old, &cbpf::drop_all())?;
        }
        for new in &made.sockets {
            attach(new, &self.filter)?;
        }
        for (index, (ring, socket)) in alive.into_iter().zip(made.rings.into_iter().zip(made.sockets)) {
            places.sockets[index] = Some(Arc::clone(&socket));
            places.next[index] = Some((ring, socket));
        }
        Ok(())
    }
}
