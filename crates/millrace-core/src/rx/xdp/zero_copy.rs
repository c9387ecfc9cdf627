//! Zero-copy (af_xdp.rst, XDP_ZEROCOPY): the driver writes into the packet memory. It is on by configuration only, because
//! drivers that offer it have paid with link resets, corrupt frames and panics (see docs/traps.md).

use std::{ffi::CStr, mem};

use crate::{
    config::{EngineConfig, ZeroCopy},
    net::Interface,
};

/// Drivers with which `auto` tries zero-copy, each from a kernel (major, minor) on. The one entry is what Firedancer runs in
/// production; every other driver with zero-copy has an open or recent report of stalls or crashes in it (ice, ixgbe 6.14,
/// ena).
const TRUSTED: [(&str, (u32, u32)); 1] = [("mlx5_core", (6, 1))];

/// Which bind flags are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ZeroCopyDecision {
    /// The first try is XDP_ZEROCOPY.
    pub(super) try_zero_copy: bool,
    /// XDP_COPY is allowed, at once or after a refusal.
    pub(super) allow_copy: bool,
}

/// The decision for an interface, and its reason for the user.
pub(super) fn decide(config: &EngineConfig, interface: &Interface) -> (ZeroCopyDecision, String) {
    decide_for(config.xdp_zerocopy, &driver_name(interface), kernel_version())
}

fn decide_for(configured: ZeroCopy, driver: &str, kernel: (u32, u32)) -> (ZeroCopyDecision, String) {
    match configured {
        ZeroCopy::Off => (ZeroCopyDecision { try_zero_copy: false, allow_copy: true }, "off".into()),
        ZeroCopy::On => (ZeroCopyDecision { try_zero_copy: true, allow_copy: false }, "on".into()),
        ZeroCopy::Auto => {
            let trusted = is_trusted(driver, kernel);
            let verdict = if trusted { "is" } else { "is not" };
            let (major, minor) = kernel;
            let reason = format!("auto: {driver} on Linux {major}.{minor} {verdict} in the list");
            (ZeroCopyDecision { try_zero_copy: trusted, allow_copy: true }, reason)
        }
    }
}

fn is_trusted(driver: &str, kernel: (u32, u32)) -> bool {
    TRUSTED.iter().any(|(name, since)| *name == driver && kernel >= *since)
}

/// Whether `auto` would try zero-copy on this interface, and the reason for the user.
pub(crate) fn zero_copy_trusted(interface: &Interface) -> (bool, String) {
    let driver = driver_name(interface);
    let (major, minor) = kernel_version();
    let trusted = is_trusted(&driver, (major, minor));
    let verdict = if trusted { "is" } else { "is not" };
    (
        trusted,
        format!("driver {driver} on Linux {major}.{minor} {verdict} in the list of those known to be sound"),
    )
}

fn driver_name(interface: &Interface) -> String {
    interface.driver().unwrap_or_else(|| "unknown".into())
}

/// Version of the running kernel, from uname(2); (0, 0) when it cannot be read.
pub(super) fn kernel_version() -> (u32, u32) {
    // SAFETY: utsname is plain old data; all zero is valid.
    let mut names: libc::utsname = unsafe { mem::zeroed() };
    // SAFETY: the struct is writable and outlives the call, which writes NUL-terminated texts into it.
    if unsafe { libc::uname(&raw mut names) } != 0 {
        return (0, 0);
    }
    // SAFETY: uname(2) terminates `release` within its array with NUL.
    let release = unsafe { CStr::from_ptr(names.release.as_ptr()) }.to_string_lossy();
    parse(&release)
}

fn parse(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_trusts_the_list_only() {
        let tries = |driver, kernel| decide_for(ZeroCopy::Auto, driver, kernel).0.try_zero_copy;
        assert!(tries("mlx5_core", (6, 1)) && tries("mlx5_core", (7, 0)));
        assert!(!tries("mlx5_core", (5, 15)) && !tries("ice", (6, 18)) && !tries("veth", (6, 18)));
        let on = decide_for(ZeroCopy::On, "veth", (6, 18)).0;
        assert_eq!(on, ZeroCopyDecision { try_zero_copy: true, allow_copy: false });
        assert!(!decide_for(ZeroCopy::Off, "mlx5_core", (6, 18)).0.try_zero_copy);
    }

    #[test]
    fn releases_are_read() {
        assert_eq!(parse("6.18.44-cloud"), (6, 18));
        assert_eq!(parse("5.15"), (5, 15));
        assert_eq!(parse(""), (0, 0));
        assert!(kernel_version() > (2, 6));
    }
}
