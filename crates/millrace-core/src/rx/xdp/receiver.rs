//! The receiver of one receive thread, which reads its share of the rx queues; that share changes with the interface.
//!
//! Thread r of T serves rx queues r, r + T, r + 2T … T is the number of rx queues at the start; what `ethtool -L` adds
//! later is divided among these threads. About once a second a thread reconciles the rx queues it serves with those that the
//! helper thread counted ([`XdpReceiver::reconcile`]); by itself it makes no system call that could take long. A removed
//! interface is waited for: its sockets are emptied and closed, and when an interface of that name exists again, the helper
//! thread attaches the program to it and sockets are opened as at the start.

use std::{
    mem,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    added_queue::open_added_queue,
    attached_interface::AttachedInterface,
    deliver::AcceptFilter,
    grace_period::wait_for_running_programs,
    interface_monitor::InterfaceMonitor,
    interface_state::InterfaceState,
    queue::RxQueue,
    socket::{self, XskStatistics},
};
use crate::{
    error::Result,
    rx::{KernelCounters, Receiver, Sink, guard::GuardReceiver},
};

/// A receiver that never waits queries its sockets for a removed interface once in so many idle passes; one that waits queries
/// them after each wait in vain. Too few, and a spinning thread makes system calls for nothing; too many, and it notices late.
const IDLE_PASSES_PER_SOCKET_CHECK: u32 = 1 << 16;
/// How often the rx queues served are reconciled with those there are. Too low, and it costs system calls; too high, and
/// added rx queues are served late (their packets go up the stack until then).
const RECONCILE_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait before an rx queue that was refused is tried again while others are served. Too low, and the others lose
/// packets, because each try allocates packet memory for milliseconds; too high, and an rx queue that was freed is served late.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Receives from the rx queues of one thread.
///
/// Field order: the helper thread ends before the last rx queue is dropped, so that it does not keep the attachment.
pub struct XdpReceiver {
    _monitor: Arc<InterfaceMonitor>,
    queues: Vec<RxQueue>,
    /// None while the interface is away.
    attached: Option<AttachedInterface>,
    state: Arc<InterfaceState>,
    /// Number of this thread, and so of its first rx queue.
    index: u32,
    filter: AcceptFilter,
    /// Some rx queue is draining.
    draining: bool,
    /// `close_intake` was called.
    intake_closed: bool,
    last_reconciled: Instant,
    /// Refused rx queues are not tried again before this.
    retry_at: Option<Instant>,
    /// Why nothing can be received.
    away_reason: Option<String>,
    /// Number of times the interface came back.
    reattached: u64,
    idle_passes: u32,
    /// Argument of ppoll(2), kept for its memory.
    polled: Vec<libc::pollfd>,
    /// Sum of the counters of sockets that were closed.
    closed_sockets: XskStatistics,
}

impl XdpReceiver {
    /// The receiver of thread `index`, with the rx queue it begins with.
    pub(super) fn new(
        (state, monitor): (&Arc<InterfaceState>, &Arc<InterfaceMonitor>),
        attached: &AttachedInterface,
        index: u32,
        queue: RxQueue,
    ) -> Self {
        XdpReceiver {
            _monitor: Arc::clone(monitor),
            queues: vec![queue],
            attached: Some(attached.clone()),
            state: Arc::clone(state),
            index,
            filter: state.accept_filter(attached),
            draining: false,
            intake_closed: false,
            last_reconciled: Instant::now(),
            retry_at: None,
            away_reason: None,
            reattached: 0,
            idle_passes: 0,
            polled: Vec::new(),
            closed_sockets: XskStatistics::default(),
        }
    }

    /// Returns the state that all receivers of the interface share.
    pub fn interface_state(&self) -> Arc<InterfaceState> {
        Arc::clone(&self.state)
    }

    /// Numbers of the rx queues served now, ascending.
    pub fn serves(&self) -> Vec<u32> {
        self.queues.iter().filter(|q| !q.draining).map(|q| q.number).collect()
    }

    /// Returns where the frames of all rx queues are, as far as both sides have published.
    #[cfg(feature = "testing")]
    pub fn frames(&self) -> super::umem::FrameCensus {
        self.queues.iter().map(RxQueue::frames).fold(Default::default(), |a, b| a + b)
    }

    /// The kernel's six counters, summed over all sockets there were.
    pub fn statistics(&mut self) -> XskStatistics {
        self.queues.iter_mut().map(RxQueue::statistics).fold(self.closed_sockets, |a, b| a + b)
    }

    /// Returns the kernel's id of the XDP program; 0 while the interface is away.
    #[cfg(feature = "testing")]
    pub fn program_id(&self) -> u32 {
        self.attached.as_ref().map_or(0, |a| a.attachment.program_id())
    }

    /// Serves the rx queues there are, and no others. It costs a system call for each rx queue, and more when something
    /// changed.
    fn reconcile(&mut self) {
        self.last_reconciled = Instant::now();
        self.check_sockets();
        match &self.attached {
            Some(attached) => match self.state.rx_queues(attached) {
                Some(rx_queues) => self.serve_rx_queues(rx_queues),
                // Another thread noticed first that the interface was removed, or it is attached again already.
                None => self.leave_interface(),
            },
            None if self.queues.is_empty() => self.claim_interface(),
            None => {}
        }
    }

