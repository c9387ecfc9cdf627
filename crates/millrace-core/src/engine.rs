//! Life cycle: open a backend, lay out lanes, run receive threads, stop them in order, read the books.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde::Serialize;

use crate::{
    config::{BusyPoll, EngineConfig},
    error::{Code, Error, Result},
    lane::{QueueMemory, QueuePlan},
    live_rules::LiveRules,
    net::{Interface, Statistics},
    real_time_messages,
    receive_thread::ReceiveThread,
    rule::RuleSet,
    rx::{
        BackendInfo, Receiver, Steer, Steering,
        ladder::{self, Backend, Refused},
        xdp,
    },
    scatter::{Moderation, Queue, Scatter, Wake},
    stats::{QueueStats, RuleStats, ThreadCounters, ThreadStats},
    sys::scheduling,
};

/// What the TypeScript side needs to allocate and to show.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Bytes of memory each queue needs.
    pub queue_bytes: usize,
    /// Queues.
    pub queues: usize,
    /// Receive threads, the guard's included.
    pub threads: usize,
    /// What was opened.
    pub backend: BackendInfo,
    /// What was refused.
    pub refused: Vec<Refused>,
    /// Rule names, by index.
    pub rules: Vec<String>,
}

/// The data plane's half of the books.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct EngineStats {
    pub backend: BackendInfo,
    pub refused: Vec<Refused>,
    pub threads: Vec<ThreadStats>,
    pub queues: Vec<QueueStats>,
    pub rules: Vec<RuleStats>,
    /// 1 for the rules of the start, one more with each reload.
    pub rules_generation: u64,
    /// Reloads refused: the rules did not compile, or the kernel would not replace the XDP program.
    pub rules_refused: u64,
    /// Datagrams that rules dropped in the XDP program, before any thread received them. To the books they are received
    /// and dropped; no thread counts them.
    pub early_dropped: u64,
    pub interface: Option<InterfaceStats>,
}

/// Drops the interface counted since the engine opened. They may include frames that were never ours, and for XDP on
/// some drivers (veth) frames that the XSK counters have too: diagnosis, not part of the books.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct InterfaceStats {
    pub rx_dropped: u64,
    pub rx_missed: u64,
    pub rx_fifo: u64,
    pub rx_over: u64,
}

impl InterfaceStats {
    /// Saturating, because counters start again when a driver resets.
    fn since(now: Statistics, before: Statistics) -> Self {
        InterfaceStats {
            rx_dropped: now.rx_dropped.saturating_sub(before.rx_dropped),
            rx_missed: now.rx_missed_errors.saturating_sub(before.rx_missed_errors),
            rx_fifo: now.rx_fifo_errors.saturating_sub(before.rx_fifo_errors),
            rx_over: now.rx_over_errors.saturating_sub(before.rx_over_errors),
        }
    }
}

/// Of the interface, or of the one that has taken its place and name: which one, and its statistics.
fn statistics(interface: &Interface) -> Option<(u32, Statistics)> {
    if let Ok(link) = interface.link() {
        return Some((interface.index, link.statistics));
    }
    let other = Interface::by_name(&interface.name).ok()?;
    other.link().ok().map(|link| (other.index, link.statistics))
}

/// Granted and refused independently of the backend; as in [`BackendInfo`].
#[derive(Default)]
struct Beyond {
    granted: Vec<(String, String)>,
    degraded: Vec<String>,
}

impl Beyond {
    /// The priority that so many receive threads may have.
    fn priority(&mut self, config: &EngineConfig, receivers: usize) -> Option<u8> {
        let priority = config.rx_priority?;
        if let Err(e) = scheduling::probe_fifo(priority) {
            self.degraded.push(real_time_messages::fifo_refused(priority, &e));
            return None;
        }
        self.granted.push(("receive threads".into(), format!("SCHED_FIFO {priority}")));
        if config.busy_poll == BusyPoll::Always {
            self.degraded.push(real_time_messages::FIFO_WITHOUT_SLEEP.into());
        }
        let cpus = if config.rx_cpus.is_empty() {
            scheduling::allowed_cpus().map_or(receivers, |cpus| cpus.len())
        } else {
            config.rx_cpus.iter().collect::<HashSet<_>>().len()
        };
        if receivers > cpus {
            self.degraded.push(real_time_messages::fifo_crowded(receivers, cpus));
        }
        Some(priority)
    }

    /// Settings of the interface that only xdp has a use for.
    fn unused(&mut self, config: &EngineConfig, backend: &Backend) {
        let variables: Vec<&str> =
            xdp::napi_settings::requested(config).map(|(_, variable, _)| variable).collect();
        if !variables.is_empty() && !matches!(backend, Backend::Xdp(_)) {
            self.degraded.push(format!(
                "{}: for xdp alone, unused with {}; the interface was left as it is",
                variables.join(" and "),
                backend.info().backend
            ));
        }
    }
}

/// Facts about a receive thread that do not change.
struct ThreadInfo {
    kind: &'static str,
    cpu: Option<usize>,
    priority: Option<u8>,
    rx_queue: u16,
    counters: Arc<ThreadCounters>,
}

