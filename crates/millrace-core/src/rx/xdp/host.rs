//! What the receivers of one interface share: where the program is attached now, and what the kernel granted. The
//! receivers own the attachment; this only knows it, so that it ends with the last of them.
//!
//! Whatever takes the kernel's RTNL (counting rx queues, replacing or attaching a program, settings in sysfs) is done by
//! the helper thread ([`super::watch`]) and never under the lock here, so that no receive thread waits for it but for the
//! bind(2) of a queue that came anew. A reader of [`Host::info`] waits while a reload replaces the program, see
//! [`LiveProgram::says`].

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    attachment::Attachment,
    describe, down,
    knobs::Knobs,
    live_program::{self, LiveProgram},
    numa,
    queue::{RxQueue, Wanted},
    watch::Signal,
};
use crate::{
    config::{EngineConfig, Listen, ListenSet, ZeroCopy},
    error::{Code, Error, Result},
    net::{self, Interface},
    rx::{BackendInfo, local},
};

/// The program on an interface that exists, as a receiver holds it.
#[derive(Clone)]
pub(super) struct Attached {
    pub(super) attachment: Arc<Attachment>,
    pub(super) interface: Interface,
    pub(super) listen: Arc<ListenSet>,
    /// NUMA node for packet memory.
    pub(super) node: Option<u32>,
    /// 1 for the first.
    pub(super) generation: u32,
}

/// An [`Attached`] that others own.
struct Known {
    attachment: Weak<Attachment>,
    interface: Interface,
    listen: Arc<ListenSet>,
    node: Option<u32>,
}

/// Shared by the receivers and the engine; nothing here is on the way of a datagram.
pub struct Host {
    config: EngineConfig,
    live: Arc<LiveProgram>,
    name: String,
    /// Addresses and ports of the start. A new interface may get its addresses only after we attached to it.
    here: Vec<Listen>,
    threads: u32,
    /// Ends the helper thread.
    signal: Arc<Signal>,
    /// Generation of the attachment in force (0: the interface is away) and its rx queues, see [`published`]. Written
    /// under the lock, read without.
    now: AtomicU64,
    state: Mutex<State>,
}

/// Where nothing is in force.
const AWAY: u64 = 0;

const fn published(generation: u32, rx_queues: u32) -> u64 {
    (generation as u64) << 32 | rx_queues as u64
}

struct State {
    generation: u32,
    known: Option<Known>,
    /// A new attachment that no receiver has taken yet.
    fresh: Option<Arc<Attachment>>,
    /// Why there is none.
    why: String,
    /// To be asked for when a socket is opened: what was granted at the start.
    zero_copy: bool,
    busy_poll: bool,
    sockets: Sockets,
    info: BackendInfo,
    knobs: Knobs,
    /// The link is down.
    down: Option<String>,
    /// New rx queues could not be given the program.
    trouble: Option<String>,
    /// Rx queues without a socket, and why.
    refused: BTreeMap<u32, String>,
}

/// What the sockets of an attachment are like.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sockets {
    /// Some have zero-copy, by the kernel's own word.
    zero_copy: bool,
    /// Some have not.
    copy: bool,
    /// Some have their packet memory on ordinary pages.
    ordinary_pages: bool,
}

impl Sockets {
    pub(super) fn add(&mut self, queue: &RxQueue) -> Result<()> {
        let zero_copy = queue.socket().zero_copy()?;
        self.zero_copy |= zero_copy;
        self.copy |= !zero_copy;
        self.ordinary_pages |= !queue.huge_pages();
        Ok(())
    }

    fn describe(self, info: &mut BackendInfo) {
        let copying = match (self.zero_copy, self.copy) {
            (true, true) => "copy and zero-copy",
            (true, false) => "zero-copy",
            _ => "copy",
        };
        info.mode = format!("{} {copying}", info.mode);
        let pages = if self.ordinary_pages { "ordinary pages" } else { "2 MiB pages" };
        info.granted.push(("packet memory".into(), pages.into()));
    }
}

/// What the first opening came to.
pub(super) struct Beginning {
    pub(super) here: Vec<Listen>,
    pub(super) rx_queues: u32,
    pub(super) zero_copy: bool,
    pub(super) busy_poll: bool,
    pub(super) sockets: Sockets,
    /// Its mode is that of attaching alone.
    pub(super) info: BackendInfo,
    pub(super) knobs: Knobs,
}

