//! A receive thread: when it looks, how it waits, and how it ends.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    config::BusyPoll, error::Result, real_time::RealTime, rx::Receiver, scatter::Scatter,
    stats::ThreadCounters, sys::scheduling,
};

/// Longest sleep of an idle receive thread: how soon it sees a stop request and refreshes the kernel's counters.
const IDLE_SLEEP: Duration = Duration::from_millis(100);
/// How often a busy thread reads the kernel's counters.
const KERNEL_COUNTERS_EVERY: Duration = Duration::from_millis(250);
/// Bound on emptying the kernel's rings after arrivals were stopped.
const FINAL_DRAIN: Duration = Duration::from_secs(2);
/// A pass that found this many frames has more waiting: look again at once.
const BACKLOG: usize = 64;
/// An adaptive thread keeps looking at its pace for this long after the last frame, then it blocks in poll(2).
const TRAFFIC_FLOWS: Duration = Duration::from_millis(2);
/// How long a thread that ends by an error sees to it that its last datagrams are taken.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// Longer than a TPACKET_V3 block stays open (1 ms).
const RETIRE_GRACE: Duration = Duration::from_millis(5);

/// What one receive thread owns.
pub(crate) struct ReceiveThread<R> {
    pub(crate) receiver: R,
    pub(crate) scatter: Scatter,
    pub(crate) counters: Arc<ThreadCounters>,
    pub(crate) cpu: Option<usize>,
    pub(crate) priority: Option<u8>,
    pub(crate) busy_poll: BusyPoll,
    /// How often an adaptive thread looks while traffic flows.
    pub(crate) pace: Duration,
    pub(crate) stop: Arc<AtomicBool>,
}

impl<R: Receiver> ReceiveThread<R> {
    /// Runs until it is stopped or fails.
    pub(crate) fn run(mut self) {
        // `open` checked the list; a cpuset that shrank since is not worth stopping for: the thread then shows no CPU.
        let pinned = self.cpu.is_some_and(|cpu| scheduling::pin_to(cpu).is_ok());
        self.counters.pinned.store(pinned, Ordering::Relaxed);
        if let Some(priority) = self.priority {
            // `open` tried it; what the kernel has now is what the thread shows.
            let _ = scheduling::set_fifo(priority);
        }
        self.counters.priority.store(scheduling::fifo_priority().unwrap_or(0), Ordering::Relaxed);
        scheduling::minimize_timer_slack();
        self.scatter.set_cpu(scheduling::current_cpu());
        let ended = self.receive_until_stopped();
        let alone = ended.is_err() && R::OTHERS_TAKE_OVER;
        if let Err(e) = ended {
            self.note(e.to_string());
        }
        if alone {
            self.scatter.wake_all();
        }
        // One that is never found empty closes as if it were not alone: what that loses is less than a whole ring.
        if !alone || !self.read_out() {
            self.receiver.close_intake();
            self.drain();
        }
        self.read_kernel_counters();
        if !alone {
            self.scatter.wake_all();
        }
        // Its share of the group or the queue falls to others now, not when the last look is over.
        drop(self.receiver);
        // Nobody looks after this thread's lanes when it ends alone; a worker about to sleep must still be woken for them.
        let patience = Instant::now() + LAST_LOOK;
        while !self.stop.load(Ordering::Acquire) && Instant::now() < patience {
            match self.scatter.wake_due(Instant::now()) {
                Some(again) => thread::sleep(again),
                None => break,
            }
        }
    }

    fn receive_until_stopped(&mut self) -> Result<()> {
        let mut last_frame: Option<Instant> = None;
        let mut real_time = RealTime::of_this_thread();
        let mut counters_at = Instant::now();
        while !self.stop.load(Ordering::Acquire) {
            self.scatter.refresh();
            let frames = self.receiver.receive(&mut self.scatter)?;
            let now = Instant::now();
            if frames > 0 {
                self.scatter.publish(now);
                last_frame = Some(now);
            }
            let wake_in = self.scatter.wake_due(now);
            if now.duration_since(counters_at) >= KERNEL_COUNTERS_EVERY {
                counters_at = now;
                self.read_kernel_counters();
            }
            if self.busy_poll == BusyPoll::Always {
                std::hint::spin_loop();
                continue;
            }
            if real_time.pause(now) {
                self.counters.sleeps.add(1);
                continue;
            }
            if frames >= BACKLOG {
                continue;
            }
            self.counters.sleeps.add(1);
            let longest = wake_in.map_or(IDLE_SLEEP, |w| w.min(IDLE_SLEEP));
            let flowing = last_frame.is_some_and(|at| now.duration_since(at) < TRAFFIC_FLOWS);
            if flowing && self.busy_poll == BusyPoll::Adaptive && !R::POLL_COALESCES {
                real_time.wait(|| thread::sleep(self.pace.min(longest)));
            } else {
                real_time.wait(|| self.receiver.wait(longest))?;
            }
        }
        Ok(())
    }

    /// Takes what is there, of a receiver that goes on receiving until it is dropped, right after. False when there was
    /// more than it could take in time.
    fn read_out(&mut self) -> bool {
        let deadline = Instant::now() + FINAL_DRAIN;
        thread::sleep(RETIRE_GRACE);
        let mut real_time = RealTime::of_this_thread();
        while Instant::now() < deadline {
            // What the error was is noted already.
            let found = self.receiver.receive(&mut self.scatter).unwrap_or(0);
            let now = Instant::now();
            self.scatter.publish(now);
            self.scatter.wake_due(now);
            if found == 0 {
                return true;
            }
            real_time.pause(now);
        }
        false
    }

    /// Takes what the kernel still holds. A block of a TPACKET_V3 ring shows only when its timeout retires it, so
    /// emptiness counts after a second look.
    fn drain(&mut self) {
        let deadline = Instant::now() + FINAL_DRAIN;
        let mut idle = 0;
        let mut real_time = RealTime::of_this_thread();
        while idle < 2 && Instant::now() < deadline {
            match self.receiver.receive(&mut self.scatter) {
                Ok(0) => {
                    idle += 1;
                    thread::sleep(RETIRE_GRACE);
                }
                Ok(_) => idle = 0,
                Err(e) => {
                    self.note(e.to_string());
                    break;
                }
            }
            let now = Instant::now();
            self.scatter.publish(now);
            self.scatter.wake_due(now);
            real_time.pause(now);
        }
        self.scatter.publish(Instant::now());
    }

    fn read_kernel_counters(&mut self) {
        let counters = self.receiver.counters();
        *self.counters.away.lock().unwrap_or_else(PoisonError::into_inner) = self.receiver.away();
        *self.counters.kernel.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    fn note(&self, error: String) {
        *self.counters.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}
