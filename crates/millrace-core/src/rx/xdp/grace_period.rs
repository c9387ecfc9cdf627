//! Waiting for XDP programs that are running.

use std::{thread, time::Duration};

/// The pause that replaces membarrier(2) where it is refused. A program runs for microseconds. Too low, and a program that was
/// interrupted in the middle could deliver afterwards; too high, and the end of the service, or of an rx queue, takes longer.
const FALLBACK_PAUSE: Duration = Duration::from_millis(10);

/// Returns when every XDP program that was running at the call has finished. Such a program may have looked the XSKMAP up
/// before a socket was taken out of it. membarrier(2) with MEMBARRIER_CMD_GLOBAL waits for an RCU grace period, and XDP runs
/// inside RCU read-side sections, delivery to the socket included. Where it is refused (old kernels, nohz_full), a pause
/// takes its place.
pub(super) fn wait_for_running_programs() {
    // SAFETY: membarrier takes three integers and touches no memory of this process.
    let rc = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if rc < 0 {
        thread::sleep(FALLBACK_PAUSE);
    }
}
