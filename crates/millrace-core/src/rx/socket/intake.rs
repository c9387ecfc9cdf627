//! Ends the arrival of datagrams at sockets that are still to be read out.

use std::os::fd::OwnedFd;

use crate::{bpf::classic, sys::socket};

/// Attaches a filter that drops everything (SO_ATTACH_FILTER, socket(7)), so that only what is queued already is left to
/// read. A datagram that another CPU carries through the stack at this moment may still arrive. What the filter drops the
/// kernel counts in `sk_drops`, like a full buffer: that counter tells losses only until now.
pub(crate) fn close<'a>(sockets: impl Iterator<Item = &'a OwnedFd>) {
    for fd in sockets {
        // This fails only for want of memory; the final reading then has no certain end, and the engine bounds its time.
        let _ = socket::attach_cbpf(fd, libc::SO_ATTACH_FILTER, &classic::drop_all());
    }
}