/// The data plane of one service.
pub struct Engine {
    config: EngineConfig,
    rules: Arc<LiveRules>,
    rules_refused: u64,
    backend: Option<Backend>,
    /// Changes the programs made from the rules; gone when the engine has stopped.
    steer: Option<Box<dyn Steer>>,
    /// What the backend was granted when it opened.
    info: BackendInfo,
    /// What the engine was granted beyond it.
    beyond: Beyond,
    refused: Vec<Refused>,
    queues: Vec<Option<Arc<Queue>>>,
    queue_plan: QueuePlan,
    threads: Vec<ThreadInfo>,
    handles: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    interface: Option<Interface>,
    interface_before: Option<(u32, Statistics)>,
    /// Where what was granted can change while the engine runs.
    host: Option<Arc<xdp::InterfaceState>>,
}

impl Engine {
    /// Compiles the rules and opens the backend: ports are bound and programs attached when it returns, nothing is read.
    ///
    /// # Errors
    /// What the rules or the backend report.
    pub fn open(config: EngineConfig) -> Result<Self> {
        check_cpus(&config.rx_cpus)?;
        let rules = Arc::new(RuleSet::compile(&config.rules, config.queues)?);
        let steering = Steering::from_rules(&rules, &config);
        let (mut backend, refused) = ladder::open(&config, &steering)?;
        let steer = backend.take_steer();
        let early = steering.early.filter(|_| matches!(backend, Backend::Xdp(_)));
        let info = backend.info().clone();
        let mut beyond = Beyond::default();
        let receivers = backend.receivers();
        let priority = beyond.priority(&config, receivers);
        beyond.unused(&config, &backend);
        let guard = usize::from(backend.has_guard());
        let queue_plan = QueuePlan::new(receivers + guard, config.lane_slots, config.lane_bytes);
        let interface =
            info.interface.as_ref().or(config.interface.as_ref()).and_then(|n| Interface::by_name(n).ok());
        let interface_before = interface.as_ref().and_then(statistics);
        let thread_info = |index: usize| ThreadInfo {
            kind: if index < receivers { "receive" } else { "guard" },
            cpu: if index < receivers && !config.rx_cpus.is_empty() {
                Some(config.rx_cpus[index % config.rx_cpus.len()])
            } else {
                None
            },
            priority: priority.filter(|_| index < receivers),
            rx_queue: match &backend {
                Backend::Xdp(o) => o.receivers.get(index).map_or(0, Receiver::rx_queue),
                Backend::Packet(o) => o.receivers.get(index).map_or(0, Receiver::rx_queue),
                Backend::Socket(o) => o.receivers.get(index).map_or(0, Receiver::rx_queue),
            },
            counters: Arc::new(ThreadCounters::new(config.queues.into())),
        };
        let threads = (0..receivers + guard).map(thread_info).collect();
        let queues = usize::from(config.queues);
        let host = match &backend {
            Backend::Xdp(o) => o.receivers.first().map(xdp::XdpReceiver::interface_state),
            _ => None,
        };
        Ok(Engine {
            queues: (0..config.queues).map(|_| None).collect(),
            queue_plan,
            threads,
            handles: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            config,
            rules: LiveRules::new(rules, early, receivers + guard, queues),
            steer,
            rules_refused: 0,
            backend: Some(backend),
            info,
            beyond,
            refused,
            interface,
            interface_before,
            host,
        })
    }

    /// What to allocate, and what was opened.
    pub fn plan(&self) -> Plan {
        Plan {
            queue_bytes: self.queue_plan.bytes,
            queues: self.queues.len(),
            threads: self.threads.len(),
            backend: self.info(),
            refused: self.refused.clone(),
            rules: self.rules.current().rules.names(),
        }
    }

    /// What is granted now.
    fn info(&self) -> BackendInfo {
        let mut info = self.host.as_ref().map_or_else(|| self.info.clone(), |host| host.info());
        info.granted.extend_from_slice(&self.beyond.granted);
        info.degraded.extend_from_slice(&self.beyond.degraded);
        info
    }

    /// Gives a queue its memory and returns where everything lies in it.
    ///
    /// # Safety
    /// As [`QueueMemory::new`]: zeroed, valid until the engine is dropped (which joins its threads), used for nothing else.
    ///
    /// # Errors
    /// [`Code::State`] for an unknown queue, memory that does not fit the plan, or an engine already started.
    pub unsafe fn attach(&mut self, queue: usize, base: *mut u8, length: usize) -> Result<QueuePlan> {
        let wrong = |what: String| Err(Error::new(Code::State, what));
        if self.backend.is_none() {
            return wrong(format!("attach of queue {queue} after start"));
        }
        let Some(place) = self.queues.get_mut(queue) else {
            return wrong(format!("attach of queue {queue}: the engine has {}", self.config.queues));
        };
        // SAFETY: the caller's promise, passed on.
        let Some(memory) = (unsafe { QueueMemory::new(base, length, self.queue_plan.clone()) }) else {
            let need = self.queue_plan.bytes;
            return wrong(format!("memory of queue {queue}: {length} bytes, expected {need}"));
        };
        let plan = memory.plan().clone();
        *place = Some(Arc::new(Queue { memory, wake: Mutex::new(None) }));
        Ok(plan)
    }

