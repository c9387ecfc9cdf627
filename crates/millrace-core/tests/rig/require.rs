//! What a test requires of the machine. A test begins with `rig::require_root!();` and returns there, as skipped, where
//! the requirement is not met.

use millrace_core::{sys::scheduling, testing};

/// Ends the calling test, as skipped, unless it may make network namespaces.
macro_rules! require_root {
    () => {
        if !$crate::rig::can_make_namespaces() {
            return;
        }
    };
}

/// Ends the calling test, as skipped, unless threads of this process may have real-time priority.
macro_rules! require_real_time {
    () => {
        if !$crate::rig::can_be_real_time() {
            return;
        }
    };
}

pub(crate) use {require_real_time, require_root};

/// True when the test may make network namespaces; it has then started the shell that makes them. Otherwise the test is
/// recorded as skipped.
pub fn can_make_namespaces() -> bool {
    if testing::is_root() {
        super::shell::start();
        return true;
    }
    testing::skip("needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN) to make network namespaces");
    false
}

/// True when threads of this process may have real-time priority. Otherwise the test is recorded as skipped.
pub fn can_be_real_time() -> bool {
    let tried = scheduling::probe_fifo(1);
    if let Err(e) = &tried {
        testing::skip(&format!("not even root may have real-time priority here: {e}"));
    }
    tried.is_ok()
}
