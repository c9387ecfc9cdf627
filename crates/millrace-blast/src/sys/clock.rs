//! Time, and sleeping until a time.

/// CLOCK_MONOTONIC in nanoseconds.
#[inline]
pub(crate) fn now_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid, writable timespec for the call. CLOCK_MONOTONIC always exists, so it cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Sleeps until CLOCK_MONOTONIC reaches `ns`, or a signal comes.
pub(crate) fn sleep_until_ns(ns: u64) {
    let t = libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: `t` is a valid timespec with tv_nsec below 10^9; TIMER_ABSTIME ignores the null remainder pointer.
    unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const t, std::ptr::null_mut())
    };
}

/// Sets the timer slack of the calling thread to its minimum, 1 ns: the default of 50 µs (prctl(2), PR_SET_TIMERSLACK) is half
/// a burst.
pub(crate) fn minimize_timer_slack() {
    // SAFETY: PR_SET_TIMERSLACK takes one integer and accesses no memory of this process.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}
