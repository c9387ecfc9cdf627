//! How a test that cannot run on this machine says so. The unit tests in `src` and the integration tests in `tests/` share
//! it.
//!
//! It is compiled for unit tests, and with the cargo feature `testing`, which only the tests of this workspace turn on.

use std::{env, fs::OpenOptions, io::Write, path::Path, thread};

/// Names the environment variable that holds the path of the file to which [`skip`] appends.
const SKIP_LOG: &str = "MILLRACE_SKIP_LOG";

/// Records that the calling test is skipped; the test returns right afterwards (`return testing::skip("…")`).
///
/// It prints `SKIP name: reason`, and appends that line to the file named by the environment variable
/// `MILLRACE_SKIP_LOG`, if it is set. libtest has no skipped tests: it reports a test that returns as passed. `npm test`
/// counts the lines of the file and reports so many tests as skipped instead.
///
/// # Panics
///
/// On a thread that libtest did not start, because libtest gives the name of the test to the thread it runs on; and when
/// the file cannot be written.
pub fn skip(reason: &str) {
    let line = format!("SKIP {}: {reason}", test_name());
    eprintln!("{line}");
    if let Some(path) = env::var_os(SKIP_LOG) {
        let mut log = OpenOptions::new().append(true).create(true).open(path).expect("skip log");
        writeln!(log, "{line}").expect("skip log");
    }
}

/// The calling test: `binary::module::function`. Cargo names a test binary after its target and a hash.
fn test_name() -> String {
    let path = env::args_os().next().expect("argv[0]");
    let binary = Path::new(&path).file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let target = binary.rsplit_once('-').map_or(binary, |(target, _)| target);
    let thread = thread::current();
    let test = thread.name().filter(|name| *name != "main").expect("a test skips itself on its own thread");
    format!("{target}::{test}")
}

/// True when the process may do everything: its effective user id is 0 (geteuid(2)).
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_knows_its_name() {
        assert!(test_name().ends_with("::testing::tests::a_test_knows_its_name"), "{}", test_name());
        assert!(thread::spawn(test_name).join().is_err(), "another thread does not");
    }
}
