//! The receiver of one receive thread's UDP sockets.

use std::{os::fd::OwnedFd, time::Duration};

use super::{
    batch::Batch,
    bind::BoundSocket,
    checksum_errors::ChecksumErrors,
    control::{self, Control},
    deliver::{Origin, PassTime, deliver},
    drop_counter::DropCounter,
    intake,
    read::read_batch,
};
use crate::{
    datagram::Addr,
    error::{Code, Error, Result},
    packet::FrameDrop,
    rx::{KernelCounters, NoGuard, Receiver, Sink},
    sys::poll,
};

/// One of the sockets.
struct ListenSocket {
    bound: BoundSocket,
    drops: DropCounter,
    /// The socket is bound to a broadcast address whose datagrams another receiver delivers: all that is read is discarded.
    discards_all: bool,
    /// The socket has discarded something, so that what its buffer loses from now on is no loss either.
    has_discarded: bool,
}

/// The sockets of one receive thread, one for each endpoint. What they lost is `socket_rcvbuf`; `drop_counter.rs` says what
/// that number holds and what it does not. The first receiver also reports `netns_udp_checksum_errors`.
pub struct SocketReceiver {
    sockets: Vec<ListenSocket>,
    batch: Batch,
    index: u16,
    /// The kernel gives a broadcast datagram to every socket of a SO_REUSEPORT group; this receiver leaves it to the
    /// group's first one.
    leaves_broadcast: bool,
    checksum_errors: Option<ChecksumErrors>,
    /// Datagrams lost since open.
    lost: u64,
    /// Set by `close_intake`: from then on the kernel's counters also count what the closing filter drops.
    closed: bool,
}

impl SocketReceiver {
    pub(super) fn new(sockets: Vec<BoundSocket>, index: u16) -> Self {
        let listen = |bound| ListenSocket {
            bound,
            drops: DropCounter::default(),
            discards_all: false,
            has_discarded: false,
        };
        SocketReceiver {
            sockets: sockets.into_iter().map(listen).collect(),
            batch: Batch::new(),
            index,
            leaves_broadcast: false,
            checksum_errors: None,
            lost: 0,
            closed: false,
        }
    }

    /// Makes this receiver report the UDP checksum errors of the network namespace.
    pub(super) fn note_checksum_errors(&mut self) {
        self.checksum_errors = Some(ChecksumErrors::new());
    }

    /// Leaves broadcast to another receiver of the groups. Sockets that are bound to one address have it looked up in
    /// `broadcast_addresses`; of other sockets each datagram tells whether it is broadcast, because subnets come and go.
    pub(super) fn leave_broadcast(&mut self, broadcast_addresses: &[Addr]) {
        self.leaves_broadcast = true;
        for socket in &mut self.sockets {
            socket.discards_all |= socket.bound.dst.is_some_and(|dst| broadcast_addresses.contains(&dst));
        }
    }

    fn fds(&self) -> impl Iterator<Item = &OwnedFd> {
        self.sockets.iter().map(|socket| &*socket.bound.fd)
    }

    fn read_drops(&mut self) {
        for socket in &mut self.sockets {
            let new = socket.drops.read_new(&socket.bound.fd);
            self.lost += if socket.has_discarded { 0 } else { new };
        }
    }
}

impl Receiver for SocketReceiver {
    type Guard = NoGuard;

    const OTHERS_TAKE_OVER: bool = true;

    fn receive<S: Sink>(&mut self, sink: &mut S) -> Result<usize> {
        let mut seen = 0;
        let mut pass = PassTime::default();
        for socket in &mut self.sockets {
            let count = read_batch(&mut self.batch, &socket.bound)?;
            seen += count;
            if socket.discards_all {
                socket.has_discarded |= count > 0;
                continue;
            }
            for i in 0..count {
                let message = self.batch.message(i);
                if message.truncated {
                    sink.frame_dropped(FrameDrop::Truncated);
                    continue;
                }
                let control = control::parse(message.control);
                let dst = socket.bound.destination(&control);
                if self.leaves_broadcast && is_broadcast(&control, dst) {
                    continue;
                }
                let origin = Origin { socket: &socket.bound, dst, rx_queue: self.index, flags: 0 };
                deliver(sink, &origin, &message, &control, &mut pass);
            }
        }
        Ok(seen)
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        // A thread has a handful of sockets and is about to sleep, so making the list each time costs nothing visible.
        let mut fds: Vec<libc::pollfd> = self.fds().map(poll::for_input).collect();
        poll::ppoll(&mut fds, timeout).map_err(|e| Error::os(Code::Kernel, "poll on UDP sockets", e))?;
        Ok(())
    }

    fn close_intake(&mut self) {
        intake::close(self.fds());
        if !self.closed {
            self.read_drops();
            self.closed = true;
        }
    }

    fn counters(&mut self) -> KernelCounters {
        if !self.closed {
            self.read_drops();
        }
        let checksums = self.checksum_errors.iter().map(|e| ("netns_udp_checksum_errors", e.count()));
        KernelCounters { lost: vec![("socket_rcvbuf", self.lost)], notes: checksums.collect() }
    }

    fn rx_queue(&self) -> u16 {
        self.index
    }
}

/// True for broadcast. Multicast is not left to another receiver: each group is joined by one socket.
fn is_broadcast(control: &Control, dst: Addr) -> bool {
    control.broadcast_or_multicast && dst.is_v4() && !dst.to_ip().is_multicast()
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Instant};

    use super::*;
    use crate::{datagram::Datagram, sys::socket};

    /// asm-generic/socket.h, since Linux 5.19.
    const SO_RCVMARK: libc::c_int = 75;

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
        let bound = BoundSocket { fd: OwnedFd::from(b).into(), port: to.port(), dst: None };
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