    /// Serves this thread's share of `rx_queues` rx queues, and no others. The engine's thread does it by itself with the
    /// number that the helper thread counted, see [`Receiver::counters`].
    pub fn serve_rx_queues(&mut self, rx_queues: u32) {
        let Some(attached) = self.attached.clone() else { return };
        self.drain_from(rx_queues);
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        let mut refusal = None;
        for number in (self.index..rx_queues).step_by(self.state.threads() as usize) {
            // One that is draining still has its socket bound to the rx queue.
            if self.queues.iter().any(|q| q.number == number) {
                continue;
            }
            if self.state.is_stopped() {
                return;
            }
            match open_added_queue(&self.state, &attached, number) {
                Ok(queue) => self.queues.push(queue),
                Err(reason) => refusal = Some(reason),
            }
        }
        self.queues.sort_by_key(|q| q.number);
        if refusal.is_some() && !self.queues.is_empty() {
            self.retry_at = Some(Instant::now() + RETRY_INTERVAL);
        }
        self.away_reason = refusal.filter(|_| self.queues.is_empty());
    }

    /// Closes the intake of rx queues from number `first` on; [`XdpReceiver::close_drained`] closes their sockets.
    fn drain_from(&mut self, first: u32) {
        let mut any = false;
        for queue in self.queues.iter_mut().filter(|q| q.number >= first && !q.draining) {
            queue.close_intake();
            (queue.draining, any) = (true, true);
        }
        if any {
            wait_for_running_programs();
            self.draining = true;
        }
    }

    /// Queries the sockets whether the interface was removed.
    fn check_sockets(&mut self) {
        // All are queried, because the kernel reports it once for each.
        let removed = self.queues.iter().filter(|q| !q.draining && q.take_interface_removed()).count();
        if removed > 0 {
            self.leave_interface();
        }
    }

    /// Gives the attachment up: the interface was removed.
    #[cold]
    fn leave_interface(&mut self) {
        let Some(attached) = self.attached.take() else { return };
        self.state.record_removed(&attached);
        self.queues.iter_mut().for_each(|q| q.draining = true);
        self.draining = true;
        self.retry_at = None;
        self.away_reason = Some(format!("interface {} was removed; waiting for it", attached.interface.name));
        self.close_drained();
    }

    /// Takes the attachment to the interface that came back, if there is one.
    #[cold]
    fn claim_interface(&mut self) {
        match self.state.claim() {
            Ok(attached) => {
                self.filter = self.state.accept_filter(&attached);
                self.away_reason = None;
                self.reattached += 1;
                let rx_queues = self.state.rx_queues(&attached);
                self.attached = Some(attached);
                // Without a number the interface was removed again; the next call finds that out.
                if let Some(rx_queues) = rx_queues {
                    self.serve_rx_queues(rx_queues);
                }
            }
            Err(reason) => {
                self.away_reason = Some(format!("interface {} was removed; {reason}", self.state.name()));
            }
        }
    }

    /// Closes the rx queues that are draining and empty.
    #[cold]
    fn close_drained(&mut self) {
        for mut queue in mem::take(&mut self.queues) {
            if queue.draining && queue.is_empty() {
                self.closed_sockets = self.closed_sockets + queue.statistics();
            } else {
                self.queues.push(queue);
            }
        }
        self.draining = self.queues.iter().any(|q| q.draining);
    }
}

impl Receiver for XdpReceiver {
    type Guard = GuardReceiver;

    fn receive<S: Sink>(&mut self, sink: &mut S) -> Result<usize> {
        let mut frames = 0;
        for queue in &mut self.queues {
            frames += queue.receive_pass(&self.filter, sink);
        }
        if self.draining {
            self.close_drained();
        }
        if frames == 0 {
            self.idle_passes = self.idle_passes.wrapping_add(1);
            if self.idle_passes.is_multiple_of(IDLE_PASSES_PER_SOCKET_CHECK) {
                self.check_sockets();
            }
        }
        Ok(frames)
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        if self.queues.is_empty() {
            // The interface is away, or has fewer rx queues than there are threads.
            thread::sleep(timeout);
            return Ok(());
        }
        self.polled.clear();
        self.polled.extend(self.queues.iter().map(|q| q.socket().pollfd()));
        // ppoll(2) never reports a removed interface, so the sockets are queried after a wait in vain.
        if !socket::wait_any(&mut self.polled, timeout)? {
            self.check_sockets();
        }
        Ok(())
    }

    fn close_intake(&mut self) {
        self.intake_closed = true;
        self.queues.iter().for_each(RxQueue::close_intake);
        wait_for_running_programs();
    }

    fn counters(&mut self) -> KernelCounters {
        if !self.intake_closed && self.last_reconciled.elapsed() >= RECONCILE_INTERVAL {
            self.reconcile();
        }
        let s = self.statistics();
        let mut notes = vec![
            ("xsk_fill_ring_empty", s.rx_fill_ring_empty),
            ("xsk_rx_invalid_descs", s.rx_invalid_descs),
            ("xsk_tx_invalid_descs", s.tx_invalid_descs),
            ("xsk_tx_ring_empty", s.tx_ring_empty),
            ("xdp_rx_queues", self.serves().len() as u64),
            ("xdp_reattached", self.reattached),
        ];
        let polling = self.queues.iter().filter(|q| q.busy_polls());
        // The least id, so that 0 shows when the NAPI of one rx queue is unknown.
        notes.extend(polling.map(RxQueue::napi_id).min().map(|id| ("busy_poll_napi_id", id.into())));
        KernelCounters {
            lost: vec![("xsk_rx_dropped", s.rx_dropped), ("xsk_rx_ring_full", s.rx_ring_full)],
            notes,
        }
    }

    fn rx_queue(&self) -> u16 {
        self.index as u16
    }

    fn away(&self) -> Option<String> {
        self.away_reason.clone()
    }
}
