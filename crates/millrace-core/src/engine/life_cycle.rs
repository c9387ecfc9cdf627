//! Life cycle: open a backend, take the memory for its lanes, run receive threads, replace rules, stop in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    books::{Books, EngineStats, InterfaceRecord, ThreadRecord},
    cpus::verify_cpus,
    description::EngineDescription,
    grants::EngineGrants,
    receive_thread::ReceiveThread,
};
use crate::{
    config::{BusyPoll, EngineConfig},
    error::{Code, Error, Result},
    lane::{QueueLayout, QueueMemory},
    rule::RuleSet,
    rx::{
        BackendInfo, Receiver, ReplacePrograms, RulePrograms,
        ladder::{self, Backend, RefusedBackend},
        xdp,
    },
    scatter::{LiveRules, Moderation, Queue, Scatter, ThreadCounters, Wake},
};

/// The data plane of one service.
pub struct Engine {
    config: EngineConfig,
    rules: Arc<LiveRules>,
    rules_refused: u64,
    /// The open backend, until the threads take its receivers.
    backend: Option<Backend>,
    /// Replaces the programs made from the rules; none after the stop.
    programs: Option<Box<dyn ReplacePrograms>>,
    /// The grants and refusals of the backend when it opened.
    info: BackendInfo,
    grants: EngineGrants,
    refused: Vec<RefusedBackend>,
    queues: Vec<Option<Arc<Queue>>>,
    queue_layout: QueueLayout,
    books: Books,
    handles: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// The state of xdp's interface, where what is granted can change while the engine runs.
    interface_state: Option<Arc<xdp::InterfaceState>>,
}

impl Engine {
    /// Compiles the rules and opens the backend. When it returns, ports are bound and programs attached, and nothing has
    /// been read.
    ///
    /// # Errors
    /// [`Code::Config`] for a receive CPU that this process may not use, and what the rules or the backend report.
    pub fn open(config: EngineConfig) -> Result<Self> {
        verify_cpus(&config.rx_cpus)?;
        let rules = Arc::new(RuleSet::compile(&config.rules, config.queues)?);
        let programs = RulePrograms::from_rules(&rules, &config);
        let (mut backend, refused) = ladder::open(&config, &programs)?;
        let info = backend.info().clone();
        let early = programs.early.filter(|_| info.backend == "xdp");
        let receivers = backend.receivers();
        let mut grants = EngineGrants::default();
        let priority = grants.request_priority(&config, receivers);
        grants.report_unused_settings(&config, info.backend);
        let rx_queues = match &backend {
            Backend::Xdp(o) => rx_queues(&o.receivers),
            Backend::Packet(o) => rx_queues(&o.receivers),
            Backend::Socket(o) => rx_queues(&o.receivers),
        };
        let record = |kind, cpu, priority, rx_queue| {
            let counters = Arc::new(ThreadCounters::new(config.queues.into()));
            ThreadRecord { kind, cpu, priority, rx_queue, counters }
        };
        let mut threads: Vec<ThreadRecord> = rx_queues
            .into_iter()
            .enumerate()
            .map(|(index, rx_queue)| {
                // The modulus is 0 for an empty list, which pins no thread.
                let cpu = index.checked_rem(config.rx_cpus.len()).map(|i| config.rx_cpus[i]);
                record("receive", cpu, priority, rx_queue)
            })
            .collect();
        if backend.has_guard() {
            threads.push(record("guard", None, None, 0));
        }
        let interface =
            info.interface.as_deref().or(config.interface.as_deref()).and_then(InterfaceRecord::new);
        let interface_state = match &backend {
            Backend::Xdp(o) => o.receivers.first().map(xdp::XdpReceiver::interface_state),
            _ => None,
        };
        let queue_layout = QueueLayout::new(threads.len(), config.lane_slots, config.lane_bytes);
        let rules = LiveRules::new(rules, early, threads.len(), config.queues.into());
        Ok(Engine {
            queues: (0..config.queues).map(|_| None).collect(),
            queue_layout,
            books: Books { threads, rules: Arc::clone(&rules), interface },
            handles: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            config,
            rules,
            programs: backend.take_programs(),
            rules_refused: 0,
            backend: Some(backend),
            info,
            grants,
            refused,
            interface_state,
        })
    }

    /// Describes what to allocate and what was opened.
    pub fn describe(&self) -> EngineDescription {
        EngineDescription {
            queue_bytes: self.queue_layout.bytes,
            queues: self.queues.len(),
            threads: self.books.threads.len(),
            backend: self.info(),
            refused: self.refused.clone(),
            rules: self.rules.current().rules.names(),
        }
    }

    /// Returns the grants and refusals that hold now.
    fn info(&self) -> BackendInfo {
        let mut info = self.interface_state.as_ref().map_or_else(|| self.info.clone(), |state| state.info());
        self.grants.append_to(&mut info);
        info
    }

    /// Gives a queue its memory and returns where everything lies in it.
    ///
    /// # Safety
    /// The memory has to be as [`QueueMemory::new`] demands: zeroed, valid until the engine is dropped (which joins its
    /// threads), and used for nothing else.
    ///
    /// # Errors
    /// [`Code::State`] for an unknown queue, memory smaller than [`EngineDescription::queue_bytes`], or an engine already
    /// started.
    pub unsafe fn attach(&mut self, queue: usize, base: *mut u8, length: usize) -> Result<QueueLayout> {
        let wrong = |what: String| Err(Error::new(Code::State, what));
        if self.backend.is_none() {
            return wrong(format!("attach of queue {queue} after start"));
        }
        let Some(slot) = self.queues.get_mut(queue) else {
            return wrong(format!("attach of queue {queue}: the engine has {}", self.config.queues));
        };
        // SAFETY: the caller's promise, passed on.
        let Some(memory) = (unsafe { QueueMemory::new(base, length, self.queue_layout.clone()) }) else {
            let need = self.queue_layout.bytes;
            return wrong(format!("memory of queue {queue}: {length} bytes, expected {need}"));
        };
        let layout = memory.layout().clone();
        *slot = Some(Arc::new(Queue::new(memory)));
        Ok(layout)
    }

