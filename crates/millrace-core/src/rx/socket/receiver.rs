//! One receive thread's UDP sockets.

use std::{io, os::fd::AsRawFd, os::fd::OwnedFd, time::Duration};

use super::{
    batch::{Batch, Message},
    bind::Bound,
    control::{self, Control},
    membership::Memberships,
    snmp::ChecksumErrors,
    sys,
};
use crate::{
    datagram::{Addr, Datagram, Timestamp, flags},
    error::{Code, Error, Result},
    rx::{FrameDrop, KernelCounters, Receiver, Sink, cbpf},
};

/// Index of the drop counter in the array of SO_MEMINFO (linux/sock_diag.h, `SK_MEMINFO_DROPS`).
const SK_MEMINFO_DROPS: usize = 8;
/// `SK_MEMINFO_VARS`.
const SK_MEMINFO_VARS: usize = 9;
/// SO_MEMINFO (asm-generic/socket.h), since Linux 4.12.
const SO_MEMINFO: libc::c_int = 55;
/// IPv6 header + fragment header + UDP header.
const ATOMIC_FRAGMENT_OVERHEAD: u32 = 40 + 8 + 8;

/// Which datagrams of the sockets are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Every one.
    All,
    /// Only those that the kernel put together from IPv6 fragments: the rest came by the packet ring already.
    Reassembled,
}

/// The `sk_drops` counter of one socket, 32 bits in the kernel, widened here.
#[derive(Default)]
struct Drops {
    last: u32,
    total: u64,
}

impl Drops {
    fn update(&mut self, now: u32) {
        self.total += u64::from(now.wrapping_sub(self.last));
        self.last = now;
    }
}

/// The sockets of one receive thread, or those of the guard.
///
/// Losses are read from `sk_drops` by SO_MEMINFO, one system call a socket, and not from SO_RXQ_OVFL, which is the same
/// counter but costs a control message on every datagram. Besides a full receive buffer it holds what the stack threw
/// away at this socket for want of memory (net.ipv4.udp_mem), and those datagrams with a wrong UDP checksum that poll(2)
/// was the first to find. Other wrong checksums are in no socket's counter: short datagrams (up to 76 bytes) are checked
/// before a socket is looked up, long ones when they are read, and recvmmsg(2) does not count them for the socket
/// (measured on 6.18). The note `netns_udp_checksum_errors` of the first receiver has them all, and everybody else's.
pub struct SocketReceiver {
    sockets: Vec<(Bound, Drops)>,
    /// Sockets that only hold their port: a filter drops what they get, nobody reads them.
    _holders: Vec<OwnedFd>,
    batch: Batch,
    index: u16,
    wanted: Wanted,
    /// Destinations this receiver leaves to the group's first one: the kernel gives a broadcast datagram to every socket
    /// of a SO_REUSEPORT group.
    not_mine: Vec<Addr>,
    /// Put on every datagram.
    flags: u16,
    /// Name of the loss counter.
    lost: &'static str,
    checksum_errors: Option<ChecksumErrors>,
    memberships: Option<Memberships>,
    /// Groups joined again, on an interface that was made anew.
    rejoined: u64,
    /// Set by `close_intake`: from then on the kernel's counter also counts what the closing filter drops.
    closed: bool,
}

impl SocketReceiver {
    pub(super) fn new(sockets: Vec<Bound>, index: u16) -> Self {
        SocketReceiver {
            sockets: sockets.into_iter().map(|b| (b, Drops::default())).collect(),
            _holders: Vec::new(),
            batch: Batch::new(),
            index,
            wanted: Wanted::All,
            not_mine: Vec::new(),
            flags: 0,
            lost: "socket_rcvbuf",
            checksum_errors: None,
            memberships: None,
            rejoined: 0,
            closed: false,
        }
    }

    /// Makes this receiver report the namespace's UDP checksum errors.
    pub(super) fn note_checksum_errors(&mut self) {
        self.checksum_errors = Some(ChecksumErrors::new());
    }

    /// Leaves datagrams for these destinations to another receiver.
    pub(super) fn leave(&mut self, destinations: Vec<Addr>) {
        self.not_mine = destinations;
    }

    /// Makes it the guard's receiver.
    pub(super) fn into_guard(
        self,
        wanted: Wanted,
        holders: Vec<OwnedFd>,
        memberships: Option<Memberships>,
    ) -> Self {
        let (flags, lost) = (flags::SLOW_PATH, "guard_rcvbuf");
        SocketReceiver { wanted, _holders: holders, memberships, flags, lost, ..self }
    }

    fn read_drops(&mut self) {
        for (bound, drops) in &mut self.sockets {
            // Cannot fail on a live socket of Linux 4.12 or later; an old value is the best answer otherwise.
            if let Ok(info) = sys::get_words::<SK_MEMINFO_VARS>(&bound.fd, libc::SOL_SOCKET, SO_MEMINFO) {
                drops.update(info[SK_MEMINFO_DROPS]);
            }
        }
    }
}

