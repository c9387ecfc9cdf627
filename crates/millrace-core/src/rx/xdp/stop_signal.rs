//! Between the thread [`super::interface_monitor`] and its owners: the order to stop, and the news that it has ended.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Two flags behind a condition variable.
#[derive(Default)]
pub(super) struct StopSignal {
    flags: Mutex<Flags>,
    changed: Condvar,
}

#[derive(Default)]
struct Flags {
    stop: bool,
    running: bool,
}

impl StopSignal {
    fn flags(&self) -> MutexGuard<'_, Flags> {
        self.flags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Flags)) {
        change(&mut self.flags());
        self.changed.notify_all();
    }

    /// Orders the thread to stop; it cannot be taken back.
    pub(super) fn stop(&self) {
        self.set(|flags| flags.stop = true);
    }

    /// True from [`StopSignal::stop`] on.
    pub(super) fn is_stopped(&self) -> bool {
        self.flags().stop
    }

    /// Tells that the thread begins or has ended.
    pub(super) fn set_running(&self, running: bool) {
        self.set(|flags| flags.running = running);
    }

    /// Sleeps for `timeout`, or until the order to stop. Returns true when it was given.
    pub(super) fn wait_for_stop(&self, timeout: Duration) -> bool {
        self.wait(timeout, |flags| flags.stop)
    }

    /// Waits until the thread has ended, at most `timeout`.
    pub(super) fn wait_for_end(&self, timeout: Duration) {
        self.wait(timeout, |flags| !flags.running);
    }

    /// Waits until `done`, at most `timeout`. Returns what `done` says then.
    fn wait(&self, timeout: Duration, done: impl Fn(&Flags) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        let mut flags = self.flags();
        while !done(&flags) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            flags = self.changed.wait_timeout(flags, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
