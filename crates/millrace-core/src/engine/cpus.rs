//! CPUs of receive threads and workers.

use crate::{
    error::{Code, Error, Result},
    sys::scheduling,
};

/// CPUs that the calling thread may run on, ascending.
///
/// # Errors
/// [`Code::Kernel`] when sched_getaffinity(2) fails.
pub fn allowed_cpus() -> Result<Vec<usize>> {
    scheduling::allowed_cpus().map_err(|e| Error::os(Code::Kernel, "sched_getaffinity", e))
}

/// Pins the calling thread to one CPU.
///
/// # Errors
/// [`Code::Config`] for a CPU that this process may not use.
pub fn pin_thread(cpu: usize) -> Result<()> {
    scheduling::pin_to(cpu).map_err(|e| Error::os(Code::Config, format!("pinning to CPU {cpu}"), e))
}

/// Verifies that receive threads may be pinned to these CPUs.
///
/// # Errors
/// [`Code::Config`] naming the first CPU that this process may not use.
pub(super) fn verify_cpus(cpus: &[usize]) -> Result<()> {
    let allowed = allowed_cpus()?;
    match cpus.iter().find(|cpu| !allowed.contains(cpu)) {
        None => Ok(()),
        Some(cpu) => {
            let message =
                format!("receive CPU {cpu}: expected one of the CPUs this process may use, {allowed:?}");
            Err(Error::new(Code::Config, message))
        }
    }
}
