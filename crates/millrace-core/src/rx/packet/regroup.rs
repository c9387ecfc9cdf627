//! The state that the members of a fanout group share: enough to make the group again when one of them dies.
//!
//! The kernel moves the last member into the slot of one that closes (net/packet/af_packet.c, `__fanout_unlink`; measured on
//! 6.18), so that programs which name a member by its number would select the wrong one. The slot cannot be repaired, because
//! a socket joins a group once. So the members left get new sockets and rings in a new group, in index order again. Nothing
//! else permutes members: a link that goes down and up puts them back in the order in which their sockets were made, and that
//! is index order.
//!
//! Making sockets and rings takes milliseconds for each member, in which a receive thread would lose frames. So a thread of
//! its own makes them without the lock, and takes the lock for the switch alone. The switch loses nothing and doubles nothing:
//! see [`super::cutover`].

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
    cutover::{Cutover, overlap},
    fanout::FanoutSpec,
    member::{Members, attach_filter, open_socket},
    rings::Rings,
    stack_timestamps::{StackTimestamps, StampWatch},
};
use crate::{
    bpf::classic,
    config::EngineConfig,
    error::Result,
    rx::{ReplacePrograms, RulePrograms, STEERING},
    sys::scheduling,
};

/// The time from the death of a member to the new group. Meanwhile the group is one smaller and loses nothing, but programs
/// select wrong members. When the whole service stops, all members must be gone before that, or the last ones would make new
/// groups in vain; the longer it is, the longer datagrams come by threads that do not own their queue.
const GRACE: Duration = Duration::from_millis(500);
/// How often [`stop_intake`] tries, once a millisecond. Giving up too early leaves an old ring that never becomes empty, so
/// its member never moves; trying for longer keeps the lock from a member that closes.
const STOP_ATTEMPTS: u32 = 100;

/// The state that all members share.
pub(super) struct SharedGroup {
    pub(super) config: EngineConfig,
    pub(super) interface: String,
    pub(super) ifindex: u32,
    /// The filter of every member.
    pub(super) filter: Vec<sock_filter>,
    /// The cutover at which the present group ends, or at which it began.
    pub(super) cutover: Cutover,
    /// Whether the stack stamps frames by now.
    pub(super) stamps: StampWatch,
    spec: FanoutSpec,
    /// Number of deaths that no new group has followed yet. Every member reads it in every pass.
    deaths: AtomicU32,
    /// Number of new groups made. Every member reads it in every pass.
    rebuilt: AtomicU32,
    /// True while a thread makes a new group. Written under the lock.
    rebuilding: AtomicBool,
    /// See [`SharedGroup::rebuild_failed`].
    rebuild_failed: AtomicBool,
    /// CPUs of the thread that makes a group: those of the thread that opened the backend, not the one that a receive thread is
    /// pinned to.
    cpus: Vec<usize>,
    members: Mutex<MemberTable>,
}

/// The members by index.
struct MemberTable {
    /// The socket of each member that is alive.
    sockets: Vec<Option<Arc<OwnedFd>>>,
    /// The ring and socket in the new group that wait for a member to move to them.
    replacements: Vec<Option<(Rings, Arc<OwnedFd>)>>,
    last_death: Option<Instant>,
}

impl MemberTable {
    /// Returns the indexes of the members of a new group.
    fn alive(&self) -> Vec<usize> {
        (0..self.sockets.len()).filter(|&i| self.sockets[i].is_some()).collect()
    }
}

