//! What one receive thread reads: the rx queues that fall to it, which come and go with the interface.
//!
//! Thread r of T serves rx queues r, r + T, r + 2T … T is the number of rx queues at the start; what `ethtool -L` adds
//! later is shared out among the threads there are. About once a second a thread compares what it has with what the helper
//! thread found there is (see [`XdpReceiver::look`]); by itself it asks the kernel nothing that could take long. An interface that was removed is waited for: its sockets are emptied and closed, and
//! when one of that name exists again the program is attached to it and sockets are opened as at the start.

use std::{
    mem,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    host::{Attached, Host},
    queue::{RxQueue, Wanted},
    socket::{self, XskStatistics},
    watch::Watch,
};
use crate::{
    error::Result,
    rx::{KernelCounters, Receiver, Sink},
};

/// A receiver that never waits looks after its sockets' health once in so many idle passes.
const IDLE_CHECK: u32 = 1 << 16;
/// How often to read how many rx queues the interface has, and whether a removed one is back.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often to try an rx queue again that was refused while others are served: each try costs the time to get packet
/// memory.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);

/// Receives from the rx queues of one thread.
///
/// Field order: the helper thread has let go of the attachment when the last queue does.
pub struct XdpReceiver {
    _watch: Arc<Watch>,
    queues: Vec<RxQueue>,
    /// None while the interface is away.
    attached: Option<Attached>,
    host: Arc<Host>,
    /// Number of this thread, and so of its first rx queue.
    index: u32,
    wanted: Wanted,
    /// Some queue is leaving.
    leaving: bool,
    /// `close_intake` was called.
    closed: bool,
    looked: Instant,
    /// Not before this may refused queues be tried again.
    retry: Option<Instant>,
    /// Why nothing can be received.
    away: Option<String>,
    /// Times the interface was found again.
    reattached: u64,
    idle_passes: u32,
    polled: Vec<libc::pollfd>,
    /// Counters of sockets that were closed.
    past: XskStatistics,
}

impl XdpReceiver {
    /// Thread `index`, with the queue it begins with.
    pub(super) fn new(
        (host, watch): (&Arc<Host>, &Arc<Watch>),
        attached: &Attached,
        index: u32,
        queue: RxQueue,
    ) -> Self {
        XdpReceiver {
            _watch: Arc::clone(watch),
            queues: vec![queue],
            attached: Some(attached.clone()),
            host: Arc::clone(host),
            index,
            wanted: host.wanted(attached),
            leaving: false,
            closed: false,
            looked: Instant::now(),
            retry: None,
            away: None,
            reattached: 0,
            idle_passes: 0,
            polled: Vec::new(),
            past: XskStatistics::default(),
        }
    }

    /// What all receivers of the interface share.
    pub fn host(&self) -> Arc<Host> {
        Arc::clone(&self.host)
    }

    /// Rx queues served now, ascending.
    pub fn serves(&self) -> Vec<u32> {
        self.queues.iter().filter(|q| !q.leaving).map(|q| q.number).collect()
    }

    /// Where the frames of all queues are, as far as both sides have published. For tests and diagnosis.
    #[cfg(any(test, feature = "testing"))]
    pub fn frames(&self) -> super::umem::FrameCensus {
        self.queues.iter().map(RxQueue::frames).fold(Default::default(), |a, b| a + b)
    }

    /// All six kernel counters, over all sockets there were.
    pub fn statistics(&mut self) -> XskStatistics {
        self.queues.iter_mut().map(RxQueue::statistics).fold(self.past, |a, b| a + b)
    }

    /// The kernel's id of the XDP program; 0 while the interface is away.
    #[cfg(any(test, feature = "testing"))]
    pub fn program_id(&self) -> u32 {
        self.attached.as_ref().map_or(0, |a| a.attachment.program_id())
    }

    /// Compares what is served with what there is. Costs a system call for each queue, and much more when something
    /// changed.
    fn look(&mut self) {
        self.looked = Instant::now();
        self.health();
        match &self.attached {
            Some(attached) => match self.host.rx_queues(attached) {
                Some(queues) => self.follow(queues),
                // Another thread saw first that the interface was removed, or it is attached again already.
                None => self.lose(),
            },
            None if self.queues.is_empty() => self.join(),
            None => {}
        }
    }

