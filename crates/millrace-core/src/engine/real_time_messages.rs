//! The messages of the start line and of `millrace check` about the real-time priority of the receive threads.

use std::io;

/// Says why SCHED_FIFO was refused and what it needs. `e` is the error of [`crate::sys::scheduling::set_fifo`].
pub(crate) fn fifo_refused(priority: u8, e: &io::Error) -> String {
    format!(
        "receive threads have no real-time priority: SCHED_FIFO {priority} needs CAP_SYS_NICE, or RLIMIT_RTPRIO of \
         {priority} (ulimit -r), and in a cgroup v1 cpu.rt_runtime_us ({e})"
    )
}

/// Says what SCHED_FIFO means for a thread that never sleeps.
pub(crate) const FIFO_WITHOUT_SLEEP: &str = "receive threads never sleep (MILLRACE_BUSY_POLL=always) and have real-time \
    priority: nothing else runs on their CPUs, the kernel's own threads included, but for the 5 % that \
    sched_rt_runtime_us leaves";

/// Says what SCHED_FIFO means for more receive threads than CPUs.
pub(crate) fn fifo_crowded(threads: usize, cpus: usize) -> String {
    format!(
        "receive threads with real-time priority share CPUs, {threads} on {cpus}: while one of them pauses another runs, and \
         under overload others get the 5 % there that sched_rt_runtime_us leaves; give each thread a CPU \
         (MILLRACE_RX_CPUS), or start fewer (MILLRACE_RX_THREADS; with xdp, fewer rx queues)"
    )
}
