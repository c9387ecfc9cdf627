//! The helper thread beside the receive threads: about once a second it looks at the interface and puts right what changed
//! ([`Host::tend`]). All of that takes the kernel's RTNL, which any veth deleted in any network namespace of the host may
//! hold for 80 ms; a receive thread that waited so long would lose what its rings cannot hold.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::host::Host;
use crate::error::{Code, Error, Result};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the last receiver waits for the thread. What the thread does then, it finishes and takes back by itself.
const PATIENCE: Duration = Duration::from_millis(250);

/// Between the thread and whoever ends it.
#[derive(Default)]
pub(super) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stop: bool,
    running: bool,
}

impl Signal {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    pub(super) fn stop(&self) {
        self.set(|s| s.stop = true);
    }

    pub(super) fn stopped(&self) -> bool {
        self.state().stop
    }

    /// Waits until `done`, or the time is over. Returns what `done` says then.
    fn wait(&self, time: Duration, done: impl Fn(&State) -> bool) -> bool {
        let deadline = Instant::now() + time;
        let mut state = self.state();
        while !done(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Owned by the receivers together; the last one gone, the thread ends.
pub(super) struct Watch(Arc<Signal>);

impl Watch {
    /// Starts the thread, in the calling thread's network namespace and on its CPUs: before receive threads are pinned.
    ///
    /// # Errors
    /// [`Code::Kernel`] when no thread can be had.
    pub(super) fn start(host: &Arc<Host>) -> Result<Arc<Self>> {
        let signal = Arc::clone(host.signal());
        signal.set(|s| s.running = true);
        let ended = Ended(Arc::clone(&signal));
        let host = Arc::clone(host);
        let thread = move || {
            // Locals go in reverse: the host first, and only then the word that the thread has let go of it.
            let ended = ended;
            let host = host;
            while !ended.0.wait(LOOK_EVERY, |s| s.stop) {
                host.tend();
            }
            host.forget_fresh();
        };
        thread::Builder::new()
            .name("millrace-host".into())
            .spawn(thread)
            .map_err(|e| Error::os(Code::Kernel, "starting thread millrace-host", e))?;
        Ok(Arc::new(Watch(signal)))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.stop();
        // The thread may hold the attachment for a moment; the receivers' owner wants it gone with them.
        self.0.wait(PATIENCE, |s| !s.running);
    }
}

/// However the thread ends.
struct Ended(Arc<Signal>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.set(|s| s.running = false);
    }
}