impl Host {
    pub(super) fn new(
        config: &EngineConfig,
        live: &Arc<LiveProgram>,
        attached: &Attached,
        begun: Beginning,
    ) -> Arc<Self> {
        let Beginning { here, rx_queues, zero_copy, busy_poll, sockets, info, knobs } = begun;
        Arc::new(Host {
            config: config.clone(),
            live: Arc::clone(live),
            name: attached.interface.name.clone(),
            here,
            threads: rx_queues,
            signal: Arc::default(),
            now: AtomicU64::new(published(attached.generation, rx_queues)),
            state: Mutex::new(State {
                generation: attached.generation,
                known: Some(Known::from(attached)),
                fresh: None,
                why: String::new(),
                zero_copy,
                busy_poll,
                sockets,
                info,
                knobs,
                down: down(&attached.interface),
                trouble: None,
                refused: BTreeMap::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Receive threads, and so the distance between the rx queues of one.
    pub(super) fn threads(&self) -> u32 {
        self.threads
    }

    pub(super) fn wanted(&self, attached: &Attached) -> Wanted {
        Wanted { listen: Arc::clone(&attached.listen), verify_checksum: self.config.verify_checksum }
    }

    pub(super) fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    /// From now on nothing is attached or opened any more. Waits for nobody; the engine says it before it joins its
    /// threads.
    pub fn stop(&self) {
        self.signal.stop();
    }

    /// True from [`Host::stop`] on, or when the last receiver is gone.
    pub(super) fn stopped(&self) -> bool {
        self.signal.stopped()
    }

    /// Puts the interface's settings back. The engine does it when its threads have ended, the last owner in any case.
    pub fn release(&self) {
        self.stop();
        let knobs = mem::take(&mut self.state().knobs);
        drop(knobs);
    }

    /// What the kernel grants now.
    pub fn info(&self) -> BackendInfo {
        let (mut info, attached, sockets, rx_queues) = {
            let state = self.state();
            let mut info = state.info.clone();
            info.degraded
                .extend(state.down.iter().chain(&state.trouble).chain(state.refused.values()).cloned());
            (info, state.attached(), state.sockets, self.now.load(Ordering::Acquire) as u32)
        };
        info.grant("rx queues", rx_queues.to_string());
        if let Some(attached) = attached {
            info.grant("program id", attached.attachment.program_id().to_string());
        }
        info.grant(live_program::GRANTED, self.live.says());
        sockets.describe(&mut info);
        info
    }

    /// False when the interface was removed under it, or is attached anew.
    pub(super) fn is_current(&self, attached: &Attached) -> bool {
        self.rx_queues(attached).is_some()
    }

    /// Rx queues of the interface when they were last counted; None when `attached` is not in force any more. All of them
    /// have the program.
    pub(super) fn rx_queues(&self, attached: &Attached) -> Option<u32> {
        let now = self.now.load(Ordering::Acquire);
        (now >> 32 == u64::from(attached.generation)).then_some(now as u32)
    }

    /// The attachment in force, for a receiver to keep.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(super) fn join(&self) -> std::result::Result<Attached, String> {
        let mut state = self.state();
        let attached = state.attached().ok_or_else(|| state.why.clone())?;
        // With a receiver it is not ours any more.
        state.fresh = None;
        Ok(attached)
    }

    /// The helper thread's look at the interface, about once a second: counts its rx queues and sees whether it is up, or
    /// waits for it.
    pub(super) fn tend(&self) {
        let attached = self.state().attached();
        match attached {
            Some(attached) => self.count(&attached),
            None => {
                if let Err(e) = self.attach_again() {
                    self.state().why = e.message;
                }
            }
        }
    }

    /// The helper thread ends: what nobody took is let go of.
    pub(super) fn forget_fresh(&self) {
        let fresh = self.state().fresh.take();
        drop(fresh);
    }

    fn count(&self, attached: &Attached) {
        let interface = &attached.interface;
        let Some(found) = interface.rx_queues_if_present() else {
            // Sockets report a removed interface, but a thread may have none. What was only renamed is still there.
            if !net::interface_exists(interface.index) {
                self.lost(attached);
            }
            return;
        };
        let Some(before) = self.rx_queues(attached) else { return };
        // veth gives a program to the rx queues there are when it is installed, and to no later ones
        // (`veth_enable_range_safe`). Other drivers rebuild all rings with it.
        let install = || match interface.driver().as_deref() {
            Some("veth") => attached.attachment.reinstall(),
            _ => Ok(()),
        };
        let (rx_queues, trouble) = usable(before, found, install);
        let down = down(interface);
        let mut state = self.state();
        if self.is_current(attached) {
            state.down = down;
            state.trouble = trouble;
            // The others do not exist, so none of them is refused.
            state.refused.retain(|number, _| *number < rx_queues);
            self.now.store(published(attached.generation, rx_queues), Ordering::Release);
        }
    }

    /// Opens rx queue `number` as those of the start were opened, without waiting for anybody.
    ///
    /// # Errors
    /// Why not, for people; [`Host::info`] says it too.
    pub(super) fn open_queue(
        &self,
        attached: &Attached,
        number: u32,
    ) -> std::result::Result<RxQueue, String> {
        let (zero_copy, busy_poll) = {
            let state = self.state();
            (state.zero_copy, state.busy_poll)
        };
        let open = |zero_copy| {
            let slots = attached.attachment.map.entries();
            if number >= slots || u16::try_from(number).is_err() {
                let message = format!("the program was made for {slots} rx queues: restart to serve more");
                return Err(Error::new(Code::Interface, message));
            }
            RxQueue::open(attached, number, self.config.xdp_frames, zero_copy, Duration::ZERO)
        };
        let may_copy = self.config.xdp_zerocopy != ZeroCopy::On;
        let opened = match open(zero_copy) {
            Err(e) if zero_copy && may_copy && e.code == Code::Unsupported => open(false),
            opened => opened,
        };
        let mut state = self.state();
        match opened {
            Ok(mut queue) => {
                state.refused.remove(&number);
                if busy_poll {
                    let _ = queue.busy_poll();
                }
                // What the kernel does not say is left out.
                let _ = state.sockets.add(&queue);
                Ok(queue)
            }
            Err(e) => {
                let why = format!(
                    "rx queue {number} of {} comes by the kernel's stack and the guard: {}",
                    self.name, e.message
                );
                state.refused.insert(number, why.clone());
                Err(why)
            }
        }
    }

    /// The interface under `attached` was removed.
    pub(super) fn lost(&self, attached: &Attached) {
        let mut state = self.state();
        if state.generation != attached.generation || state.known.take().is_none() {
            return;
        }
        self.now.store(AWAY, Ordering::Release);
        state.why = "waiting for it".into();
        (state.down, state.trouble) = (None, None);
        state.refused.clear();
        state.sockets = Sockets::default();
        let fresh = state.fresh.take();
        drop(state);
        drop(fresh);
    }

    /// By the helper thread alone.
    fn attach_again(&self) -> Result<()> {
        let interface = Interface::by_name(&self.name)?;
        let mut here = self.here.clone();
        for l in local::listen_here(&self.config.listen, &self.config.multicast, &interface.name)? {
            if !here.contains(&l) {
                here.push(l);
            }
        }
        // Attaching may bounce the link.
        self.may_attach()?;
        let mut degraded = Vec::new();
        let attachment = self.live.attach(&mut degraded, |degraded| {
            Attachment::new(&interface, &here, self.config.xdp_mode, degraded)
        })?;
        let (generation, busy_poll, old_knobs) = {
            let mut state = self.state();
            (state.generation + 1, state.busy_poll, mem::take(&mut state.knobs))
        };
        let attached = Attached {
            attachment,
            listen: Arc::new(ListenSet::new(&here)),
            node: numa::node_of(&interface),
            interface,
            generation,
        };
        let gone = || Error::new(Code::Interface, "it came back and was removed again".to_owned());
        let rx_queues = attached.interface.rx_queues_if_present().ok_or_else(gone)?;
        let mut info = describe(&self.config, &attached, rx_queues)?;
        info.degraded.splice(0..0, degraded);
        if busy_poll {
            let see = "set again, see the note busy_poll_napi_id";
            info.granted.push(("preferred busy-poll".into(), see.into()));
        }
        // The old ones first: an interface that was only moved to another namespace and back still has them.
        drop(old_knobs);
        let knobs = Knobs::set(&self.config, &attached.interface, &mut info);
        let down = down(&attached.interface);
        let mut state = self.state();
        // Said under the lock: what is stored before `release` asks for it, `release` puts back.
        self.may_attach()?;
        state.generation = generation;
        state.info = info;
        state.knobs = knobs;
        state.known = Some(Known::from(&attached));
        state.fresh = Some(attached.attachment);
        (state.down, state.trouble) = (down, None);
        state.refused.clear();
        self.now.store(published(generation, rx_queues), Ordering::Release);
        Ok(())
    }

    fn may_attach(&self) -> Result<()> {
        if self.stopped() { Err(Error::new(Code::State, "stopping".to_owned())) } else { Ok(()) }
    }
}

/// Rx queues that can be served of the `found` there are: new ones only when `install` gave them the program; until then
/// the sentence says why not.
fn usable(before: u32, found: u32, install: impl FnOnce() -> Result<()>) -> (u32, Option<String>) {
    if found <= before {
        return (found, None);
    }
    match install() {
        Ok(()) => (found, None),
        Err(e) => (before, Some(format!("new rx queues have no program: {}", e.message))),
    }
}

impl State {
    fn attached(&self) -> Option<Attached> {
        let known = self.known.as_ref()?;
        Some(Attached {
            attachment: known.attachment.upgrade()?,
            interface: known.interface.clone(),
            listen: Arc::clone(&known.listen),
            node: known.node,
            generation: self.generation,
        })
    }
}

impl From<&Attached> for Known {
    fn from(a: &Attached) -> Self {
        Known {
            attachment: Arc::downgrade(&a.attachment),
            interface: a.interface.clone(),
            listen: Arc::clone(&a.listen),
            node: a.node,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_rx_queues_wait_until_they_have_the_program() {
        let refused = || Err(Error::new(Code::Kernel, "no memory".to_owned()));
        for _ in 0..2 {
            let (queues, why) = usable(2, 4, refused);
            assert_eq!((queues, why.as_deref()), (2, Some("new rx queues have no program: no memory")));
        }
        assert_eq!(usable(2, 4, || Ok(())), (4, None));
        // Nothing is installed for queues that went, or stayed.
        assert_eq!(usable(4, 1, refused), (1, None));
        assert_eq!(usable(4, 4, refused), (4, None));
    }
}
