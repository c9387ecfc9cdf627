//! One rx queue: its socket, its packet memory, and the receive pass that joins them: descriptors off the rx ring,
//! datagrams to the sink, the same frames back on the fill ring.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use super::{
    attachment::Attachment,
    busy::{self, BusyPoll},
    host::Attached,
    multi_buffer::{Joined, Piece},
    overflow::Overflow,
    socket::{XskSocket, XskStatistics},
    umem::{FrameCensus, Umem},
};
use crate::{
    config::ListenSet,
    datagram::{Datagram, Timestamp},
    error::Result,
    packet::FrameDrop,
    packet::{checksum, parse_ethernet},
    rx::Sink,
};

/// Frames taken in one pass: long enough to pay for the ring's cache misses, short enough that the kernel gets frames
/// back while it still has some.
const PASS_FRAMES: u32 = 256;

/// What a frame must be to be a datagram of ours.
pub(super) struct Wanted {
    pub(super) listen: Arc<ListenSet>,
    pub(super) verify_checksum: bool,
}

/// Field order matters: rings and socket go before the packet memory they use, and the last queue's attachment takes the
/// program off the interface after the socket is closed.
pub(super) struct RxQueue {
    pub(super) number: u32,
    socket: XskSocket,
    umem: Umem,
    /// Addresses of the frames of this pass; here only to keep its memory.
    pass: Vec<u64>,
    /// A frame of several descriptors, as far as it came.
    joined: Joined,
    /// Where frames may lose their ends: in zero-copy, by the kernel's own word.
    overflow: Option<Overflow>,
    busy_poll: Option<BusyPoll>,
    /// Nothing comes any more; closed as soon as it is empty.
    pub(super) leaving: bool,
    /// What the kernel counted when it was last asked, in case it cannot be asked any more.
    statistics: XskStatistics,
    attachment: Arc<Attachment>,
}

impl RxQueue {
    /// Memory, rings, a filled fill ring, bound, in the map: from here on frames arrive. `frames` of packet memory;
    /// `patience` as in [`XskSocket::bind`].
    pub(super) fn open(
        attached: &Attached,
        number: u32,
        frames: u32,
        zero_copy: bool,
        patience: Duration,
    ) -> Result<Self> {
        let attachment = &attached.attachment;
        let umem = Umem::new(frames, attached.node)?;
        let socket = XskSocket::new(&umem, frames / 2)?;
        let mut queue = RxQueue {
            number,
            socket,
            umem,
            pass: Vec::with_capacity(frames as usize),
            joined: Joined::new(attachment.segments),
            overflow: None,
            busy_poll: None,
            leaving: false,
            statistics: XskStatistics::default(),
            attachment: Arc::clone(attachment),
        };
        queue.top_up();
        queue.socket.bind(&attached.interface, number, zero_copy, attachment.segments, patience)?;
        // One that does not say is not trusted.
        queue.overflow = queue.socket.zero_copy().unwrap_or(true).then(Overflow::default);
        attachment.map.insert(number, queue.socket.as_fd())?;
        Ok(queue)
    }

    pub(super) fn socket(&self) -> &XskSocket {
        &self.socket
    }

    /// Switches preferred busy-polling on.
    ///
    /// # Errors
    /// Why not, for people.
    pub(super) fn busy_poll(&mut self) -> std::result::Result<(), String> {
        self.busy_poll = Some(BusyPoll::enable(self.socket.as_fd()).map_err(|e| busy::refused(&e))?);
        Ok(())
    }

    /// Switches preferred busy-polling off again.
    pub(super) fn no_busy_poll(&mut self) {
        self.busy_poll = None;
        busy::disable(self.socket.as_fd());
    }

    /// Preferred busy-polling is on, for what it is worth.
    pub(super) fn busy_polls(&self) -> bool {
        self.busy_poll.is_some()
    }

    /// The NAPI that busy-polling drives; 0: none.
    pub(super) fn napi_id(&self) -> u32 {
        busy::napi_id(self.socket.as_fd())
    }

    /// True when the packet memory is on huge pages.
    pub(super) fn huge_pages(&self) -> bool {
        self.umem.huge_pages()
    }

    /// Where the frames are, as far as both sides have published.
    pub(super) fn frames(&self) -> FrameCensus {
        self.umem.census(self.socket.fill.occupied(), self.socket.rx.occupied())
    }

    /// Nothing waits to be received.
    pub(super) fn is_empty(&self) -> bool {
        self.socket.rx.occupied() == 0
    }

    /// The kernel's counters, or what they were when it last answered.
    pub(super) fn statistics(&mut self) -> XskStatistics {
        if let Ok(now) = self.socket.statistics() {
            self.statistics = now;
            if let Some(overflow) = &mut self.overflow {
                overflow.read(now);
            }
        }
        self.statistics
    }

