//! One receive thread's UDP sockets.

use std::{io, os::fd::AsRawFd, time::Duration};

use super::{
    batch::{Batch, Message},
    bind::Bound,
    control::{self, Control},
    membership::Memberships,
    snmp::ChecksumErrors,
};
use crate::{
    bpf::classic,
    datagram::{Addr, Datagram, Timestamp, flags},
    error::{Code, Error, Result},
    packet::FrameDrop,
    rx::{KernelCounters, Receiver, Sink, guard::Sorting},
    sys::{poll, socket},
};

/// Index of the drop counter in the array of SO_MEMINFO (linux/sock_diag.h, `SK_MEMINFO_DROPS`).
const SK_MEMINFO_DROPS: usize = 8;
/// `SK_MEMINFO_VARS`.
const SK_MEMINFO_VARS: usize = 9;
/// SO_MEMINFO (asm-generic/socket.h), since Linux 4.12.
const SO_MEMINFO: libc::c_int = 55;
/// IPv6 header + fragment header + UDP header.
const ATOMIC_FRAGMENT_OVERHEAD: u32 = 40 + 8 + 8;

/// Which datagrams of a socket are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Every one.
    All,
    /// None: the socket is bound to a broadcast address, and another receiver has the same datagrams.
    Nothing,
    /// Those that the kernel put together from fragments: the rest came by the packet ring already.
    Reassembled,
    /// Those that arrived on an interface without a ring.
    Elsewhere,
}

/// A socket that is read.
pub(crate) struct Source {
    bound: Bound,
    wanted: Wanted,
    drops: Drops,
    /// It gets datagrams that the ring has as well: what its buffer loses may be no loss.
    overlaps: bool,
}

impl Source {
    pub(crate) fn new(bound: Bound, wanted: Wanted) -> Self {
        Source { bound, wanted, drops: Drops::default(), overlaps: wanted == Wanted::Reassembled }
    }
}

/// The `sk_drops` counter of one socket, 32 bits in the kernel, widened here.
#[derive(Default)]
struct Drops {
    last: u32,
    /// Datagrams lost.
    lost: u64,
    /// Datagrams of which nobody knows whether the ring had them.
    unsure: u64,
}

impl Drops {
    fn update(&mut self, now: u32, unsure: bool) {
        *if unsure { &mut self.unsure } else { &mut self.lost } += u64::from(now.wrapping_sub(self.last));
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
    sockets: Vec<Source>,
    /// What the guard of a packet ring sorts by.
    sorting: Option<Sorting>,
    batch: Batch,
    index: u16,
    /// This receiver leaves broadcast to the group's first one: the kernel gives a broadcast datagram to every socket of
    /// a SO_REUSEPORT group.
    leaves_broadcast: bool,
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
    pub(crate) fn new(sockets: Vec<Bound>, index: u16) -> Self {
        SocketReceiver {
            sockets: sockets.into_iter().map(|b| Source::new(b, Wanted::All)).collect(),
            sorting: None,
            batch: Batch::new(),
            index,
            leaves_broadcast: false,
            flags: 0,
            lost: "socket_rcvbuf",
            checksum_errors: None,
            memberships: None,
            rejoined: 0,
            closed: false,
        }
    }

    /// Makes this receiver report the namespace's UDP checksum errors.
    pub(crate) fn note_checksum_errors(&mut self) {
        self.checksum_errors = Some(ChecksumErrors::new());
    }

    /// Leaves broadcast to another receiver. Sockets that are bound to one address have theirs looked up in `broadcasts`;
    /// of others each datagram says whether it is broadcast, because subnets come and go.
    pub(crate) fn leave_broadcast(&mut self, broadcasts: &[Addr]) {
        self.leaves_broadcast = true;
        for Source { bound, wanted, .. } in &mut self.sockets {
            if bound.dst.is_some_and(|dst| broadcasts.contains(&dst)) {
                *wanted = Wanted::Nothing;
            }
        }
    }

    /// Makes it the guard's receiver.
    pub(crate) fn into_guard(self) -> Self {
        SocketReceiver { flags: flags::SLOW_PATH, lost: "guard_rcvbuf", ..self }
    }

    /// The guard's receiver beside a packet ring.
    pub(crate) fn of_sink(sockets: Vec<Source>, sorting: Sorting) -> Self {
        SocketReceiver { sockets, sorting: Some(sorting), ..Self::new(Vec::new(), 0).into_guard() }
    }

    /// Looks after multicast groups.
    pub(crate) fn with_memberships(self, memberships: Option<Memberships>) -> Self {
        SocketReceiver { memberships, ..self }
    }

    fn read_drops(&mut self) {
        for Source { bound, drops, overlaps, .. } in &mut self.sockets {
            // Cannot fail on a live socket of Linux 4.12 or later; an old value is the best answer otherwise.
            if let Ok(info) = socket::get_words::<SK_MEMINFO_VARS>(&bound.fd, libc::SOL_SOCKET, SO_MEMINFO) {
                drops.update(info[SK_MEMINFO_DROPS], *overlaps);
            }
        }
    }
}

impl Receiver for SocketReceiver {
    const OTHERS_TAKE_OVER: bool = true;

