//! The helper thread beside the receive threads: it polls the interface and adapts to what changed. All of that takes the
//! kernel's RTNL, which any veth deleted in any network namespace of the host may hold for 80 ms; a receive thread that waited
//! so long would lose what its rings cannot hold.

use std::{sync::Arc, thread, time::Duration};

use super::{interface_state::InterfaceState, reattach, recount, stop_signal::StopSignal};
use crate::error::{Code, Error, Result};

/// Pause between two polls. Too low, and the RTNL, which the whole host shares, is taken for nothing; too high, and rx queues
/// that were added, or an interface that came back, are served late (their packets go up the stack until then).
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long the last receiver's drop waits for the thread to end. Too low, and the program may still be attached when the
/// engine has closed; too high, and a thread that waits for the RTNL delays the end of the process. A thread that is not
/// waited for finishes what it does and undoes it.
const EXIT_TIMEOUT: Duration = Duration::from_millis(250);

/// The thread's handle. The receivers own it together; the drop of the last one ends the thread.
pub(super) struct InterfaceMonitor(Arc<StopSignal>);

impl InterfaceMonitor {
    /// Starts the thread, in the network namespace and on the CPUs of the calling thread: before receive threads are pinned.
    ///
    /// # Errors
    /// [`Code::Kernel`] when no thread can be started.
    pub(super) fn start(state: &Arc<InterfaceState>) -> Result<Arc<Self>> {
        let signal = Arc::clone(state.stop_signal());
        signal.set_running(true);
        let running = Running(Arc::clone(&signal));
        let state = Arc::clone(state);
        let thread = move || {
            // Locals are dropped in reverse order: the state first, and only then is it told that the thread has ended.
            let running = running;
            let state = state;
            while !running.0.wait_for_stop(POLL_INTERVAL) {
                poll_interface(&state);
            }
            state.drop_unclaimed();
        };
        thread::Builder::new()
            .name("millrace-host".into())
            .spawn(thread)
            .map_err(|e| Error::os(Code::Kernel, "starting thread millrace-host", e))?;
        Ok(Arc::new(InterfaceMonitor(signal)))
    }
}

impl Drop for InterfaceMonitor {
    fn drop(&mut self) {
        self.0.stop();
        // The thread may own the attachment for a moment, and the program is to be gone with the receivers.
        self.0.wait_for_end(EXIT_TIMEOUT);
    }
}

/// Tells the end of the thread, also when it panics or cannot be started.
struct Running(Arc<StopSignal>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set_running(false);
    }
}

/// Counts the rx queues of the interface, or attaches to it when it is back.
fn poll_interface(state: &InterfaceState) {
    match state.attached() {
        Some(attached) => recount::recount_rx_queues(state, &attached),
        None => {
            if let Err(e) = reattach::reattach(state) {
                state.record_away(e.message);
            }
        }
    }
}
