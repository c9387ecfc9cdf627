//! The state that the receivers of one interface share while it changes: which attachment is in force, how many rx queues it
//! has, and what the kernel granted. The receivers own the attachment, so that it ends with the last of them; this state only
//! refers to it.
//!
//! Whatever takes the kernel's RTNL (counting rx queues, replacing or attaching a program, settings in sysfs) is done by the
//! helper thread ([`super::interface_monitor`]) and never under the lock here. So a receive thread waits for the RTNL in one
//! case only: bind(2) of an rx queue that was added ([`super::added_queue`]). A reader of [`InterfaceState::info`] waits while
//! a reload replaces the program, see [`LiveProgram::status`].

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    attached_interface::{AttachedInterface, WeakAttachedInterface},
    attachment::Attachment,
    deliver::AcceptFilter,
    interface_report::{InterfaceReport, SocketModes},
    live_program::{self, LiveProgram},
    napi_settings::NapiSettings,
    published_rx_queues::PublishedRxQueues,
    stop_signal::StopSignal,
};
use crate::{
    config::{EngineConfig, Listen},
    error::{Code, Error, Result},
    rx::BackendInfo,
};

/// Shared by the receivers, the helper thread and the engine. No datagram passes here.
pub struct InterfaceState {
    config: EngineConfig,
    live: Arc<LiveProgram>,
    name: String,
    /// Addresses and ports at the start. An interface that comes back may get its addresses only after the program is
    /// attached to it.
    listen_at_start: Vec<Listen>,
    threads: u32,
    options: QueueOptions,
    stop: Arc<StopSignal>,
    rx_queues: PublishedRxQueues,
    current: Mutex<Current>,
}

/// How the rx queues of the start were opened; those that are added later are opened in the same way.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueOptions {
    pub(super) zero_copy: bool,
    pub(super) busy_poll: bool,
}

struct Current {
    /// Generation of the attachment in force, or of the last one.
    generation: u32,
    /// The attachment in force; None while the interface is away.
    attached: Option<WeakAttachedInterface>,
    /// An attachment that no receiver has taken yet: until then this state keeps it.
    unclaimed: Option<Arc<Attachment>>,
    /// Why there is no attachment.
    away_reason: String,
    report: InterfaceReport,
    settings: NapiSettings,
}

/// The result of the first opening.
pub(super) struct Opening {
    pub(super) listen: Vec<Listen>,
    pub(super) rx_queues: u32,
    pub(super) options: QueueOptions,
    pub(super) sockets: SocketModes,
    /// Its mode is that of attaching alone.
    pub(super) info: BackendInfo,
    pub(super) settings: NapiSettings,
    pub(super) link_down: Option<String>,
}

/// The attachment to an interface that came back.
pub(super) struct Reattachment {
    pub(super) attached: AttachedInterface,
    pub(super) rx_queues: u32,
    pub(super) info: BackendInfo,
    pub(super) settings: NapiSettings,
    pub(super) link_down: Option<String>,
}

impl InterfaceState {
    pub(super) fn new(
        config: &EngineConfig,
        live: &Arc<LiveProgram>,
        attached: &AttachedInterface,
        opening: Opening,
    ) -> Arc<Self> {
        let Opening { listen, rx_queues, options, sockets, info, settings, link_down } = opening;
        Arc::new(InterfaceState {
            config: config.clone(),
            live: Arc::clone(live),
            name: attached.interface.name.clone(),
            listen_at_start: listen,
            threads: rx_queues,
            options,
            stop: Arc::default(),
            rx_queues: PublishedRxQueues::new(attached.generation, rx_queues),
            current: Mutex::new(Current {
                generation: attached.generation,
                attached: Some(attached.downgrade()),
                unclaimed: None,
                away_reason: String::new(),
                report: InterfaceReport::new(info, sockets, link_down),
                settings,
            }),
        })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn config(&self) -> &EngineConfig {
        &self.config
    }

    pub(super) fn live_program(&self) -> &LiveProgram {
        &self.live
    }

    /// Name of the interface. One that is created anew under this name is the same interface here.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn listen_at_start(&self) -> &[Listen] {
        &self.listen_at_start
    }

    /// Number of receive threads, and so the distance between the rx queues of one.
    pub(super) fn threads(&self) -> u32 {
        self.threads
    }

    pub(super) fn queue_options(&self) -> QueueOptions {
        self.options
    }

    pub(super) fn accept_filter(&self, attached: &AttachedInterface) -> AcceptFilter {
        AcceptFilter { listen: Arc::clone(&attached.listen), verify_checksum: self.config.verify_checksum }
    }

    pub(super) fn stop_signal(&self) -> &Arc<StopSignal> {
        &self.stop
    }

