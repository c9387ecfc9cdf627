//! What the receivers of one interface share: where the program is attached now, and what the kernel granted. The
//! receivers own the attachment; this only knows it, so that it ends with the last of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use super::{
    attachment::Attachment,
    describe,
    knobs::Knobs,
    live_program::{self, LiveProgram},
    numa,
    queue::{RxQueue, Wanted},
};
use crate::{
    config::{EngineConfig, Listen, ListenSet, ZeroCopy},
    error::{Code, Error, Result},
    net::Interface,
    rx::{BackendInfo, local},
};

/// How often a removed interface is looked for, by all threads together.
const JOIN_EVERY: Duration = Duration::from_millis(900);

/// The program on an interface that exists, as a receiver holds it.
#[derive(Clone)]
pub(super) struct Attached {
    pub(super) attachment: Arc<Attachment>,
    pub(super) interface: Interface,
    pub(super) listen: Arc<ListenSet>,
    /// NUMA node for packet memory.
    pub(super) node: Option<u32>,
    /// 1 for the first.
    pub(super) generation: u64,
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
    state: Mutex<State>,
}

struct State {
    generation: u64,
    known: Option<Known>,
    tried: Option<Instant>,
    why: String,
    /// To be asked for when a socket is opened: what was granted at the start.
    zero_copy: bool,
    busy_poll: bool,
    sockets: Sockets,
    info: BackendInfo,
    knobs: Knobs,
    rx_queues: u32,
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
            state: Mutex::new(State {
                generation: attached.generation,
                known: Some(Known::from(attached)),
                tried: None,
                why: String::new(),
                zero_copy,
                busy_poll,
                sockets,
                info,
                knobs,
                rx_queues,
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

    /// Puts the interface's settings back. The engine does it when its threads have ended, the last owner in any case.
    pub fn release(&self) {
        self.state().knobs = Knobs::default();
    }

    /// What the kernel grants now.
    pub fn info(&self) -> BackendInfo {
        let state = self.state();
        let mut info = state.info.clone();
        info.grant("rx queues", state.rx_queues.to_string());
        if let Some(attached) = state.attached() {
            info.grant("program id", attached.attachment.program_id().to_string());
        }
        info.grant(live_program::GRANTED, self.live.says());
        state.sockets.describe(&mut info);
        info.degraded.extend(state.refused.values().cloned());
        info
    }

    /// False when the interface was removed under it, or is attached anew.
    pub(super) fn is_current(&self, attached: &Attached) -> bool {
        let state = self.state();
        state.known.is_some() && state.generation == attached.generation
    }

    /// Rx queues of the interface; None where that cannot be told, as from another network namespace. New ones have the
    /// program when this returns.
    pub(super) fn rx_queues_now(&self, attached: &Attached) -> Option<u32> {
        let queues = attached.interface.rx_queues_if_there()?;
        let mut state = self.state();
        let grown = queues > state.rx_queues;
        state.rx_queues = queues;
        // veth gives a program to the rx queues there are when it is installed, and to no later ones
        // (`veth_enable_range_safe`). Other drivers rebuild all rings with it.
        if grown
            && attached.interface.driver().as_deref() == Some("veth")
            && let Err(e) = attached.attachment.reinstall()
        {
            state.info.degraded.push(format!("new rx queues have no program: {}", e.message));
        }
        Some(queues)
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

    /// Queues from `queues` on do not exist, so none of them is refused.
    pub(super) fn forget_refused(&self, queues: u32) {
        self.state().refused.retain(|number, _| *number < queues);
    }

    /// The interface under `attached` was removed.
    pub(super) fn lost(&self, attached: &Attached) {
        let mut state = self.state();
        if state.generation == attached.generation && state.known.take().is_some() {
            state.refused.clear();
            state.sockets = Sockets::default();
            state.rx_queues = 0;
        }
    }

    /// The attachment that is there, or a new one if the interface is back.
    ///
    /// # Errors
    /// Why not, for people.
    pub(super) fn join(&self) -> std::result::Result<Attached, String> {
        let mut state = self.state();
        if let Some(attached) = state.attached() {
            return Ok(attached);
        }
        if state.tried.is_some_and(|at| at.elapsed() < JOIN_EVERY) {
            return Err(state.why.clone());
        }
        state.tried = Some(Instant::now());
        self.attach_again(&mut state).map_err(|e| {
            state.why = e.message;
            state.why.clone()
        })
    }

    fn attach_again(&self, state: &mut State) -> Result<Attached> {
        let interface = Interface::by_name(&self.name)?;
        let mut here = self.here.clone();
        for l in local::listen_here(&self.config.listen, &self.config.multicast, &interface.name)? {
            if !here.contains(&l) {
                here.push(l);
            }
        }
        let mut degraded = Vec::new();
        let attachment = self
            .live
            .attach(|early| Attachment::new(&interface, &here, self.config.xdp_mode, early, &mut degraded))?;
        state.generation += 1;
        let attached = Attached {
            attachment,
            listen: Arc::new(ListenSet::new(&here)),
            node: numa::node_of(&interface),
            interface,
            generation: state.generation,
        };
        state.rx_queues = attached.interface.rx_queues();
        state.info = describe(&self.config, &attached, state.rx_queues)?;
        state.info.degraded.splice(0..0, degraded);
        if state.busy_poll {
            let see = "set again, see the note busy_poll_napi_id";
            state.info.granted.push(("preferred busy-poll".into(), see.into()));
        }
        // The old ones first: an interface that was only moved to another namespace and back still has them.
        state.knobs = Knobs::default();
        state.knobs = Knobs::set(&self.config, &attached.interface, &mut state.info);
        state.known = Some(Known::from(&attached));
        state.refused.clear();
        Ok(attached)
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