    fn receive<S: Sink>(&mut self, sink: &mut S) -> Result<usize> {
        let mut seen = 0;
        let mut now = None;
        for Source { bound, wanted, overlaps, .. } in &mut self.sockets {
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
                if *wanted != Wanted::All {
                    // Asked only of broadcast and multicast: of the rest nobody wants to know.
                    let in_ring = control.to_many
                        && self.sorting.as_ref().is_some_and(|s| {
                            s.in_ring(control.ifindex, control.dst.unwrap_or(Addr::UNSPECIFIED), bound.port)
                        });
                    if !is_wanted(*wanted, &control, message.payload.len(), in_ring) {
                        *overlaps = true;
                        continue;
                    }
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
                if self.leaves_broadcast && is_broadcast(control.to_many, dst) {
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
        let sockets = self.sockets.iter().map(|s| &*s.bound.fd);
        let mut fds: Vec<libc::pollfd> =
            sockets.chain(self.sorting.as_ref().map(Sorting::fd)).map(poll::for_input).collect();
        poll::ppoll(&mut fds, timeout).map_err(|e| Error::os(Code::Kernel, "poll on UDP sockets", e))?;
        if let (Some(sorting), Some(news)) = (&mut self.sorting, fds.last())
            && news.revents != 0
        {
            sorting.refresh();
        }
        Ok(())
    }

    /// What arrives from here on is dropped by a filter, uncounted. Exact but for a datagram that another CPU carries
    /// through the stack at this very moment.
    fn close_intake(&mut self) {
        for Source { bound, .. } in &self.sockets {
            // Fails only without memory; then the final drain is merely not finite, and the engine bounds it in time.
            let _ = socket::attach_cbpf(&bound.fd, libc::SO_ATTACH_FILTER, &classic::drop_all());
        }
        if !self.closed {
            self.read_drops();
            self.closed = true;
        }
    }

    /// `lost`: `socket_rcvbuf` (for the guard `guard_rcvbuf`); see [`SocketReceiver`] for what these hold. `notes` beside a
    /// packet ring: `guard_rcvbuf_unsure` and `guard_program_cut`, see [`super::open_for_packet`].
    fn counters(&mut self) -> KernelCounters {
        // For a guard that never sleeps.
        self.sorting.iter_mut().for_each(Sorting::refresh);
        if !self.closed {
            self.read_drops();
            if let Some(memberships) = &mut self.memberships {
                self.rejoined += memberships.look(self.sockets.iter().map(|s| &*s.bound.fd));
            }
        }
        let total = self.sockets.iter().map(|s| s.drops.lost).sum();
        let unsure = self.sockets.iter().map(|s| s.drops.unsure).sum();
        let checksums = self.checksum_errors.iter().map(|e| ("netns_udp_checksum_errors", e.count()));
        let rejoined = self.memberships.iter().map(|_| ("multicast_rejoined", self.rejoined));
        let sorting = self
            .sorting
            .iter()
            .flat_map(|s| [("guard_rcvbuf_unsure", unsure), ("guard_program_cut", s.cut())]);
        let notes = checksums.chain(sorting).chain(rejoined);
        KernelCounters { lost: vec![(self.lost, total)], notes: notes.collect() }
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

/// Whether a datagram of one of the guard's sockets is one that the ring does not have. The program of the group has
/// sorted datagrams to one receiver; those to many come to every socket of the group, which is then for interface and
/// destination to tell. Loopback's own is not asked where it could mislead: there the kernel names the device the sender is bound to.
fn is_wanted(wanted: Wanted, control: &Control, payload: usize, in_ring: bool) -> bool {
    match wanted {
        Wanted::All => true,
        Wanted::Nothing => false,
        Wanted::Reassembled => is_reassembled(control, payload) && (!control.to_many || in_ring),
        Wanted::Elsewhere => !(control.to_many && in_ring),
    }
}

/// Groups are joined by one socket each, so that only broadcast comes to several.
fn is_broadcast(to_many: bool, dst: Addr) -> bool {
    to_many && dst.is_v4() && !dst.to_ip().is_multicast()
}

/// True when the kernel reassembled the datagram. For IPv6 it reports a fragment size for an atomic fragment too (RFC
/// 6946: a fragment header, but a whole datagram), which the ring's parser takes. The program keeps those away, but for
/// what goes to many, past it. There the "fragment" is as large as the datagram with all its headers, while a real fragment
/// is smaller; extension headers are not known here, and with some a datagram hardly longer than a fragment is missed.
fn is_reassembled(control: &Control, payload: usize) -> bool {
    control.fragment_size_v4.is_some_and(|size| size > 0)
        || control.fragment_size.is_some_and(|size| {
            let whole = payload + ATOMIC_FRAGMENT_OVERHEAD as usize;
            size > 0 && (!control.to_many || (size as usize) < whole)
        })
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
    use std::{net::UdpSocket, os::fd::OwnedFd, time::Instant};

    use super::*;

    /// asm-generic/socket.h, since Linux 5.19.
    const SO_RCVMARK: libc::c_int = 75;

    #[test]
    fn the_drop_counter_survives_its_wrap() {
        let mut drops = Drops::default();
        drops.update(u32::MAX - 1, false);
        drops.update(3, false);
        drops.update(3, false);
        assert_eq!(drops.lost, u64::from(u32::MAX - 1) + 5);
        drops.update(10, true);
        assert_eq!((drops.lost, drops.unsure), (u64::from(u32::MAX - 1) + 5, 7));
    }

    #[test]
    fn an_atomic_fragment_is_not_reassembled() {
        let c = |size| Control { fragment_size: size, to_many: true, ..Control::default() };
        assert!(!is_reassembled(&c(None), 4000));
        assert!(is_reassembled(&c(Some(1496)), 4000));
        assert!(!is_reassembled(&c(Some(1400 + 56)), 1400));
        // With extension headers a fragment may be longer than that.
        assert!(is_reassembled(&Control { to_many: false, ..c(Some(1280)) }, 1216));
        // IPv4 has no such thing, and a fragment with options may be longer than the datagram it is of.
        let v4 = Control { fragment_size_v4: Some(76), ..Control::default() };
        assert!(is_reassembled(&v4, 9));
    }

    #[test]
    fn what_goes_to_many_is_told_by_its_interface() {
        let whole = |to_many| Control { to_many, ..Control::default() };
        let pieces = |to_many| Control { fragment_size_v4: Some(1500), ..whole(to_many) };
        for (wanted, control, in_ring, expected) in [
            (Wanted::Elsewhere, whole(false), true, true),
            (Wanted::Elsewhere, whole(true), true, false),
            (Wanted::Elsewhere, pieces(true), false, true),
            (Wanted::Reassembled, whole(false), true, false),
            (Wanted::Reassembled, pieces(false), false, true),
            (Wanted::Reassembled, pieces(true), true, true),
            (Wanted::Reassembled, pieces(true), false, false),
        ] {
            assert_eq!(
                is_wanted(wanted, &control, 4000, in_ring),
                expected,
                "{wanted:?} {control:?} {in_ring}"
            );
        }
    }

    #[derive(Default)]
    struct Count {
        datagrams: usize,
        dropped: Vec<FrameDrop>,
    }

    impl Sink for Count {
        fn datagram(&mut self, _: &Datagram<'_>) {
            self.datagrams += 1;
        }

        fn frame_dropped(&mut self, reason: FrameDrop) {
            self.dropped.push(reason);
        }
    }

    /// The payload always fits a slot; what can be cut off are control messages, when a socket has more of them than we
    /// ask for. Then the destination may be among what is missing.
    #[test]
    fn what_was_cut_off_is_counted_and_not_delivered() {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = b.local_addr().unwrap();
        let bound = Bound { fd: OwnedFd::from(b).into(), port: to.port(), dst: None };
        for option in [
            libc::IP_PKTINFO,
            libc::IP_RECVTTL,
            libc::IP_RECVTOS,
            libc::IP_RECVORIGDSTADDR,
            libc::IP_RECVOPTS,
        ] {
            socket::set_int(&bound.fd, libc::IPPROTO_IP, option, 1).unwrap();
        }
        let both = libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
        socket::set_int(&bound.fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, both as i32).unwrap();
        socket::set_int(&bound.fd, libc::SOL_SOCKET, SO_RCVMARK, 1).unwrap();
        let mut receiver = SocketReceiver::new(vec![bound], 0);
        let mut count = Count::default();
        let start = Instant::now();
        // The kernel begins to stamp a moment after it was asked; until then the messages fit.
        while count.dropped.is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10), "{} fit", count.datagrams);
            a.send_to(b"x", to).unwrap();
            receiver.wait(Duration::from_secs(1)).unwrap();
            assert_eq!(receiver.receive(&mut count).unwrap(), 1);
        }
        assert_eq!(count.dropped, [FrameDrop::Truncated]);
    }
}
