//! Results of the C library's wrappers: negative for an error, whose reason is then in `errno` (errno(3)).

use std::io;

use libc::c_int;

/// Turns the result of a system call into the calling thread's `errno` when it is negative.
pub(super) fn ok_or_errno(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
