//! One member of the fanout group: its ring, read by one thread.

use std::{mem, os::fd::OwnedFd, sync::Arc, time::Duration};

use super::{Rings, cut::Since, frame::Frame, group::Shared};
use crate::{
    bpf::classic,
    config::ListenSet,
    datagram::{Datagram, flags},
    error::{Code, Error, Result},
    net,
    packet::FrameDrop,
    packet::{
        Udp,
        checksum::{Verdict, verify as verdict},
        parse_ethernet, parse_network,
    },
    rx::{KernelCounters, Receiver, Sink, guard::GuardReceiver},
    sys::{poll, socket},
};

/// PACKET_MULTICAST, the last of the packet types that come in; see `filter`.
const LAST_INCOMING_PKTTYPE: u8 = 2;
/// if_packet.h, since Linux 4.3.
const PACKET_ROLLOVER_STATS: libc::c_int = 21;
/// Frames a member could not take that went elsewhere, those of them that belonged to a flow which fills rings, and those
/// that no member had room for.
const ROLLOVER: [&str; 3] = ["rollover_all", "rollover_huge", "rollover_failed"];
/// Longest wait while a new group may come: a ring of n blocks bridges about n ms.
const RESTLESS_WAIT: Duration = Duration::from_millis(5);
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// Which datagrams of the ring are ours.
#[derive(Clone)]
pub(super) struct Ours {
    /// The listen list with every address written out.
    pub(super) listen: ListenSet,
    /// Link-local entries: the same address on a VLAN of the interface is another one.
    pub(super) untagged: ListenSet,
}

impl Ours {
    #[inline]
    fn accepts(&self, udp: &Udp<'_>, tagged: bool) -> bool {
        self.listen.accepts(udp.dst, udp.dst_port)
            && !(tagged && self.untagged.accepts(udp.dst, udp.dst_port))
    }
}

/// Reads one TPACKET_V3 or TPACKET_V2 ring.
///
/// The stack verifies UDP checksums, a ring does not: a datagram with a wrong checksum is delivered here, unless
/// `verify_checksum` is on, and dropped by the socket backend.
pub struct PacketReceiver {
    // Before the socket, so that the ring is unmapped first.
    ring: Rings,
    fd: Arc<OwnedFd>,
    ours: Ours,
    index: u16,
    shared: Arc<Shared>,
    /// The group we are in, as counted by `shared`.
    generation: u32,
    /// Where that group began.
    since: Since,
    /// The ring is that of an old group, and all its frames are in blocks that the kernel has handed over.
    settled: bool,
    /// `close_intake` was called.
    closed: bool,
    /// The group has rollover statistics.
    rolls_over: bool,
    /// The link went down and nothing has come since: the interface may be gone for good.
    suspect: bool,
    idle_passes: u32,
    stats: Stats,
}

/// PACKET_STATISTICS, summed up: reading clears the kernel's counters (packet(7)).
#[derive(Default)]
struct Stats {
    /// Frames the filter let through, those dropped included.
    packets: u64,
    /// Frames for which the ring had no room.
    drops: u64,
    /// Times the kernel found the next block not given back.
    freezes: u64,
    /// [`ROLLOVER`] of the sockets we moved away from.
    rollover: [u64; 3],
}

impl PacketReceiver {
    pub(super) fn new(
        fd: Arc<OwnedFd>,
        ring: Rings,
        ours: Ours,
        index: u16,
        shared: Arc<Shared>,
        rolls_over: bool,
    ) -> Self {
        let (generation, closed, stats) = (0, false, Stats::default());
        PacketReceiver {
            ring,
            fd,
            ours,
            index,
            shared,
            generation,
            since: Since::start(),
            settled: false,
            closed,
            rolls_over,
            suspect: false,
            idle_passes: 0,
            stats,
        }
    }

    /// A new group is there. Until the old ring is empty we stay with it, and what waits for us stays with `shared`,
    /// which makes no further group before everybody has moved.
    #[inline]
    fn moving(&self) -> bool {
        self.generation != self.shared.generation()
    }

