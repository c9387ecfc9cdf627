//! What the members of a fanout group share: enough to make the group anew when one of them is gone.
//!
//! The kernel moves the last member into the place of one that closes (measured on 6.18), so that programs which name a
//! member by its number would steer to the wrong one. A place cannot be patched: a socket joins once. So the members
//! left get new sockets and rings in a new group, in index order again. Nothing else permutes members: a link that goes
//! down and up puts them back in the order in which their sockets were made, and that is index order.
//!
//! Making sockets and rings takes milliseconds for each member, in which a receive thread would lose frames. So a thread
//! of its own makes them, without the lock, and takes the lock for the switch alone. The switch loses nothing and doubles
//! nothing: see [`super::cut`].

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use libc::sock_filter;

use super::{
    Made, Rings, attach,
    cut::{Cut, Stamped, overlap},
    fanout, make, packet_socket,
};
use crate::{
    bpf::classic,
    config::EngineConfig,
    error::Result,
    rx::{ReplacePrograms, RulePrograms},
    sys::scheduling,
};

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
    /// A thread makes a new group. Written under the lock.
    building: AtomicBool,
    /// See [`Shared::failed`].
    failed: AtomicBool,
    /// Where the present group ends, or where it began.
    pub(super) cut: Cut,
    /// CPUs of the thread that makes a group: those of whoever opened, not the one its receive thread is pinned to.
    cpus: Vec<usize>,
    places: Mutex<Places>,
}

struct Places {
    /// Socket of each member that is alive.
    sockets: Vec<Option<Arc<OwnedFd>>>,
    /// What waits for a member to move to.
    next: Vec<Option<(Rings, Arc<OwnedFd>)>>,
    last_death: Option<Instant>,
}

impl Places {
    /// Members of a new group.
    fn alive(&self) -> Vec<usize> {
        (0..self.sockets.len()).filter(|&i| self.sockets[i].is_some()).collect()
    }
}

