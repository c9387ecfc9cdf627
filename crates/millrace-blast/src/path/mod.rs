//! The ways out. Each takes a block of numbers and pushes until the kernel has taken all of it.

use std::{io, ops::Range};

use millrace_core::error::{Code, Error, Result};

use crate::{
    plan::{Plan, Via},
    report::Gap,
    route::Way,
};

pub(crate) mod frame;
mod packet;
mod socket;
mod xdp;

/// How much of an offer the kernel took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
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
    /// Trying again cannot help.
    Fatal(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(e: io::Error) -> Self {
        match e.raw_os_error() {
            Some(libc::ENOBUFS | libc::EBUSY | libc::ENOMEM) => Refusal::Device,
            Some(libc::EAGAIN | libc::EINTR) => Refusal::Full,
            // What ip(7) and icmp.c (icmp_err_convert) turn ICMP messages into.
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

/// One thread's way out.
pub(crate) trait Path: Send {
    /// Most numbers a block should have.
    fn block(&self) -> u64;
    /// Takes on a block; only when nothing is left of the one before.
    fn begin(&mut self, numbers: Range<u64>);
    /// Offers once what is left.
    fn push(&mut self) -> Result<Taken, Refusal>;
    /// Datagrams of the block not taken yet.
    fn left(&self) -> u64;
    /// Their numbers, for a run that is given up.
    fn leftover(&self) -> Vec<Gap>;
    /// Waits a moment (at most about a millisecond) for room.
    fn wait(&self);
}

/// Opens the ways of all threads; the datagrams a GSO send (1 without).
pub(crate) fn open(plan: &Plan, way: &Way) -> Result<(Vec<Box<dyn Path>>, u32)> {
    let mut paths: Vec<Box<dyn Path>> = Vec::new();
    let mut gso = 1;
    for thread in 0..plan.threads {
        let flows: Vec<u32> = (thread..plan.effective_flows()).step_by(plan.threads as usize).collect();
        match plan.via {
            Via::Socket => {
                let path = socket::SocketPath::open(plan, way, &flows)?;
                gso = path.segments();
                paths.push(Box::new(path));
            }
            Via::Packet => paths.push(Box::new(packet::PacketPath::open(plan, way, &flows)?)),
            Via::Xdp => {
                paths.push(Box::new(xdp::XdpPath::open(plan, way, &flows, plan.queue + thread)?));
            }
        }
    }
    Ok((paths, gso))
}

/// The error of a kernel call that opened a raw path.
fn opening(what: &str, e: io::Error) -> Error {
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

/// The flow and destination port of flow `f`.
fn destination(way: &Way, flow: u32) -> u16 {
    way.ports[flow as usize % way.ports.len()]
}
