//! Zero-copy: the driver writes into our packet memory. Asked for by name, because drivers that offer it have paid with
//! link resets, corrupt frames and panics (see docs/traps.md).

use std::{ffi::CStr, mem};

use crate::config::ZeroCopy;

/// Drivers `auto` trusts, each from a kernel (major, minor) on. The one entry is what Firedancer runs in production;
/// every other driver with zero-copy has an open or recent report of stalls or crashes in it (ice, ixgbe 6.14, ena).
pub const TRUSTED: [(&str, (u32, u32)); 1] = [("mlx5_core", (6, 1))];

/// What to try first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Bind with XDP_ZEROCOPY.
    pub(super) try_it: bool,
    /// When refused, bind with XDP_COPY.
    pub(super) may_copy: bool,
}

/// The plan, and for `auto` a word on why.
pub(super) fn plan(asked: ZeroCopy, driver: &str, kernel: (u32, u32)) -> (Plan, String) {
    match asked {
        ZeroCopy::Off => (Plan { try_it: false, may_copy: true }, "off".into()),
        ZeroCopy::On => (Plan { try_it: true, may_copy: false }, "on".into()),
        ZeroCopy::Auto => {
            let trusted = TRUSTED.iter().any(|(name, since)| *name == driver && kernel >= *since);
            let why = if trusted { "is" } else { "is not" };
            let (major, minor) = kernel;
            let text = format!("auto: {driver} on Linux {major}.{minor} {why} in the list");
            (Plan { try_it: trusted, may_copy: true }, text)
        }
    }
}

/// Version of the running kernel, from uname(2); (0, 0) when it cannot be read.
pub(super) fn kernel() -> (u32, u32) {
    // SAFETY: utsname is plain old data; all zero is valid.
    let mut names: libc::utsname = unsafe { mem::zeroed() };
    // SAFETY: the call writes NUL-terminated texts into the struct it is given.
    if unsafe { libc::uname(&raw mut names) } != 0 {
        return (0, 0);
    }
    // SAFETY: `release` is NUL-terminated within its array, by uname(2) or by the zeroes from before.
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
        let tries = |driver, kernel| plan(ZeroCopy::Auto, driver, kernel).0.try_it;
        assert!(tries("mlx5_core", (6, 1)) && tries("mlx5_core", (7, 0)));
        assert!(!tries("mlx5_core", (5, 15)) && !tries("ice", (6, 18)) && !tries("veth", (6, 18)));
        assert_eq!(plan(ZeroCopy::On, "veth", (6, 18)).0, Plan { try_it: true, may_copy: false });
        assert!(!plan(ZeroCopy::Off, "mlx5_core", (6, 18)).0.try_it);
    }

    #[test]
    fn releases_are_read() {
        assert_eq!(parse("6.18.44-cloud"), (6, 18));
        assert_eq!(parse("5.15"), (5, 15));
        assert_eq!(parse(""), (0, 0));
        assert!(kernel() > (2, 6));
    }
}