    /// True once, when the interface was removed under the socket.
    pub(super) fn lost_interface(&self) -> bool {
        self.socket.take_error().is_some_and(|e| e.raw_os_error() == Some(libc::ENETDOWN))
    }

    /// From now on frames of this rx queue go up the stack, except where a program is just running.
    pub(super) fn close_intake(&self) {
        // A slot that cannot be emptied is one whose map is gone.
        let _ = self.attachment.map.remove(self.number);
    }

    /// One receive pass. Returns how many frames it took.
    #[inline]
    pub(super) fn pass<S: Sink>(&mut self, wanted: &Wanted, sink: &mut S) -> usize {
        let count = self.socket.rx.available(PASS_FRAMES);
        if count == 0 {
            self.nothing_left(sink);
            if let Some(overflow) = &mut self.overflow {
                overflow.emptied();
            }
            if self.busy_poll.as_mut().is_some_and(BusyPoll::due) || self.socket.fill.needs_wakeup() {
                self.socket.wake();
            }
            return 0;
        }
        let at = Place { time: Timestamp::now(), rx_queue: self.number as u16 };
        for i in 0..count {
            let descriptor = self.socket.rx.get(i);
            let torn =
                || self.overflow.as_ref().is_some_and(|o| o.may_have_torn(|| self.socket.statistics().ok()));
            let frame = take(&mut self.umem, (&mut self.joined, torn), &descriptor, wanted, at, sink);
            self.pass.extend(frame);
        }
        // Fewer than could be: that was all there is.
        if count < PASS_FRAMES {
            self.nothing_left(sink);
        }
        self.give_back();
        self.socket.rx.release(count);
        if self.umem.free() > 0 {
            self.top_up();
        }
        debug_assert!(self.umem.conserved(), "frames lost or made: {:?}", self.frames());
        if self.socket.fill.needs_wakeup() {
            self.socket.wake();
        }
        count as usize
    }

    /// All the kernel has published is taken, and it publishes whole frames.
    #[inline]
    fn nothing_left<S: Sink>(&mut self, sink: &mut S) {
        if !self.joined.is_empty() && self.joined.cut_off() {
            sink.frame_dropped(FrameDrop::Truncated);
        }
    }

    /// Puts the frames of `pass` on the fill ring, and keeps what does not fit.
    fn give_back(&mut self) {
        let given = self.socket.fill.push(&self.pass);
        self.umem.handed_over(&self.pass[..given]);
        self.umem.keep(&self.pass[given..]);
        self.pass.clear();
    }

    /// Puts free frames on the fill ring where it has room. There is some whenever frames wait in the rx ring, so the
    /// kernel then has both rings' worth of frames.
    fn top_up(&mut self) {
        debug_assert!(self.pass.is_empty());
        let room = self.socket.fill.room(self.umem.free() as u32) as usize;
        if room > 0 && self.umem.free() > 0 {
            self.pass.extend(self.umem.take_free(room));
            self.give_back();
        }
    }
}

impl Drop for RxQueue {
    fn drop(&mut self) {
        // Before the socket closes: from now on the queue's frames go up the stack.
        self.close_intake();
    }
}

/// What the datagrams of a pass have in common.
#[derive(Clone, Copy)]
struct Place {
    time: Timestamp,
    rx_queue: u16,
}

/// One descriptor. Returns its frame, which goes back whatever was in it; None for an address we never gave out. Apart
/// from rings and sockets, so that it can be tested by itself.
#[inline]
fn take<S: Sink>(
    umem: &mut Umem,
    (joined, torn): (&mut Joined, impl FnOnce() -> bool),
    descriptor: &libc::xdp_desc,
    wanted: &Wanted,
    at: Place,
    sink: &mut S,
) -> Option<u64> {
    let Some(frame) = umem.received(descriptor.addr) else {
        debug_assert!(false, "rx descriptor outside the UMEM: {:#x}", descriptor.addr);
        sink.frame_dropped(FrameDrop::Malformed);
        return None;
    };
    let more = descriptor.options & libc::XDP_PKT_CONTD != 0;
    let bytes = umem.bytes(descriptor);
    if !more
        && joined.is_empty()
        && let Some(bytes) = bytes
    {
        deliver(bytes, wanted, at, sink);
    } else {
        // A piece of a frame, or bytes outside the packet memory, with which its frame is lost.
        match joined.add(bytes, more, torn) {
            Piece::Last(frame) => deliver(frame, wanted, at, sink),
            Piece::LostThen(frame) => {
                sink.frame_dropped(FrameDrop::Truncated);
                deliver(frame, wanted, at, sink);
            }
            Piece::Lost => sink.frame_dropped(FrameDrop::Truncated),
            Piece::Taken => {}
        }
    }
    Some(frame)
}

