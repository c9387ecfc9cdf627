//! What the scheduler is told: CPUs this process may use, pinning a thread to one, real-time priority.

use std::{io, mem};

/// CPUs the calling thread may run on, ascending (sched_getaffinity(2)); honours cgroup cpusets and taskset.
pub fn allowed() -> io::Result<Vec<usize>> {
    // SAFETY: cpu_set_t is plain bits; all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the size and the pointer describe `set`, which the call fills; pid 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &raw mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every index is below CPU_SETSIZE, the number of bits in the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// Pins the calling thread to one CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    restrict(&[cpu])
}

/// Lets the calling thread run on these CPUs only (sched_setaffinity(2); needs no privilege).
pub fn restrict(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: cpu_set_t is plain bits; all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: `cpu` is below CPU_SETSIZE, checked above.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the size and the pointer describe `set`, which the call only reads; pid 0 is the calling thread.
    if unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &raw const set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets the calling thread run before all that have no real-time priority, for as long as it wants (SCHED_FIFO,
/// sched(7)). `priority` is 1..=99.
///
/// # Errors
/// EPERM without CAP_SYS_NICE, when RLIMIT_RTPRIO is lower, and in a cgroup (v1, CONFIG_RT_GROUP_SCHED) that has no
/// real-time budget.
pub fn fifo(priority: u8) -> io::Result<()> {
    // SAFETY: sched_param is plain old data; all zero is valid (musl has further members).
    let mut param: libc::sched_param = unsafe { mem::zeroed() };
    param.sched_priority = priority.into();
    // SAFETY: the calling thread's own handle, and a parameter that the call only reads.
    match unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_FIFO, &raw const param) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Takes real-time priority away from the calling thread (SCHED_OTHER, sched(7)): threads inherit it from the one that
/// starts them. Needs no privilege.
///
/// # Errors
/// What pthread_setschedparam(3) reports.
pub fn ordinary() -> io::Result<()> {
    // SAFETY: as in `fifo`; 0 is the only priority of this policy.
    let param: libc::sched_param = unsafe { mem::zeroed() };
    // SAFETY: the calling thread's own handle, and a parameter that the call only reads.
    match unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_OTHER, &raw const param) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Whether a thread of this one would be allowed [`fifo`], found out by one that ends at once.
///
/// # Errors
/// As [`fifo`]; EAGAIN when no thread can be made.
pub fn try_fifo(priority: u8) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("millrace-trial".into()).spawn(move || fifo(priority))?;
    thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

/// The calling thread's SCHED_FIFO priority, as the kernel has it; None under another policy.
pub fn fifo_priority() -> Option<u8> {
    let mut policy = 0;
    // SAFETY: as in `fifo`.
    let mut param: libc::sched_param = unsafe { mem::zeroed() };
    // SAFETY: the calling thread's own handle; policy and parameter are writable and outlive the call.
    let rc = unsafe { libc::pthread_getschedparam(libc::pthread_self(), &raw mut policy, &raw mut param) };
    (rc == 0 && policy == libc::SCHED_FIFO).then(|| u8::try_from(param.sched_priority).ok())?
}

/// Why [`fifo`] was refused, for people.
pub fn fifo_refused(priority: u8, e: &io::Error) -> String {
    format!(
        "receive threads have no real-time priority: SCHED_FIFO {priority} needs CAP_SYS_NICE, or RLIMIT_RTPRIO of \
         {priority} (ulimit -r), and in a cgroup v1 cpu.rt_runtime_us ({e})"
    )
}

/// What [`fifo`] means for a thread that never sleeps, for people.
pub const FIFO_WITHOUT_SLEEP: &str = "receive threads never sleep (MILLRACE_BUSY_POLL=always) and have real-time \
    priority: nothing else runs on their CPUs, the kernel's own threads included, but for the 5 % that \
    sched_rt_runtime_us leaves";

/// What [`fifo`] means where so many receive threads share so few CPUs, for people.
pub fn fifo_crowded(threads: usize, cpus: usize) -> String {
    format!(
        "receive threads with real-time priority share CPUs, {threads} on {cpus}: while one of them pauses another runs, and \
         under overload others get the 5 % there that sched_rt_runtime_us leaves; give each thread a CPU \
         (MILLRACE_RX_CPUS), or start fewer (MILLRACE_RX_THREADS; with xdp, fewer rx queues)"
    )
}

/// Gives the calling thread's sleeps 1 ns of slack instead of the usual 50 µs (prctl(2), PR_SET_TIMERSLACK): receive
/// threads sleep for about that long.
pub fn exact_timers() {
    // SAFETY: the option takes one integer and touches only the calling thread. Where it is refused, sleeps are longer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong, 0, 0, 0) };
}

/// Times that the calling thread gave its CPU away by itself, to wait or to sleep (getrusage(2), RUSAGE_THREAD). What merely
/// interrupts it, or runs before it, does not count.
pub fn times_slept() -> libc::c_long {
    // SAFETY: rusage is plain old data; all zero is valid.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the call fills the struct it is given. It fails for an unknown `who` only.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_nvcsw
}

/// CPU the calling thread runs on now (sched_getcpu(3)).
pub fn current() -> u16 {
    // SAFETY: no preconditions.
    u16::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn pins_to_each_allowed_cpu() {
        for cpu in super::allowed().unwrap() {
            std::thread::spawn(move || {
                super::pin(cpu).unwrap();
                assert_eq!(super::allowed().unwrap(), [cpu]);
                assert_eq!(usize::from(super::current()), cpu);
            })
            .join()
            .unwrap();
        }
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused() {
        assert!(super::pin(1 << 20).is_err());
    }
}
