//! For unit tests that need a privilege or a kernel feature which is missing: they are counted as skipped, not as passed.

use std::{fs::OpenOptions, io::Write};

/// Prints why the test is skipped, and appends the line to the file that MILLRACE_SKIP_LOG names, as the integration tests do
/// (`tests/rig`). The caller returns afterwards.
pub(crate) fn skip(test: &str, reason: &str) {
    let line = format!("SKIP {test}: {reason}");
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("MILLRACE_SKIP_LOG") {
        let mut log = OpenOptions::new().append(true).create(true).open(path).expect("skip log");
        writeln!(log, "{line}").expect("skip log");
    }
}
