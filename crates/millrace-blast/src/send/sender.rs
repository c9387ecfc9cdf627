//! The common part of all paths: the trait, and the answers of the kernel.

use std::{io, ops::Range};

use millrace_core::error::{Code, Error};

use crate::report::Gap;

/// How much of what it was offered the kernel took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// All of it, or as much as one call takes.
    All,
    /// It stopped early, and sendmmsg(2) then hides the reason.
    Partly,
}

/// Why the kernel did not take what it was offered.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The device or its queue dropped it (ENOBUFS, EBUSY).
    Device,
    /// No room at the moment (EAGAIN).
    Full,
    /// An ICMP error about an earlier datagram was reported instead.
    Icmp,
    /// Another try cannot help.
    Fatal(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(e: io::Error) -> Self {
        match e.raw_os_error() {
            Some(libc::ENOBUFS | libc::EBUSY | libc::ENOMEM) => Refusal::Device,
            Some(libc::EAGAIN | libc::EINTR) => Refusal::Full,
            // The kernel turns ICMP messages into these errors (ip(7); net/ipv4/icmp.c, `icmp_err_convert`).
            Some(
                libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENOPROTOOPT
                | libc::EPROTO,
            ) => Refusal::Icmp,
            _ => Refusal::Fatal(e),
        }
    }
}

/// How one thread sends. It works on one block of numbers at a time, and offers it to the kernel until all of it is taken.
pub(crate) trait Sender: Send {
    /// Most numbers that a block should have.
    fn max_block(&self) -> u64;
    /// Begins a block. Nothing may remain of the one before.
    fn begin(&mut self, numbers: Range<u64>);
    /// Offers once what remains of the block.
    fn offer(&mut self) -> Result<Accepted, Refusal>;
    /// Datagrams of the block that are not taken yet.
    fn remaining(&self) -> u64;
    /// Their numbers, for a run that gives up.
    fn unsent(&self) -> Vec<Gap>;
    /// Waits for room, for at most about a millisecond.
    fn wait(&self);
}

/// The error of a kernel call that opened a raw path.
pub(super) fn opening(what: &str, e: io::Error) -> Error {
    match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            Error::os(Code::Permission, format!("{what}: expected CAP_NET_RAW (run as root or grant it)"), e)
        }
        Some(libc::EBUSY) => Error::os(Code::Busy, format!("{what}: taken by another socket"), e),
        Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT) => {
            Error::os(Code::Unsupported, format!("{what}: this kernel or interface does not offer it"), e)
        }
        _ => Error::os(Code::Kernel, what, e),
    }
}
