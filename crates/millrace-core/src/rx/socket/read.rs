//! Reads one batch of messages from a socket, and tells errors that pass from those that stay.

use std::io;

use super::{batch::Batch, bind::BoundSocket};
use crate::error::{Code, Error, Result};

/// Fills `batch` from `socket` without waiting and returns the number of messages. 0 means that there are none, or that an
/// error occurred that passes.
///
/// # Errors
/// [`Code::Kernel`] for an error that stays.
#[inline]
pub(crate) fn read_batch(batch: &mut Batch, socket: &BoundSocket) -> Result<usize> {
    match batch.fill(&socket.fd) {
        Err(e) if is_transient(&e) => Ok(0),
        read => read.map_err(|e| Error::os(Code::Kernel, format!("recvmmsg on UDP port {}", socket.port), e)),
    }
}

/// True for errors that pass: nothing to read, a signal, lack of memory, or a condition of the network that the socket
/// merely reports (recvmsg(2), udp(7)).
fn is_transient(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(
            libc::EAGAIN
                | libc::EINTR
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::ECONNREFUSED
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
        )
    )
}
