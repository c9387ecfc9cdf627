//! A receive thread: when it reads its receiver, how it waits, and how it ends.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::real_time::RealTime;
use crate::{
    config::BusyPoll,
    error::Result,
    rx::Receiver,
    scatter::{Scatter, ThreadCounters},
    sys::scheduling,
};

/// Longest sleep of an idle receive thread. Too low: idle threads wake up for nothing. Too high: a stop takes that much
/// longer, and the kernel's counters are read that much later.
const IDLE_SLEEP: Duration = Duration::from_millis(100);
/// How often a thread reads the kernel's counters, which is also when receivers do their maintenance. Too low: the system
/// calls take time from receiving. Too high: metrics are stale, and a receiver notices late that its interface changed.
const KERNEL_COUNTERS_INTERVAL: Duration = Duration::from_millis(250);
/// Most time for emptying the kernel's rings after arrivals were stopped. Too low: with slow rules, datagrams that the
/// kernel holds are lost at the stop. Too high: a receiver that is never found empty delays the stop for so long.
const FINAL_DRAIN: Duration = Duration::from_secs(2);
/// A pass that read so many frames is followed by the next one at once, because more frames are probably waiting. Too low:
/// the thread spins at moderate rates. Too high: it sleeps while its ring fills.
const BACKLOG_FRAMES: usize = 64;
/// How long after the last frame an adaptive thread goes on reading at its pace, before it blocks in poll(2). Too low: short
/// gaps cost a poll(2) and an interrupt for each frame behind them. Too high: a thread wakes up at its pace although the
/// traffic has ended.
const ADAPTIVE_WINDOW: Duration = Duration::from_millis(2);
/// How long a thread that ended by an error goes on waking workers for the datagrams it left in lanes. Too low: a worker
/// that was busy all the time falls asleep on them, until another thread wakes it. Too high has no cost: a stop ends it.
const FINAL_WAKE_UPS: Duration = Duration::from_secs(1);
/// How long to wait before a TPACKET_V3 ring that looks empty is empty. It must exceed the time after which the kernel
/// hands over a partly filled block, two periods of the retire timer (`tp_retire_blk_tov`): 2 ms, and before Linux 6.18, where
/// the timer ran on jiffies, up to 8 ms (at HZ=250). Too low: the frames of an open block are lost at the end. Too high: every
/// stop takes longer, because it waits twice.
const BLOCK_RETIRE_GRACE: Duration = Duration::from_millis(10);

/// The state that one receive thread owns.
pub(super) struct ReceiveThread<R> {
    pub(super) receiver: R,
    pub(super) scatter: Scatter,
    pub(super) counters: Arc<ThreadCounters>,
    pub(super) cpu: Option<usize>,
    pub(super) priority: Option<u8>,
    pub(super) busy_poll: BusyPoll,
    /// Sleep of an adaptive thread between two passes while traffic flows.
    pub(super) pace: Duration,
    pub(super) stop: Arc<AtomicBool>,
}

impl<R: Receiver> ReceiveThread<R> {
    /// Runs until it is stopped or fails.
    pub(super) fn run(mut self) {
        self.set_scheduling();
        let ended = self.receive_until_stopped();
        let alone = ended.is_err() && R::OTHERS_TAKE_OVER;
        if let Err(e) = ended {
            self.record_error(e.to_string());
        }
        if alone {
            self.scatter.wake_all();
        }
        // A receiver whose group takes over goes on receiving until it is dropped, so it is read until it looks empty. One
        // that is never found empty is closed like any other: what that loses is less than a whole ring.
        if !alone || !self.drain_open_receiver() {
            self.receiver.close_intake();
            self.drain_closed_receiver();
        }
        self.read_kernel_counters();
        if !alone {
            self.scatter.wake_all();
        }
        // Dropped now and not after the last wake-ups, so that others get its share of the group or the queue at once.
        drop(self.receiver);
        // When this thread ends alone, no other thread inspects its lanes: a worker that is about to sleep must still be
        // woken for what lies there.
        let deadline = Instant::now() + FINAL_WAKE_UPS;
        while !self.stop.load(Ordering::Acquire) && Instant::now() < deadline {
            match self.scatter.wake_due(Instant::now()) {
                Some(again) => thread::sleep(again),
                None => break,
            }
        }
    }