impl SharedGroup {
    pub(super) fn new(
        config: &EngineConfig,
        spec: FanoutSpec,
        (interface, ifindex): (&str, u32),
        filter: Vec<sock_filter>,
        members: &Members,
    ) -> Self {
        SharedGroup {
            config: config.clone(),
            interface: interface.into(),
            ifindex,
            filter,
            cutover: Cutover::none(),
            stamps: StampWatch::default(),
            spec,
            deaths: AtomicU32::new(0),
            rebuilt: AtomicU32::new(0),
            rebuilding: AtomicBool::new(false),
            rebuild_failed: AtomicBool::new(false),
            cpus: scheduling::allowed_cpus().unwrap_or_default(),
            members: Mutex::new(MemberTable {
                sockets: members.sockets.iter().cloned().map(Some).collect(),
                replacements: members.sockets.iter().map(|_| None).collect(),
                last_death: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, MemberTable> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of new groups made so far.
    #[inline]
    pub(super) fn generation(&self) -> u32 {
        self.rebuilt.load(Ordering::Acquire)
    }

    /// A member calls this when it closes its intake: no new group counts it in, and the ring that may wait for it gets no more
    /// frames.
    pub(super) fn intake_closed(&self, index: u16) {
        let mut members = self.lock();
        let index = usize::from(index);
        members.sockets[index] = None;
        if let Some((_, socket)) = &members.replacements[index] {
            // It fails only without memory, as in `close_intake`.
            let _ = attach_filter(socket, &classic::drop_all());
        }
    }

    /// A member calls this when it is dropped.
    pub(super) fn member_died(&self, index: u16) {
        let mut members = self.lock();
        let index = usize::from(index);
        members.sockets[index] = None;
        let replacement = members.replacements[index].take();
        members.last_death = Some(Instant::now());
        self.deaths.fetch_add(1, Ordering::Release);
        // Closing a packet socket waits for other CPUs, so it must not happen under the lock.
        drop(members);
        drop(replacement);
    }

    /// Returns the ring and socket that member `index` moves to.
    pub(super) fn take_replacement(&self, index: u16) -> Option<(Rings, Arc<OwnedFd>)> {
        self.lock().replacements[usize::from(index)].take()
    }

    /// Closes what a member moved away from. A thread of its own does it, because it waits for other CPUs and gives much memory
    /// back.
    pub(super) fn close_in_background(self: &Arc<Self>, old: (Rings, Arc<OwnedFd>)) {
        let shared = Arc::clone(self);
        // Where no thread can be had `old` is dropped here, with the closure.
        let _ = thread::Builder::new().name("millrace-regroup".into()).spawn(move || {
            shared.reset_scheduling();
            drop(old);
        });
    }

    /// Returns true when making a new group failed the last time. The old group then stays in use, its members permuted.
    pub(super) fn rebuild_failed(&self) -> bool {
        self.rebuild_failed.load(Ordering::Relaxed)
    }

    /// Returns true while a new group may come. A member that sleeps long would notice it late, with its new ring filling. A
    /// thread that reads false here sees every [`SharedGroup::generation`] of before.
    pub(super) fn rebuild_expected(&self) -> bool {
        self.deaths.load(Ordering::Acquire) != 0 || self.rebuilding.load(Ordering::Acquire)
    }

    /// Has a new group made when a member died long enough ago. Every member calls this in every pass; it costs one load when
    /// nothing happened.
    #[inline]
    pub(super) fn rebuild_when_due(self: &Arc<Self>) {
        if self.deaths.load(Ordering::Acquire) != 0 && !self.rebuilding.load(Ordering::Relaxed) {
            self.start_rebuild();
        }
    }

    /// Starts the thread that makes a new group, when it is time. It does not wait for a lock.
    #[cold]
    fn start_rebuild(self: &Arc<Self>) {
        let members = match self.members.try_lock() {
            Ok(members) => members,
            Err(TryLockError::Poisoned(members)) => members.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        // A member that has not moved yet has a ring of the last new group to fetch first.
        let moving = members.replacements.iter().any(Option::is_some);
        if moving
            || self.deaths.load(Ordering::Acquire) == 0
            || self.rebuilding.load(Ordering::Relaxed)
            || members.last_death.is_some_and(|at| at.elapsed() < GRACE)
        {
            return;
        }
        self.rebuilding.store(true, Ordering::Release);
        let alive = members.alive();
        drop(members);
        let shared = Arc::clone(self);
        // The thread inherits the network namespace of this one.
        let started =
            thread::Builder::new().name("millrace-regroup".into()).spawn(move || shared.rebuild(&alive));
        if started.is_err() {
            let _members = self.lock();
            self.rebuild_failed.store(true, Ordering::Relaxed);
            self.deaths.store(0, Ordering::Release);
            self.rebuilding.store(false, Ordering::Release);
        }
    }

    /// Undoes what the calling thread inherited from the receive thread that started it: real-time priority and one CPU. Where
    /// that is refused it shares CPU and priority with that thread.
    fn reset_scheduling(&self) {
        let _ = scheduling::set_other();
        let _ = scheduling::set_allowed_cpus(&self.cpus);
    }

    /// Makes a group for the members `alive` and switches to it, unless other members are alive by then. It runs in a thread of
    /// its own.
    fn rebuild(&self, alive: &[usize]) {
        self.reset_scheduling();
        // Without the stamps the two groups would disagree about a frame that arrives at the very moment of the cutover.
        let stamps = StackTimestamps::enable(&self.stamps);
        let new = self.open_members(alive.len());
        let mut members = self.lock();
        // If other members are alive, `deaths` stays as it is, for the next attempt.
        if members.alive() == alive {
            let switched = new.and_then(|new| self.switch(&mut members, alive, new));
            self.rebuild_failed.store(switched.is_err(), Ordering::Relaxed);
            self.deaths.store(0, Ordering::Release);
        }
        self.rebuilding.store(false, Ordering::Release);
        drop(members);
        drop(stamps);
    }

    /// Puts the program of other rules in force, in the group in use and in any that follows it. Returns a description of what
    /// selects the members then.
    fn replace_program(&self, programs: &RulePrograms) -> String {
        let members = self.lock();
        self.spec.replace_program(programs);
        let Some(description) = self.spec.description() else { return "not by rules".into() };
        let member = members.sockets.iter().flatten().next();
        match member.map_or(Ok(()), |member| self.spec.attach(member, &self.interface)) {
            Ok(()) => description,
            Err(e) => format!("the rules of before: {}", e.message),
        }
    }

    fn open_members(&self, count: usize) -> Result<Members> {
        let sockets = (0..count).map(|_| open_socket(self.config.tpacket)).collect::<Result<Vec<_>>>()?;
        let spec = (&self.spec, self.generation() + 1);
        Members::new(&self.config, spec, sockets, (&self.interface, self.ifindex), &mut Vec::new())
    }

    /// Lets both groups have all frames for a while, with the cutover at the beginning of that time, then stops the old group.
    /// On an error the old members go on.
    ///
    /// It holds the lock for 1 ms ([`Cutover::set`]) and the overlap ([`overlap`], up to 50 ms); where the kernel has no memory
    /// for the dropping filter, for up to 100 ms more for each old member ([`stop_intake`]). Only a member that closes or dies
    /// and a reload of the rules wait for the lock meanwhile.
    fn switch(&self, members: &mut MemberTable, alive: &[usize], new: Members) -> Result<()> {
        // The rules may have changed since the new group was made. A failure costs locality only.
        if let Some(first) = new.sockets.first() {
            let _ = self.spec.attach(first, &self.interface);
        }
        if let Err(e) = new.sockets.iter().try_for_each(|socket| attach_filter(socket, &self.filter)) {
            let drop_all = classic::drop_all();
            new.sockets.iter().for_each(|socket| drop(attach_filter(socket, &drop_all)));
            return Err(e);
        }
        self.cutover.set();
        thread::sleep(overlap(&self.config));
        for old in members.sockets.iter().flatten() {
            stop_intake(old);
        }
        self.cutover.finish();
        for (&index, (ring, socket)) in alive.iter().zip(new.rings.into_iter().zip(new.sockets)) {
            members.sockets[index] = Some(Arc::clone(&socket));
            members.replacements[index] = Some((ring, socket));
        }
        self.rebuilt.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

/// Attaches the dropping filter to a member of the old group. Without the memory for one instruction the old ring would never
/// be empty, so this tries [`STOP_ATTEMPTS`] times.
fn stop_intake(old: &OwnedFd) {
    for _ in 0..STOP_ATTEMPTS {
        if attach_filter(old, &classic::drop_all()).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Replaces the group's program for the engine. It does not keep the group alive; only the members do.
pub(super) struct ProgramReplacer(Weak<SharedGroup>);

impl ProgramReplacer {
    pub(super) fn new(shared: &Arc<SharedGroup>) -> Self {
        ProgramReplacer(Arc::downgrade(shared))
    }
}

impl ReplacePrograms for ProgramReplacer {
    fn replace(&self, programs: &RulePrograms) -> Result<(&'static str, String)> {
        let description = match self.0.upgrade() {
            None => "nothing: all members are gone".into(),
            Some(shared) => shared.replace_program(programs),
        };
        Ok((STEERING, description))
    }
}