    /// Attaches a worker's wake-up, or detaches it with `None`; when it returns, the old one is no longer in use.
    ///
    /// # Errors
    /// [`Code::State`] when the queue has no memory.
    pub fn set_wake(&self, queue: usize, wake: Option<Wake>) -> Result<()> {
        match self.queues.get(queue) {
            Some(Some(q)) => {
                *q.wake.lock().unwrap_or_else(PoisonError::into_inner) = wake;
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
            // The slow path never spins.
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
        let info = &self.threads[index];
        let moderation = Moderation {
            min: self.config.wake_min,
            max_age: Duration::from_micros(self.config.wake_max_us.into()),
        };
        // SAFETY: `start` runs once and calls this once per thread index.
        let scatter = unsafe {
            Scatter::new(index, Arc::clone(&self.rules), queues, Arc::clone(&info.counters), moderation)
        };
        let thread = ReceiveThread {
            receiver,
            scatter,
            counters: Arc::clone(&info.counters),
            cpu: info.cpu,
            priority: info.priority,
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

    /// Compiles other rules and puts them in force: first in the kernel, then every receive thread takes them before its
    /// next pass. Returns their generation.
    ///
    /// In between, the XDP program may drop early by the new rules what a thread would have judged by the old ones; what
    /// it lets pass is judged by one set alone. So no datagram meets a mixture.
    ///
    /// # Errors
    /// [`Code::Rules`]: they do not compile; or what [`Steer::steer`] reports. The old ones stay.
    pub fn reload(&mut self, rules: &str) -> Result<u64> {
        let replaced = self.replace_rules(rules);
        if replaced.is_err() {
            self.rules_refused += 1;
        }
        replaced
    }

    fn replace_rules(&mut self, rules: &str) -> Result<u64> {
        let rules = Arc::new(RuleSet::compile(rules, self.config.queues)?);
        let steering = Steering::from_rules(&rules, &self.config);
        if let Some(steer) = &self.steer {
            let (what, said) = steer.steer(&steering)?;
            self.info.grant(what, said);
        }
        let early = steering.early.filter(|_| self.info.backend == "xdp");
        Ok(self.rules.replace(rules, early))
    }

    /// Stops arrivals, empties what the kernel holds into the lanes, and joins the threads (at most about two seconds).
    /// Lanes keep their contents for the workers.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(host) = &self.host {
            host.stop();
        }
        for handle in self.handles.drain(..) {
            // A panic would have aborted the process (release) or been reported by the test harness (debug).
            let _ = handle.join();
        }
        self.backend = None;
        self.steer = None;
        if let Some(host) = &self.host {
            host.release();
        }
    }

    /// Reads the books.
    pub fn stats(&self) -> EngineStats {
        let over =
            |f: &dyn Fn(&ThreadCounters) -> u64| self.threads.iter().map(|t| f(&t.counters)).sum::<u64>();
        let queue = |index: usize| {
            let memory = self.queues[index].as_ref().map(|q| &q.memory);
            QueueStats {
                index,
                scattered: over(&|c| c.scattered[index].get()),
                queue_full: over(&|c| c.queue_full[index].get()),
                depth: memory.map_or(0, |m| m.depth()),
                capacity: memory.map_or(0, |m| m.capacity()),
            }
        };
        let in_force = self.rules.stats();
        let thread = |(index, t): (usize, &ThreadInfo)| {
            let members = self.threads.iter().filter(|t| t.kind == "receive").count();
            ThreadStats::read(&t.counters, (index, members), t.kind, t.cpu, t.rx_queue)
        };
        let now = self.interface.as_ref().and_then(statistics);
        EngineStats {
            backend: self.info(),
            refused: self.refused.clone(),
            threads: self.threads.iter().enumerate().map(thread).collect(),
            queues: (0..self.queues.len()).map(queue).collect(),
            rules: in_force.rules,
            rules_generation: in_force.generation,
            rules_refused: self.rules_refused,
            early_dropped: in_force.early_dropped,
            interface: now.zip(self.interface_before).map(|((index, now), (old, before))| {
                // One that was made anew began at 0.
                InterfaceStats::since(now, if index == old { before } else { Statistics::default() })
            }),
        }
    }
}

fn check_cpus(cpus: &[usize]) -> Result<()> {
    let allowed = scheduling::allowed_cpus().map_err(|e| Error::os(Code::Kernel, "sched_getaffinity", e))?;
    match cpus.iter().find(|cpu| !allowed.contains(cpu)) {
        None => Ok(()),
        Some(cpu) => {
            let message =
                format!("receive CPU {cpu}: expected one of the CPUs this process may use, {allowed:?}");
            Err(Error::new(Code::Config, message))
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}