    /// Sets the CPU and the priority, and records what the kernel made of them. A refusal is no reason to stop: `open`
    /// verified both, so a cpuset or a limit has shrunk since, and the thread shows no CPU or no priority.
    fn set_scheduling(&mut self) {
        let pinned = self.cpu.is_some_and(|cpu| scheduling::pin_to(cpu).is_ok());
        self.counters.pinned.store(pinned, Ordering::Relaxed);
        if let Some(priority) = self.priority {
            let _ = scheduling::set_fifo(priority);
        }
        self.counters.priority.store(scheduling::fifo_priority().unwrap_or(0), Ordering::Relaxed);
        scheduling::minimize_timer_slack();
        self.scatter.set_cpu(scheduling::current_cpu());
    }

    fn receive_until_stopped(&mut self) -> Result<()> {
        let mut last_frame: Option<Instant> = None;
        let mut real_time = RealTime::for_current_thread();
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
            if now.duration_since(counters_at) >= KERNEL_COUNTERS_INTERVAL {
                counters_at = now;
                self.read_kernel_counters();
            }
            if self.busy_poll == BusyPoll::Always {
                std::hint::spin_loop();
                continue;
            }
            if real_time.pause_if_due(now) {
                self.counters.sleeps.add(1);
                continue;
            }
            if frames >= BACKLOG_FRAMES {
                continue;
            }
            self.counters.sleeps.add(1);
            let longest = wake_in.map_or(IDLE_SLEEP, |w| w.min(IDLE_SLEEP));
            let flowing = last_frame.is_some_and(|at| now.duration_since(at) < ADAPTIVE_WINDOW);
            if flowing && self.busy_poll == BusyPoll::Adaptive && !R::POLL_COALESCES {
                real_time.wait(|| thread::sleep(self.pace.min(longest)));
            } else {
                real_time.wait(|| self.receiver.wait(longest))?;
            }
        }
        Ok(())
    }

    /// Reads a receiver that goes on receiving until it is dropped, which must happen right after. False when it never
    /// looked empty in time.
    fn drain_open_receiver(&mut self) -> bool {
        let deadline = Instant::now() + FINAL_DRAIN;
        thread::sleep(BLOCK_RETIRE_GRACE);
        let mut real_time = RealTime::for_current_thread();
        while Instant::now() < deadline {
            // A receiver that fails again is as good as empty; its first error is recorded already.
            let found = self.receiver.receive(&mut self.scatter).unwrap_or(0);
            let now = Instant::now();
            self.scatter.publish(now);
            self.scatter.wake_due(now);
            if found == 0 {
                return true;
            }
            real_time.pause_if_due(now);
        }
        false
    }

    /// Reads what the kernel still holds after the intake was closed. The receiver is empty when it looks empty twice, with
    /// time in between for an open block to be handed over.
    fn drain_closed_receiver(&mut self) {
        let deadline = Instant::now() + FINAL_DRAIN;
        let mut idle = 0;
        let mut real_time = RealTime::for_current_thread();
        while idle < 2 && Instant::now() < deadline {
            match self.receiver.receive(&mut self.scatter) {
                Ok(0) => {
                    idle += 1;
                    thread::sleep(BLOCK_RETIRE_GRACE);
                }
                Ok(_) => idle = 0,
                Err(e) => {
                    self.record_error(e.to_string());
                    break;
                }
            }
            let now = Instant::now();
            self.scatter.publish(now);
            self.scatter.wake_due(now);
            real_time.pause_if_due(now);
        }
        self.scatter.publish(Instant::now());
    }

    fn read_kernel_counters(&mut self) {
        let counters = self.receiver.counters();
        *self.counters.away.lock().unwrap_or_else(PoisonError::into_inner) = self.receiver.away();
        *self.counters.kernel.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    fn record_error(&self, error: String) {
        *self.counters.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}