    /// One pass over the ring of the old group, which gets nothing any more, or, once that is empty, the first one over
    /// the new ring.
    #[cold]
    fn move_over<S: Sink>(&mut self, sink: &mut S) -> usize {
        if !self.settled {
            self.ring.settle();
            self.settled = true;
        }
        let frames = self.pass(sink);
        if frames > 0 {
            return frames;
        }
        self.settled = false;
        self.generation = self.shared.generation();
        self.since = self.shared.cut.begin();
        // Nothing waits for a member that closed before the new group was made.
        if let Some((ring, fd)) = self.shared.take_next(self.index) {
            self.read_statistics();
            self.stats.rollover = self.rollover();
            // The ring before the socket, as on drop.
            self.shared.close((mem::replace(&mut self.ring, ring), mem::replace(&mut self.fd, fd)));
            if self.closed {
                self.ring.settle();
            }
        }
        self.pass(sink)
    }

    /// Handles at most one block, or 256 slots.
    #[inline]
    fn pass<S: Sink>(&mut self, sink: &mut S) -> usize {
        let (ours, index) = (&self.ours, self.index);
        let verify = self.shared.config.verify_checksum;
        let (cut, since) = (&self.shared.cut, &self.since);
        let mut stamped = false;
        let each = |frame: &Frame<'_>| {
            stamped = frame.stamped;
            if cut.counts(since, frame.time) {
                deliver(sink, ours, index, verify, frame);
            }
        };
        let (announced, unreadable) = match &mut self.ring {
            Rings::V3(ring) => {
                let Some(block) = ring.take() else { return 0 };
                let (announced, unreadable) = block.for_each(each);
                // The kernel retires no block without frames, but "something happened" must not look idle.
                (announced.max(1), unreadable)
            }
            Rings::V2(ring) => ring.pass(each),
        };
        cut.saw(stamped);
        for _ in 0..unreadable {
            sink.frame_dropped(FrameDrop::Malformed);
        }
        announced
    }

    fn read_statistics(&mut self) {
        // struct tpacket_stats_v3: packets (with drops), drops, freeze count. That of V2 ends before the third.
        if let Ok([packets, drops, freezes]) =
            socket::get_words::<3>(&self.fd, libc::SOL_PACKET, libc::PACKET_STATISTICS)
        {
            self.stats.packets += u64::from(packets);
            self.stats.drops += u64::from(drops);
            self.stats.freezes += u64::from(freezes);
        }
    }

    /// `struct tpacket_rollover_stats`, cumulative for a socket, with those of the sockets before this one: see
    /// [`ROLLOVER`].
    fn rollover(&self) -> [u64; 3] {
        let words = if self.rolls_over {
            socket::get_words::<6>(&self.fd, libc::SOL_PACKET, PACKET_ROLLOVER_STATS).unwrap_or_default()
        } else {
            [0; 6]
        };
        let mut sums = self.stats.rollover;
        for (sum, pair) in sums.iter_mut().zip(words.chunks_exact(2)) {
            let bytes = [pair[0].to_ne_bytes(), pair[1].to_ne_bytes()].concat();
            *sum += u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        sums
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

/// A receiver that never waits looks after its interface once in so many idle passes.
const IDLE_CHECK: u32 = 1 << 16;

impl PacketReceiver {
    fn still_there(&self) -> Result<()> {
        if net::exists(self.shared.ifindex) {
            return Ok(());
        }
        Err(Error::new(Code::Interface, format!("interface {} was removed", self.shared.interface)))
    }
}

impl Receiver for PacketReceiver {
    type Guard = GuardReceiver;

    const POLL_COALESCES: bool = true;
    const OTHERS_TAKE_OVER: bool = true;

    /// Handles at most one block, or 256 slots.
    fn receive<S: Sink>(&mut self, sink: &mut S) -> Result<usize> {
        if !self.closed {
            self.shared.tend();
        }
        // After closing too: what was in the ring that waits for us when it was closed is still to be read.
        if self.moving() {
            return Ok(self.move_over(sink));
        }
        let frames = self.pass(sink);
        if frames > 0 {
            self.suspect = false;
        } else {
            self.since.idle();
            self.idle_passes = self.idle_passes.wrapping_add(1);
            if self.idle_passes.is_multiple_of(IDLE_CHECK) {
                self.still_there()?;
            }
        }
        Ok(frames)
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        // In this order, see `restless`.
        let timeout = if self.shared.restless() { timeout.min(RESTLESS_WAIT) } else { timeout };
        if self.moving() {
            return Ok(());
        }
        let mut fds = [poll::for_input(&self.fd)];
        poll::ppoll(&mut fds, timeout).map_err(|e| Error::os(Code::Kernel, "poll on a packet ring", e))?;
        if fds[0].revents & libc::POLLERR != 0 {
            // ENETDOWN, once for each time the link goes down; reading it clears it. The kernel hooks the socket in
            // again when the link comes back. When the interface is being removed this is the only sign as well, and it
            // comes before the name is gone: so look again after every wait until something arrives.
            let _ = socket::get_int(&self.fd, libc::SOL_SOCKET, libc::SO_ERROR);
            self.suspect = true;
        }
        if self.suspect { self.still_there() } else { Ok(()) }
    }

    fn close_intake(&mut self) {
        self.closed = true;
        self.shared.leave(self.index);
        // Fails only without memory; then the final drain is merely not finite, and the engine bounds it in time.
        let _ = socket::attach_cbpf(&self.fd, libc::SO_ATTACH_FILTER, &classic::drop_all());
        self.ring.settle();
    }

    /// `lost`: `ring_full`. `notes`: `packets` (frames that passed the filter, lost ones included), `freezes` (times
    /// the kernel ran into a block that was not given back yet), and with rollover those of its statistics.
    /// `group_rebuilds` appears after the first time.
    fn counters(&mut self) -> KernelCounters {
        self.read_statistics();
        let mut notes = vec![("packets", self.stats.packets), ("freezes", self.stats.freezes)];
        if self.rolls_over {
            notes.extend(ROLLOVER.into_iter().zip(self.rollover()));
        }
        if self.generation > 0 || self.shared.failed() {
            notes.push(("group_rebuilds", self.generation.into()));
            notes.push(("group_rebuild_failed", self.shared.failed().into()));
        }
        KernelCounters { lost: vec![("ring_full", self.stats.drops)], notes }
    }

    fn rx_queue(&self) -> u16 {
        self.index
    }
}

impl Drop for PacketReceiver {
    fn drop(&mut self) {
        self.shared.died(self.index);
    }
}

/// One frame → its datagrams, or the reason why not.
#[inline]
fn deliver<S: Sink>(sink: &mut S, ours: &Ours, index: u16, verify: bool, frame: &Frame<'_>) {
    // The filter drops these already; a frame may have come in before it was attached.
    if frame.pkttype > LAST_INCOMING_PKTTYPE {
        return;
    }
    if frame.truncated {
        return sink.frame_dropped(FrameDrop::Truncated);
    }
    let ethernet = matches!(frame.hatype, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK);
    let parsed = if ethernet && frame.link_header >= ETHERNET {
        parse_ethernet(frame.bytes)
    } else {
        // Tunnels have no link-layer header, or one of their own.
        frame
            .bytes
            .get(frame.link_header..)
            .map_or(Err(FrameDrop::Malformed), |packet| parse_network(frame.ether_type, packet))
    };
    let udp = match parsed {
        Ok(udp) if ours.accepts(&udp, frame.tagged) => udp,
        Ok(_) => return sink.frame_dropped(FrameDrop::Foreign),
        Err(reason) => return sink.frame_dropped(reason),
    };
    // A super-packet has one checksum for many datagrams; what merged them (GRO) had verified them.
    if verify && !frame.checksum_settled && frame.gso_size == 0 && verdict(&udp) == Verdict::Wrong {
        return sink.frame_dropped(FrameDrop::BadChecksum);
    }
    let header = Datagram {
        payload: udp.payload,
        src: udp.src,
        dst: udp.dst,
        src_port: udp.src_port,
        dst_port: udp.dst_port,
        time: frame.time,
        rx_queue: index,
        flags: flags::KERNEL_TIME,
    };
    if frame.gso_size == 0 || udp.payload.len() <= frame.gso_size {
        return sink.datagram(&header);
    }
    // A super-packet (a local sender's UDP_SEGMENT, or GRO): datagrams of gso_size bytes, the last one perhaps shorter.
    for payload in udp.payload.chunks(frame.gso_size) {
        sink.datagram(&Datagram { payload, flags: header.flags | flags::SPLIT, ..header });
    }
}
