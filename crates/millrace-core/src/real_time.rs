//! Turns for others on the CPU of a thread with real-time priority, which would otherwise run for as long as it wants.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::sys::scheduling;

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
}

impl RealTime {
    /// For the calling thread, as the kernel schedules it now.
    pub(crate) fn of_this_thread() -> Self {
        Self::new(scheduling::fifo_priority().is_some())
    }

    fn new(on: bool) -> Self {
        RealTime { on, awake_since: Instant::now() }
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

    /// Sleeps or waits as told, and counts it as a rest when it was one. The time alone says nothing: interrupts that come
    /// in the middle of a poll(2) which returns at once, a NIC's for example, take as long.
    pub(crate) fn wait<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        if !self.on {
            return wait();
        }
        let (from, slept) = (Instant::now(), scheduling::times_slept());
        let result = wait();
        let after = Instant::now();
        if after.duration_since(from) >= REST && scheduling::times_slept() != slept {
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

    /// How often a thread pauses that calls `wait` all the time, for so many times [`RUN`] or until it has paused twice.
    fn pauses(on: bool, runs: u32, wait: impl Fn()) -> usize {
        let mut real_time = RealTime::new(on);
        let start = Instant::now();
        let mut pauses = 0;
        while start.elapsed() < runs * RUN && pauses < 2 {
            pauses += usize::from(real_time.pause(Instant::now()));
            real_time.wait(&wait);
        }
        pauses
    }

    #[test]
    fn only_a_sleep_is_a_rest() {
        // As long as a rest, but the CPU was never given away: what an interrupt makes of a poll(2).
        assert_eq!(pauses(true, 1000, || spin(2 * REST)), 2);
        assert_eq!(pauses(false, 5, || spin(2 * REST)), 0);
        // However long the scheduler keeps the thread away: after a sleep no pause is due.
        let mut real_time = RealTime::new(true);
        for _ in 0..50 {
            let before = real_time.awake_since;
            real_time.wait(|| thread::sleep(Duration::from_millis(1)));
            assert!(real_time.awake_since > before);
            assert!(!real_time.pause(real_time.awake_since + RUN - Duration::from_nanos(1)));
        }
    }

    #[test]
    fn what_was_slept_elsewhere_is_not_credited_to_a_later_wait() {
        let mut real_time = RealTime::new(true);
        let since = real_time.awake_since;
        // A sleep that nobody reports, and the one of a pause.
        thread::sleep(Duration::from_millis(1));
        real_time.wait(|| spin(2 * REST));
        assert_eq!(real_time.awake_since, since);
        assert!(real_time.pause(since + RUN));
        let since = real_time.awake_since;
        real_time.wait(|| spin(2 * REST));
        assert_eq!(real_time.awake_since, since);
        real_time.wait(|| thread::sleep(Duration::from_millis(1)));
        assert!(real_time.awake_since > since);
    }
}