/// One frame to the sink.
#[inline]
fn deliver<S: Sink>(frame: &[u8], wanted: &Wanted, at: Place, sink: &mut S) {
    let listen = &wanted.listen;
    match parse_ethernet(frame) {
        // XDP gets no word about checksums from the kernel. One that is not ready is known by its value, which is
        // right for every frame of a sender on this host.
        Ok(udp)
            if wanted.verify_checksum
                && listen.accepts(udp.dst, udp.dst_port)
                && checksum::verify(&udp) == checksum::ChecksumState::Invalid =>
        {
            sink.frame_dropped(FrameDrop::BadChecksum);
        }
        Ok(udp) if listen.accepts(udp.dst, udp.dst_port) => sink.datagram(&Datagram {
            payload: udp.payload,
            src: udp.src,
            dst: udp.dst,
            src_port: udp.src_port,
            dst_port: udp.dst_port,
            time: at.time,
            rx_queue: at.rx_queue,
            flags: 0,
        }),
        Ok(_) => sink.frame_dropped(FrameDrop::Foreign),
        Err(reason) => sink.frame_dropped(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Listen, packet::build::Frame};

    #[derive(Default)]
    struct Seen {
        payloads: Vec<Vec<u8>>,
        dropped: Vec<FrameDrop>,
    }

    impl Sink for Seen {
        fn datagram(&mut self, d: &Datagram<'_>) {
            assert_eq!(d.rx_queue, 5);
            self.payloads.push(d.payload.to_vec());
        }

        fn frame_dropped(&mut self, reason: FrameDrop) {
            self.dropped.push(reason);
        }
    }

    /// The kernel hands over `pieces`, each with "more follow" or not, in frames of a UMEM of 64. Every frame comes back.
    fn hand_over(joined: &mut Joined, seen: &mut Seen, pieces: &[(&[u8], bool)]) {
        let mut umem = Umem::new(64, None).unwrap();
        let listen = [Listen { address: None, scope: None, port: 9000 }];
        let wanted = Wanted { listen: Arc::new(ListenSet::new(&listen)), verify_checksum: false };
        let at = Place { time: Timestamp::now(), rx_queue: 5 };
        for chunk in pieces.chunks(64) {
            let frames: Vec<u64> = umem.take_free(chunk.len()).collect();
            umem.handed_over(&frames);
            let mut back = Vec::new();
            for (&(piece, more), frame) in chunk.iter().zip(&frames) {
                let options = if more { libc::XDP_PKT_CONTD } else { 0 };
                let desc = libc::xdp_desc { addr: frame + 256, len: piece.len() as u32, options };
                umem.write(&desc, piece);
                back.extend(take(&mut umem, (&mut *joined, || true), &desc, &wanted, at, seen));
            }
            assert_eq!(back, frames);
            umem.keep(&back);
            assert!(umem.conserved() && umem.free() == 64);
        }
    }

    #[test]
    fn a_chain_without_end_costs_its_own_frame_and_no_packet_memory() {
        let ip = |a: &str| a.parse().unwrap();
        let frame = |fill: u8| Frame::new((ip("192.0.2.1"), 1), (ip("192.0.2.2"), 9000)).bytes(&[fill; 3000]);
        let (one, two) = (frame(1), frame(2));
        let whole = |f: &'static [u8]| [(&f[..1792], true), (&f[1792..], false)];
        let (one, two): (&'static [u8], &'static [u8]) = (one.leak(), two.leak());
        let (mut joined, mut seen) = (Joined::new(true), Seen::default());
        // Whole; begun and never ended, before a whole one; whole again.
        hand_over(&mut joined, &mut seen, &whole(one));
        hand_over(&mut joined, &mut seen, &[&whole(one)[..1], &whole(two)].concat());
        hand_over(&mut joined, &mut seen, &whole(two));
        assert_eq!((seen.payloads.len(), seen.dropped.as_slice()), (3, &[FrameDrop::Truncated][..]));
        assert!(seen.payloads[0] == [1; 3000] && seen.payloads[1] == [2; 3000]);
        // More pieces than the packet memory has frames, and no end.
        hand_over(&mut joined, &mut seen, &[(&one[42..1792], true); 1000]);
        assert_eq!(seen.dropped.len(), 2, "counted once, before its end");
        hand_over(&mut joined, &mut seen, &[(&one[..10], false)]);
        hand_over(&mut joined, &mut seen, &whole(one));
        assert_eq!((seen.payloads.len(), seen.dropped.len()), (4, 2));
    }
}
