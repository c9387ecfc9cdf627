//! Turns for others on the CPU of a thread with real-time priority, which would otherwise run for as long as it wants.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::affinity;

/// A thread that ran for so long without a rest sleeps for a moment all the same, so that workers and the kernel's own
/// threads on its CPU get their turn.
const RUN: Duration = Duration::from_millis(10);
const PAUSE: Duration = Duration::from_micros(100);
/// Shorter ones are no rest: poll(2) returns sooner where something is there already, and a timer that has run out before
/// the thread sleeps does not make it sleep.
const REST: Duration = Duration::from_micros(20);

/// What the calling thread owes the others. It does nothing where the thread has no such priority.
pub(crate) struct RealTime {
    on: bool,
    awake_since: Instant,
    slept: libc::c_long,
}

impl RealTime {
    /// For the calling thread.
    pub(crate) fn new(on: bool) -> Self {
        RealTime { on, awake_since: Instant::now(), slept: affinity::times_slept() }
    }

    /// Sleeps when it is time; true when it did.
    pub(crate) fn pause(&mut self, now: Instant) -> bool {
        let due = self.on && now.duration_since(self.awake_since) >= RUN;
        if due {
            thread::sleep(PAUSE);
            self.awake_since = Instant::now();
        }
        due
    }

    /// To be told of every sleep or wait since `from`. The time alone says nothing: interrupts that come in the middle of a
    /// poll(2) which returns at once, a NIC's for example, take as long.
    pub(crate) fn waited(&mut self, from: Instant) {
        if !self.on {
            return;
        }
        let after = Instant::now();
        if after.duration_since(from) < REST {
            return;
        }
        let slept = affinity::times_slept();
        if slept != self.slept {
            (self.slept, self.awake_since) = (slept, after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin(time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {}
    }

    /// How often a thread pauses that calls `wait` all the time, for so many times [`RUN`] or until it has paused twice.
    fn pauses(on: bool, runs: u32, wait: impl Fn()) -> usize {
        let mut real_time = RealTime::new(on);
        let start = Instant::now();
        let mut pauses = 0;
        while start.elapsed() < runs * RUN && pauses < 2 {
            let now = Instant::now();
            pauses += usize::from(real_time.pause(now));
            wait();
            real_time.waited(now);
        }
        pauses
    }

    #[test]
    fn only_a_sleep_is_a_rest() {
        // As long as a rest, but the CPU was never given away: what an interrupt makes of a poll(2).
        assert_eq!(pauses(true, 1000, || spin(2 * REST)), 2);
        assert_eq!(pauses(false, 5, || spin(2 * REST)), 0);
        // One may be the scheduler's doing.
        assert!(pauses(true, 10, || thread::sleep(Duration::from_millis(1))) < 2);
    }
}