impl Shared {
    pub(super) fn new(
        config: &EngineConfig,
        wanted: fanout::Wanted,
        (interface, ifindex): (&str, u32),
        filter: Vec<sock_filter>,
        made: &Made,
    ) -> Self {
        Shared {
            config: config.clone(),
            wanted,
            interface: interface.into(),
            ifindex,
            filter,
            deaths: AtomicU32::new(0),
            made: AtomicU32::new(0),
            building: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            cut: Cut::none(),
            cpus: scheduling::allowed().unwrap_or_default(),
            places: Mutex::new(Places {
                sockets: made.sockets.iter().cloned().map(Some).collect(),
                next: made.sockets.iter().map(|_| None).collect(),
                last_death: None,
            }),
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
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
            let _ = attach(socket, &classic::drop_all());
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

    /// Closes what a member moved away from, on a thread of its own: that waits for other CPUs and gives much memory back.
    pub(super) fn close(self: &Arc<Self>, old: (Rings, Arc<OwnedFd>)) {
        let shared = Arc::clone(self);
        // Where no thread can be had `old` is dropped here, with the closure.
        let _ = thread::Builder::new().name("millrace-regroup".into()).spawn(move || {
            shared.be_nobody();
            drop(old);
        });
    }

    /// True when making a new group failed the last time; the old one stays in use, its members permuted.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// True while a new group may come: a member that sleeps long would notice it late, with its new ring filling. Who
    /// reads false here sees every [`Shared::generation`] of before.
    pub(super) fn restless(&self) -> bool {
        self.deaths.load(Ordering::Acquire) != 0 || self.building.load(Ordering::Acquire)
    }

    /// Has a new group made when a member died long enough ago. Called by every member in every pass: one load when
    /// nothing happened.
    #[inline]
    pub(super) fn tend(self: &Arc<Self>) {
        if self.deaths.load(Ordering::Acquire) != 0 && !self.building.load(Ordering::Relaxed) {
            self.rebuild();
        }
    }

    /// Starts the thread, when it is time. Waits for nobody.
    #[cold]
    fn rebuild(self: &Arc<Self>) {
        let places = match self.places.try_lock() {
            Ok(places) => places,
            Err(TryLockError::Poisoned(places)) => places.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        // Whoever is still moving has a ring of the last new group to fetch first.
        let moving = places.next.iter().any(Option::is_some);
        if moving
            || self.deaths.load(Ordering::Acquire) == 0
            || self.building.load(Ordering::Relaxed)
            || places.last_death.is_some_and(|at| at.elapsed() < GRACE)
        {
            return;
        }
        self.building.store(true, Ordering::Release);
        let alive = places.alive();
        drop(places);
        let shared = Arc::clone(self);
        // It inherits the network namespace of this thread.
        let started =
            thread::Builder::new().name("millrace-regroup".into()).spawn(move || shared.regroup(&alive));
        if started.is_err() {
            let _places = self.places();
            self.failed.store(true, Ordering::Relaxed);
            self.deaths.store(0, Ordering::Release);
            self.building.store(false, Ordering::Release);
        }
    }

    /// Undoes what the calling thread inherited from the receive thread that started it. Where that is refused it shares
    /// that one's CPU and priority.
    fn be_nobody(&self) {
        let _ = scheduling::ordinary();
        let _ = scheduling::restrict(&self.cpus);
    }

    /// The thread: makes a group for these members and switches to it, unless they are others by then.
    fn regroup(&self, alive: &[usize]) {
        self.be_nobody();
        // Without it the two groups would disagree about a frame that arrives at the very moment of the cut.
        let stamped = Stamped::begin(&self.cut);
        let made = self.make(alive.len());
        let mut places = self.places();
        // Otherwise `deaths` stays as it is, for the next attempt.
        if places.alive() == alive {
            let switched = made.and_then(|made| self.switch(&mut places, alive, made));
            self.failed.store(switched.is_err(), Ordering::Relaxed);
            self.deaths.store(0, Ordering::Release);
        }
        self.building.store(false, Ordering::Release);
        drop(places);
        drop(stamped);
    }

    /// Puts other rules' program in force: in the group in use, and in any that follows it. Returns what steers then.
    fn replace_program(&self, steering: &RulePrograms) -> String {
        let places = self.places();
        self.wanted.replace(steering);
        let Some(said) = self.wanted.says() else { return "not by rules".into() };
        let member = places.sockets.iter().flatten().next();
        match member.map_or(Ok(()), |member| self.wanted.attach(member, &self.interface)) {
            Ok(()) => said,
            Err(e) => format!("the rules of before: {}", e.message),
        }
    }

    fn make(&self, members: usize) -> Result<Made> {
        let sockets = (0..members).map(|_| packet_socket(self.config.tpacket)).collect::<Result<Vec<_>>>()?;
        let wanted = (&self.wanted, self.generation() + 1);
        make(&self.config, wanted, sockets, (&self.interface, self.ifindex), &mut Vec::new())
    }

    /// Lets both groups have everything for a while, with a cut between them, then ends the old one. On an error the old
    /// members go on. Takes up to 50 ms under the lock, which meanwhile only a member that closes or dies waits for.
    fn switch(&self, places: &mut Places, alive: &[usize], made: Made) -> Result<()> {
        let nothing = classic::drop_all();
        // The rules may have changed since it was made. What fails here costs locality only.
        if let Some(first) = made.sockets.first() {
            let _ = self.wanted.attach(first, &self.interface);
        }
        if let Err(e) = made.sockets.iter().try_for_each(|new| attach(new, &self.filter)) {
            made.sockets.iter().for_each(|new| drop(attach(new, &nothing)));
            return Err(e);
        }
        self.cut.make();
        thread::sleep(overlap(&self.config));
        for old in places.sockets.iter().flatten() {
            end(old);
        }
        self.cut.ended();
        for (&index, (ring, socket)) in alive.iter().zip(made.rings.into_iter().zip(made.sockets)) {
            places.sockets[index] = Some(Arc::clone(&socket));
            places.next[index] = Some((ring, socket));
        }
        self.made.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

/// Attaches the dropping filter. Without the memory for one instruction the old ring would never be empty, so this
/// insists for a while.
fn end(old: &OwnedFd) {
    for _ in 0..100 {
        if attach(old, &classic::drop_all()).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The engine's handle; the members alone keep the group.
pub(super) struct Handle(pub(super) Weak<Shared>);

impl ReplacePrograms for Handle {
    fn replace(&self, steering: &RulePrograms) -> Result<(&'static str, String)> {
        let said = match self.0.upgrade() {
            None => "nothing: all members are gone".into(),
            Some(shared) => shared.replace_program(steering),
        };
        Ok((fanout::GRANTED, said))
    }
}
