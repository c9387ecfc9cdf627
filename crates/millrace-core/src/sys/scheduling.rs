//! Scheduling of the calling thread (sched(7)): the CPUs it may run on, its real-time priority, and the timer slack.
//!
//! Every function acts on the calling thread alone. A thread hands its CPU affinity, its policy and its timer slack on to
//! the threads that it starts.

use std::{io, mem};

/// Returns the numbers of the CPUs that the calling thread may run on, in ascending order (sched_getaffinity(2)). Cgroup
/// cpusets and taskset(1) have narrowed them already.
///
/// # Errors
/// EINVAL on a machine with more than CPU_SETSIZE (1,024) CPUs.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
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
///
/// # Errors
/// Those of [`set_allowed_cpus`].
pub fn pin_to(cpu: usize) -> io::Result<()> {
    set_allowed_cpus(&[cpu])
}

/// Lets the calling thread run on these CPUs only (sched_setaffinity(2)). This needs no privilege.
///
/// # Errors
/// EINVAL when none of the CPUs exists and is allowed by the cgroup's cpuset, or when a number is not below CPU_SETSIZE.
pub fn set_allowed_cpus(cpus: &[usize]) -> io::Result<()> {
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

/// Gives the calling thread the policy SCHED_FIFO (sched(7)): it runs before all threads without real-time priority, and
/// for as long as it does not sleep. `priority` is 1..=99.
///
/// # Errors
/// EPERM without CAP_SYS_NICE, when RLIMIT_RTPRIO is lower, and in a cgroup (v1, CONFIG_RT_GROUP_SCHED) that has no
/// real-time budget.
pub fn set_fifo(priority: u8) -> io::Result<()> {
    // SAFETY: sched_param is plain old data; all zero is valid (musl has further members).
    let mut param: libc::sched_param = unsafe { mem::zeroed() };
    param.sched_priority = priority.into();
    // SAFETY: the calling thread's own handle, and a parameter that the call only reads.
    match unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_FIFO, &raw const param) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Gives the calling thread the ordinary policy SCHED_OTHER (sched(7)), which takes away the real-time priority that it
/// may have inherited from the thread that started it. This needs no privilege.
///
/// # Errors
/// What pthread_setschedparam(3) reports.
pub fn set_other() -> io::Result<()> {
    // SAFETY: sched_param is plain old data; all zero is valid, and 0 is the only priority of this policy.
    let param: libc::sched_param = unsafe { mem::zeroed() };
    // SAFETY: the calling thread's own handle, and a parameter that the call only reads.
    match unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_OTHER, &raw const param) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Tries [`set_fifo`] on a thread that ends at once, so that the calling thread's own policy stays what it is.
///
/// # Errors
/// Those of [`set_fifo`]; EAGAIN when no thread can be made.
pub fn probe_fifo(priority: u8) -> io::Result<()> {
    let thread =
        std::thread::Builder::new().name("millrace-trial".into()).spawn(move || set_fifo(priority))?;
    thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

/// Returns the SCHED_FIFO priority that the kernel has for the calling thread, 1..=99, and `None` under any other policy.
pub fn fifo_priority() -> Option<u8> {
    let mut policy = 0;
    // SAFETY: sched_param is plain old data; all zero is valid.
    let mut param: libc::sched_param = unsafe { mem::zeroed() };
    // SAFETY: the calling thread's own handle; policy and parameter are writable and outlive the call.
    let rc = unsafe { libc::pthread_getschedparam(libc::pthread_self(), &raw mut policy, &raw mut param) };
    (rc == 0 && policy == libc::SCHED_FIFO).then(|| u8::try_from(param.sched_priority).ok())?
}

/// Sets the timer slack of the calling thread to 1 ns, the least there is (prctl(2), PR_SET_TIMERSLACK). The default of
/// 50 µs is about as long as a receive thread means to sleep.
pub fn minimize_timer_slack() {
    // SAFETY: the option takes one integer and touches only the calling thread. Where it is refused, sleeps are longer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong, 0, 0, 0) };
}

/// Returns how often the calling thread has given its CPU away by itself, to wait or to sleep (`ru_nvcsw` of
/// getrusage(2) with RUSAGE_THREAD). Preemptions and interrupts do not count.
pub fn voluntary_switches() -> libc::c_long {
    // SAFETY: rusage is plain old data; all zero is valid.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the call fills the struct it is given. It fails for an unknown `who` only.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_nvcsw
}

/// Returns the number of the CPU that the calling thread runs on now (sched_getcpu(3)), and 0 where that is not known.
pub fn current_cpu() -> u16 {
    // SAFETY: no preconditions.
    u16::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn pins_to_each_allowed_cpu() {
        for cpu in super::allowed_cpus().unwrap() {
            std::thread::spawn(move || {
                super::pin_to(cpu).unwrap();
                assert_eq!(super::allowed_cpus().unwrap(), [cpu]);
                assert_eq!(usize::from(super::current_cpu()), cpu);
            })
            .join()
            .unwrap();
        }
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused() {
        assert!(super::pin_to(1 << 20).is_err());
    }
}