    /// Ensures that from now on nothing is attached or opened any more. It returns at once; the engine calls it before it joins
    /// its threads.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// True from [`InterfaceState::stop`] on, or when the last receiver is gone.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    /// # Errors
    /// [`Code::State`] when [`InterfaceState::is_stopped`].
    pub(super) fn require_running(&self) -> Result<()> {
        if self.is_stopped() { Err(Error::new(Code::State, "stopping".to_owned())) } else { Ok(()) }
    }

    /// Restores the interface's settings. The engine calls it when its threads have ended; otherwise the last owner's drop
    /// does the same.
    pub fn release(&self) {
        self.stop();
        drop(self.take_settings());
    }

    /// Takes the settings out of the state, so that they are restored without the lock.
    pub(super) fn take_settings(&self) -> NapiSettings {
        mem::take(&mut self.current().settings)
    }

    /// Returns the grants and refusals that hold now.
    pub fn info(&self) -> BackendInfo {
        let ((mut info, sockets), attached, rx_queues) = {
            let current = self.current();
            (current.report.snapshot(), current.attached(), self.rx_queues.count())
        };
        info.grant("rx queues", rx_queues.to_string());
        if let Some(attached) = attached {
            info.grant("program id", attached.attachment.program_id().to_string());
        }
        info.grant(live_program::GRANTED_KEY, self.live.status());
        sockets.describe(&mut info);
        info
    }

    /// The attachment in force; None while the interface is away.
    pub(super) fn attached(&self) -> Option<AttachedInterface> {
        self.current().attached()
    }

    /// The attachment in force, for a receiver to keep.
    ///
    /// # Errors
    /// The sentence for the user that explains why there is none.
    pub(super) fn claim(&self) -> std::result::Result<AttachedInterface, String> {
        let mut current = self.current();
        let attached = current.attached().ok_or_else(|| current.away_reason.clone())?;
        // A receiver keeps it from now on.
        current.unclaimed = None;
        Ok(attached)
    }

    /// Number of rx queues when they were last counted, all of which have the program; None when `attached` is not in force
    /// any more. It takes no lock.
    pub(super) fn rx_queues(&self, attached: &AttachedInterface) -> Option<u32> {
        self.rx_queues.count_of(attached.generation)
    }

    /// Records what the helper thread found on the interface, unless it was removed meanwhile.
    pub(super) fn record_rx_queues(
        &self,
        attached: &AttachedInterface,
        rx_queues: u32,
        link_down: Option<String>,
        program_missing: Option<String>,
    ) {
        let mut current = self.current();
        if self.rx_queues(attached).is_some() {
            current.report.record_rx_queues(rx_queues, link_down, program_missing);
            self.rx_queues.publish(attached.generation, rx_queues);
        }
    }

    /// Records an rx queue that was opened, see [`InterfaceReport::record_opened`].
    pub(super) fn record_opened(&self, number: u32, zero_copy: Option<bool>, huge_pages: bool) {
        self.current().report.record_opened(number, zero_copy, huge_pages);
    }

    /// Records why an rx queue could not be opened.
    pub(super) fn record_refused(&self, number: u32, reason: String) {
        self.current().report.record_refused(number, reason);
    }

    /// Records that the interface of `attached` was removed. Nothing happens when that is known, or when another attachment
    /// is in force.
    pub(super) fn record_removed(&self, attached: &AttachedInterface) {
        let mut current = self.current();
        if current.generation != attached.generation || current.attached.take().is_none() {
            return;
        }
        self.rx_queues.publish_away();
        current.away_reason = "waiting for it".into();
        current.report.record_removed();
        let unclaimed = current.unclaimed.take();
        // Detaching takes the RTNL, so the lock goes first.
        drop(current);
        drop(unclaimed);
    }

    /// Records why the program could not be attached again.
    pub(super) fn record_away(&self, reason: String) {
        self.current().away_reason = reason;
    }

    /// Generation of the attachment that follows.
    pub(super) fn next_generation(&self) -> u32 {
        self.current().generation + 1
    }

    /// Puts an attachment in force.
    ///
    /// # Errors
    /// [`Code::State`] when stopped: the attachment and its settings are dropped.
    pub(super) fn install(&self, new: Reattachment) -> Result<()> {
        let Reattachment { attached, rx_queues, info, settings, link_down } = new;
        let mut current = self.current();
        // Under the lock: settings that are stored before `release` takes them are restored by it.
        self.require_running()?;
        current.generation = attached.generation;
        current.report.replace(info, link_down);
        current.settings = settings;
        current.attached = Some(attached.downgrade());
        self.rx_queues.publish(attached.generation, rx_queues);
        current.unclaimed = Some(attached.attachment);
        Ok(())
    }

    /// Drops an attachment that no receiver has taken: the helper thread ends.
    pub(super) fn drop_unclaimed(&self) {
        let unclaimed = self.current().unclaimed.take();
        // This happens without the lock, because detaching takes the RTNL.
        drop(unclaimed);
    }
}

impl Current {
    fn attached(&self) -> Option<AttachedInterface> {
        self.attached.as_ref()?.upgrade()
    }
}