    /// Serves what falls to this thread when the interface has `queues` rx queues, and nothing else. The engine's thread
    /// does it by itself with the number that the helper thread found, see [`Receiver::counters`].
    pub fn follow(&mut self, queues: u32) {
        let Some(attached) = self.attached.clone() else { return };
        let gone = |q: &&mut RxQueue| q.number >= queues && !q.leaving;
        let mut closed = false;
        for queue in self.queues.iter_mut().filter(gone) {
            queue.close_intake();
            (queue.leaving, closed) = (true, true);
        }
        if closed {
            wait_for_running_programs();
            self.leaving = true;
        }
        if self.retry.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry = None;
        let mut refused = None;
        for number in (self.index..queues).step_by(self.host.threads() as usize) {
            // One that is leaving still holds its rx queue.
            if self.queues.iter().any(|q| q.number == number) {
                continue;
            }
            if self.host.stopped() {
                return;
            }
            match self.host.open_queue(&attached, number) {
                Ok(queue) => self.queues.push(queue),
                Err(why) => refused = Some(why),
            }
        }
        self.queues.sort_by_key(|q| q.number);
        if refused.is_some() && !self.queues.is_empty() {
            self.retry = Some(Instant::now() + REFUSED_AGAIN);
        }
        self.away = refused.filter(|_| self.queues.is_empty());
    }

    /// Takes note of a removed interface.
    fn health(&mut self) {
        // All are asked, because each says it once.
        let lost = self.queues.iter().filter(|q| !q.leaving && q.lost_interface()).count();
        if lost > 0 {
            self.lose();
        }
    }

    #[cold]
    fn lose(&mut self) {
        let Some(attached) = self.attached.take() else { return };
        self.host.lost(&attached);
        self.queues.iter_mut().for_each(|q| q.leaving = true);
        self.leaving = true;
        self.retry = None;
        self.away = Some(format!("interface {} was removed; waiting for it", attached.interface.name));
        self.close_empty();
    }

    #[cold]
    fn join(&mut self) {
        match self.host.join() {
            Ok(attached) => {
                self.wanted = self.host.wanted(&attached);
                self.away = None;
                self.reattached += 1;
                let queues = self.host.rx_queues(&attached);
                self.attached = Some(attached);
                // Gone again already: the next look says so.
                if let Some(queues) = queues {
                    self.follow(queues);
                }
            }
            Err(why) => {
                self.away = Some(format!("interface {} was removed; {why}", self.host.name()));
            }
        }
    }

    /// Closes what is leaving and has nothing more for us.
    #[cold]
    fn close_empty(&mut self) {
        for mut queue in mem::take(&mut self.queues) {
            if queue.leaving && queue.is_empty() {
                self.past = self.past + queue.statistics();
            } else {
                self.queues.push(queue);
            }
        }
        self.leaving = self.queues.iter().any(|q| q.leaving);
    }
}

impl Receiver for XdpReceiver {
    fn receive<S: Sink>(&mut self, sink: &mut S) -> Result<usize> {
        let mut frames = 0;
        for queue in &mut self.queues {
            frames += queue.pass(&self.wanted, sink);
        }
        if self.leaving {
            self.close_empty();
        }
        if frames == 0 {
            self.idle_passes = self.idle_passes.wrapping_add(1);
            if self.idle_passes.is_multiple_of(IDLE_CHECK) {
                self.health();
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
        self.polled.extend(self.queues.iter().map(|q| socket::pollin(q.socket().as_fd().as_raw_fd())));
        // poll(2) never reports a removed interface, so whoever waited in vain asks.
        if !socket::wait_any(&mut self.polled, timeout)? {
            self.health();
        }
        Ok(())
    }

    fn close_intake(&mut self) {
        self.closed = true;
        self.queues.iter().for_each(RxQueue::close_intake);
        wait_for_running_programs();
    }

    fn counters(&mut self) -> KernelCounters {
        if !self.closed && self.looked.elapsed() >= LOOK_EVERY {
            self.look();
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
        // Active on all, or said to be on none.
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
        self.away.clone()
    }
}

/// Returns when every XDP program that was running at the call has finished. Such a program may have looked the map up
/// before a slot was emptied. membarrier(2) with MEMBARRIER_CMD_GLOBAL waits for an RCU grace period, and XDP runs
/// inside RCU read-side sections, delivery to the socket included. Refused (old kernels, nohz_full) it falls back to a
/// pause far longer than any program runs.
fn wait_for_running_programs() {
    // SAFETY: membarrier takes three integers and touches no memory of ours.
    let rc = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if rc < 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
}
