//! Forced pauses of a thread with real-time priority, which would otherwise run without end (sched(7)).

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::sys::scheduling;

/// Longest time that a real-time thread runs without having slept. Too low: the pauses cost receive time (100 µs in 10 ms
/// are 1 %). Too high: workers and the kernel's own threads on this CPU wait for so long, and from 950 ms on
/// sched_rt_runtime_us throttles the thread instead.
const MAX_RUN: Duration = Duration::from_millis(10);
/// Length of a forced pause. Too low: others on this CPU get too little done in it. Too high: rings overflow meanwhile.
const PAUSE: Duration = Duration::from_micros(100);
/// Shortest wait that counts as a sleep. Too low: waits that do not give the CPU away count, because poll(2) returns at once
/// when frames are available, and a timer that expires before the thread sleeps does not make it sleep. Too high: real
/// sleeps do not count, and the thread pauses without need.
const MIN_SLEEP: Duration = Duration::from_micros(20);

/// Watches how long the calling thread has run without a sleep. It does nothing where the thread has no real-time priority.
pub(super) struct RealTime {
    enabled: bool,
    awake_since: Instant,
}

impl RealTime {
    /// Makes one for the calling thread, as the kernel schedules it now.
    pub(super) fn for_current_thread() -> Self {
        Self::new(scheduling::fifo_priority().is_some())
    }

    fn new(enabled: bool) -> Self {
        RealTime { enabled, awake_since: Instant::now() }
    }

    /// Sleeps for a moment when the thread has run for too long; true when it did.
    pub(super) fn pause_if_due(&mut self, now: Instant) -> bool {
        let due = self.enabled && now.duration_since(self.awake_since) >= MAX_RUN;
        if due {
            thread::sleep(PAUSE);
            self.awake_since = Instant::now();
        }
        due
    }

    /// Runs `wait`, and counts it as a sleep when the thread gave its CPU away in it. The elapsed time alone does not tell:
    /// interrupts in the middle of a poll(2) that returns at once, of a NIC for example, take as long.
    pub(super) fn wait<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        if !self.enabled {
            return wait();
        }
        let (from, slept) = (Instant::now(), scheduling::voluntary_switches());
        let result = wait();
        let after = Instant::now();
        if after.duration_since(from) >= MIN_SLEEP && scheduling::voluntary_switches() != slept {
            self.awake_since = after;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin(time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {}
    }

    /// How often a thread pauses that calls `wait` all the time, for so many times [`MAX_RUN`] or until it has paused twice.
    fn pauses(enabled: bool, runs: u32, wait: impl Fn()) -> usize {
        let mut real_time = RealTime::new(enabled);
        let start = Instant::now();
        let mut pauses = 0;
        while start.elapsed() < runs * MAX_RUN && pauses < 2 {
            pauses += usize::from(real_time.pause_if_due(Instant::now()));
            real_time.wait(&wait);
        }
        pauses
    }

    #[test]
    fn only_a_sleep_is_a_rest() {
        // A poll(2) that an interrupt prolonged takes as long as a sleep, but never gives the CPU away.
        assert_eq!(pauses(true, 1000, || spin(2 * MIN_SLEEP)), 2);
        assert_eq!(pauses(false, 5, || spin(2 * MIN_SLEEP)), 0);
        // However long the scheduler keeps the thread away: after a sleep no pause is due.
        let mut real_time = RealTime::new(true);
        for _ in 0..50 {
            let before = real_time.awake_since;
            real_time.wait(|| thread::sleep(Duration::from_millis(1)));
            assert!(real_time.awake_since > before);
            assert!(!real_time.pause_if_due(real_time.awake_since + MAX_RUN - Duration::from_nanos(1)));
        }
    }

    #[test]
    fn what_was_slept_elsewhere_is_not_credited_to_a_later_wait() {
        let mut real_time = RealTime::new(true);
        let since = real_time.awake_since;
        // A sleep outside of `wait`, and the one of a pause.
        thread::sleep(Duration::from_millis(1));
        real_time.wait(|| spin(2 * MIN_SLEEP));
        assert_eq!(real_time.awake_since, since);
        assert!(real_time.pause_if_due(since + MAX_RUN));
        let since = real_time.awake_since;
        real_time.wait(|| spin(2 * MIN_SLEEP));
        assert_eq!(real_time.awake_since, since);
        real_time.wait(|| thread::sleep(Duration::from_millis(1)));
        assert!(real_time.awake_since > since);
    }
}