impl Receiver for SocketReceiver {
    fn receive<S: Sink>(&mut self, sink: &mut S) -> Result<usize> {
        let mut seen = 0;
        let mut now = None;
        for (bound, _) in &self.sockets {
            let n = match self.batch.fill(bound.fd.as_raw_fd()) {
                Ok(n) => n,
                Err(e) if transient(&e) => continue,
                Err(e) => {
                    return Err(Error::os(Code::Kernel, format!("recvmmsg on UDP port {}", bound.port), e));
                }
            };
            seen += n;
            for i in 0..n {
                let message = self.batch.message(i);
                let control = control::parse(message.control);
                if self.wanted == Wanted::Reassembled && !is_reassembled(&control, message.payload.len()) {
                    continue;
                }
                if message.truncated {
                    sink.frame_dropped(FrameDrop::Truncated);
                    continue;
                }
                let (time, mut flags) = match control.time {
                    Some(time) => (time, self.flags | flags::KERNEL_TIME),
                    None => (*now.get_or_insert_with(Timestamp::now), self.flags),
                };
                if control.gso_size > 0 && message.payload.len() > control.gso_size {
                    flags |= flags::SPLIT;
                }
                let dst = bound.dst.or(control.dst).unwrap_or(Addr::UNSPECIFIED);
                if self.not_mine.contains(&dst) {
                    continue;
                }
                let header = Datagram {
                    payload: &[],
                    src: message.src,
                    dst,
                    src_port: message.src_port,
                    dst_port: bound.port,
                    time,
                    rx_queue: self.index,
                    flags,
                };
                deliver(sink, &header, &message, control.gso_size);
            }
        }
        Ok(seen)
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        // A thread has a handful of sockets, and is about to sleep: building the list each time costs nothing visible.
        let mut fds: Vec<libc::pollfd> = self.sockets.iter().map(|(b, _)| sys::pollin(&b.fd)).collect();
        sys::poll(&mut fds, timeout).map_err(|e| Error::os(Code::Kernel, "poll on UDP sockets", e))?;
        Ok(())
    }

    /// What arrives from here on is dropped by a filter, uncounted. Exact but for a datagram that another CPU carries
    /// through the stack at this very moment.
    fn close_intake(&mut self) {
        for (bound, _) in &self.sockets {
            // Fails only without memory; then the final drain is merely not finite, and the engine bounds it in time.
            let _ = sys::attach_cbpf(&bound.fd, libc::SO_ATTACH_FILTER, &cbpf::drop_all());
        }
        if !self.closed {
            self.read_drops();
            self.closed = true;
        }
    }

    /// `lost`: `socket_rcvbuf` (for the guard `guard_rcvbuf`); see [`SocketReceiver`] for what these hold.
    fn counters(&mut self) -> KernelCounters {
        if !self.closed {
            self.read_drops();
            if let Some(memberships) = &mut self.memberships {
                self.rejoined += memberships.look(self.sockets.iter().map(|(bound, _)| &bound.fd));
            }
        }
        let total = self.sockets.iter().map(|(_, d)| d.total).sum();
        let checksums = self.checksum_errors.iter().map(|e| ("netns_udp_checksum_errors", e.count()));
        let rejoined = self.memberships.iter().map(|_| ("multicast_rejoined", self.rejoined));
        KernelCounters { lost: vec![(self.lost, total)], notes: checksums.chain(rejoined).collect() }
    }

    fn rx_queue(&self) -> u16 {
        self.index
    }
}

/// One message → its datagrams: a buffer merged by UDP_GRO holds datagrams of `gso_size` bytes, the last one perhaps
/// shorter (Documentation/networking/segmentation-offloads.rst).
#[inline]
fn deliver<S: Sink>(sink: &mut S, header: &Datagram<'_>, message: &Message<'_>, gso_size: usize) {
    if header.flags & flags::SPLIT == 0 {
        return sink.datagram(&Datagram { payload: message.payload, ..*header });
    }
    for payload in message.payload.chunks(gso_size) {
        sink.datagram(&Datagram { payload, ..*header });
    }
}

/// True when the kernel reassembled the datagram. It reports a fragment size for an atomic fragment too (RFC 6946:
/// a fragment header, but a whole datagram), which the ring's parser takes; there the "fragment" is as large as the
/// datagram with all its headers, while a real fragment is smaller.
fn is_reassembled(control: &Control, payload: usize) -> bool {
    control
        .fragment_size
        .is_some_and(|size| size > 0 && (size as usize) < payload + ATOMIC_FRAGMENT_OVERHEAD as usize)
}

/// Errors that pass: nothing there, a signal, or a condition of the network that a socket merely reports.
fn transient(e: &io::Error) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_counter_survives_its_wrap() {
        let mut drops = Drops::default();
        drops.update(u32::MAX - 1);
        drops.update(3);
        drops.update(3);
        assert_eq!(drops.total, u64::from(u32::MAX - 1) + 5);
    }

    #[test]
    fn an_atomic_fragment_is_not_reassembled() {
        let c = |size| Control { fragment_size: size, ..Control::default() };
        assert!(!is_reassembled(&c(None), 4000));
        assert!(is_reassembled(&c(Some(1496)), 4000));
        assert!(!is_reassembled(&c(Some(1400 + 56)), 1400));
    }
}