    /// Attaches a worker's wake-up, or detaches it with `None`; when it returns, the old one is no longer in use.
    ///
    /// # Errors
    /// [`Code::State`] when the queue has no memory.
    pub fn set_wake(&self, queue: usize, wake: Option<Wake>) -> Result<()> {
        match self.queues.get(queue) {
            Some(Some(q)) => {
                q.set_wake(wake);
                Ok(())
            }
            _ => Err(Error::new(Code::State, format!("queue {queue} has no memory attached"))),
        }
    }

    /// Starts the receive threads.
    ///
    /// # Errors
    /// [`Code::State`] when a queue has no memory or the engine ran before; [`Code::Kernel`] when a thread cannot start.
    pub fn start(&mut self) -> Result<()> {
        let queues: Option<Vec<Arc<Queue>>> = self.queues.iter().cloned().collect();
        let Some(queues) = queues else {
            return Err(Error::new(Code::State, "start before every queue got its memory"));
        };
        let Some(backend) = self.backend.take() else {
            return Err(Error::new(Code::State, "start called twice"));
        };
        match backend {
            Backend::Xdp(o) => self.spawn_all(o.receivers, o.guard, &queues),
            Backend::Packet(o) => self.spawn_all(o.receivers, o.guard, &queues),
            Backend::Socket(o) => self.spawn_all(o.receivers, o.guard, &queues),
        }
    }

    fn spawn_all<R: Receiver, G: Receiver>(
        &mut self,
        receivers: Vec<R>,
        guard: Option<G>,
        queues: &[Arc<Queue>],
    ) -> Result<()> {
        let busy_poll = self.config.busy_poll;
        let count = receivers.len();
        for (index, receiver) in receivers.into_iter().enumerate() {
            self.spawn(index, format!("millrace-rx-{index}"), receiver, busy_poll, queues)?;
        }
        match guard {
            // The guard never spins: it carries the slow path only.
            Some(guard) => self.spawn(count, "millrace-guard".into(), guard, BusyPoll::Off, queues),
            None => Ok(()),
        }
    }

    fn spawn<R: Receiver>(
        &mut self,
        index: usize,
        name: String,
        receiver: R,
        busy_poll: BusyPoll,
        queues: &[Arc<Queue>],
    ) -> Result<()> {
        let record = &self.books.threads[index];
        let moderation = Moderation {
            min: self.config.wake_min,
            max_age: Duration::from_micros(self.config.wake_max_us.into()),
        };
        // SAFETY: `start` runs once and calls this once per thread index.
        let scatter = unsafe {
            Scatter::new(index, Arc::clone(&self.rules), queues, Arc::clone(&record.counters), moderation)
        };
        let thread = ReceiveThread {
            receiver,
            scatter,
            counters: Arc::clone(&record.counters),
            cpu: record.cpu,
            priority: record.priority,
            busy_poll,
            pace: Duration::from_micros(self.config.busy_poll_us.into()),
            stop: Arc::clone(&self.stop),
        };
        let handle = thread::Builder::new()
            .name(name.clone())
            .spawn(move || thread.run())
            .map_err(|e| Error::os(Code::Kernel, format!("starting thread {name}"), e))?;
        self.handles.push(handle);
        Ok(())
    }

    /// Compiles other rules and puts them in force, first in the kernel and then in every receive thread, which takes them
    /// before its next pass. Returns their generation.
    ///
    /// In between, the XDP program may drop early by the new rules what a thread would have judged by the old ones; what
    /// the program lets pass is judged by one set alone. So no datagram meets a mixture of two sets.
    ///
    /// # Errors
    /// [`Code::Rules`] when the rules do not compile, and what [`ReplacePrograms::replace`] reports. The old rules stay.
    pub fn reload(&mut self, rules: &str) -> Result<u64> {
        let replaced = self.replace_rules(rules);
        if replaced.is_err() {
            self.rules_refused += 1;
        }
        replaced
    }

    fn replace_rules(&mut self, rules: &str) -> Result<u64> {
        let rules = Arc::new(RuleSet::compile(rules, self.config.queues)?);
        let compiled = RulePrograms::from_rules(&rules, &self.config);
        if let Some(programs) = &self.programs {
            let (what, value) = programs.replace(&compiled)?;
            self.info.grant(what, value);
        }
        let early = compiled.early.filter(|_| self.info.backend == "xdp");
        Ok(self.rules.replace(rules, early))
    }

    /// Stops arrivals, empties what the kernel holds into the lanes, and joins the threads (at most about two seconds).
    /// Lanes keep their contents for the workers.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(state) = &self.interface_state {
            state.stop();
        }
        for handle in self.handles.drain(..) {
            // A panic would have aborted the process (release) or been reported by the test harness (debug).
            let _ = handle.join();
        }
        self.backend = None;
        self.programs = None;
        if let Some(state) = &self.interface_state {
            state.release();
        }
    }

    /// Reads the books.
    pub fn stats(&self) -> EngineStats {
        self.books.read(self.info(), self.refused.clone(), &self.queues, self.rules_refused)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

fn rx_queues<R: Receiver>(receivers: &[R]) -> Vec<u16> {
    receivers.iter().map(Receiver::rx_queue).collect()
}
