//! One rx queue: its socket, its packet memory, and the receive pass that connects them: descriptors off the rx ring,
//! datagrams to the sink, the same frames back on the fill ring.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use super::{
    attached_interface::AttachedInterface,
    attachment::Attachment,
    busy_poll::{self, BusyPoll},
    deliver::{AcceptFilter, PassInfo},
    multi_buffer::{MultiBufferPacket, Outcome},
    rx_ring_full::RxRingFullTracker,
    socket::{XskSocket, XskStatistics},
    umem::{Frame, FrameCensus, RxDescriptor, Umem},
};
use crate::{datagram::Timestamp, error::Result, packet::FrameDrop, rx::Sink};

/// Descriptors taken in one pass. Too few, and the cache misses on the rings' indices are paid for by few frames; too many,
/// and the kernel runs out of frames while the first ones of the pass wait for the last ones.
const PASS_FRAMES: u32 = 256;

/// The socket and packet memory of one rx queue.
///
/// Field order matters. Rings and socket are dropped before the packet memory, so that the kernel does not go on receiving
/// into memory that is read no more; the last queue's attachment takes the program off the interface after its socket is
/// closed.
pub(super) struct RxQueue {
    /// Number of the rx queue.
    pub(super) number: u32,
    socket: XskSocket,
    umem: Umem,
    /// Frames that the running pass has consumed and not given back; empty between passes, and kept for its memory.
    consumed: Vec<Frame>,
    /// The packet of several descriptors that is being received.
    packet: MultiBufferPacket,
    /// Present where the kernel may lose the end of a packet, that is, in zero-copy mode.
    rx_ring_full: Option<RxRingFullTracker>,
    busy_poll: Option<BusyPoll>,
    /// The rx queue's packets do not come here any more; the socket is closed as soon as its rx ring is empty.
    pub(super) draining: bool,
    /// The kernel's counters at the last time they could be read.
    statistics: XskStatistics,
    attachment: Arc<Attachment>,
}

impl RxQueue {
    /// Opens rx queue `number` with `frames` frames of packet memory. The order is: memory, rings, frames on the fill ring,
    /// bind, XSKMAP. When it returns, packets arrive. `bind_timeout` is that of [`XskSocket::bind`].
    ///
    /// # Errors
    /// Those of [`Umem::new`], [`XskSocket::new`], [`XskSocket::bind`] and of the map.
    pub(super) fn open(
        attached: &AttachedInterface,
        number: u32,
        frames: u32,
        zero_copy: bool,
        bind_timeout: Duration,
    ) -> Result<Self> {
        let attachment = &attached.attachment;
        let umem = Umem::new(frames, attached.node)?;
        let socket = XskSocket::new(&umem, frames / 2)?;
        let mut queue = RxQueue {
            number,
            socket,
            umem,
            consumed: Vec::with_capacity(PASS_FRAMES as usize),
            packet: MultiBufferPacket::new(attachment.multi_buffer),
            rx_ring_full: None,
            busy_poll: None,
            draining: false,
            statistics: XskStatistics::default(),
            attachment: Arc::clone(attachment),
        };
        queue.umem.top_up(&mut queue.socket.fill);
        queue.socket.bind(&attached.interface, number, zero_copy, attachment.multi_buffer, bind_timeout)?;
        // A kernel that does not tell the mode is not trusted with the ends of packets.
        queue.rx_ring_full = queue.socket.zero_copy().unwrap_or(true).then(RxRingFullTracker::default);
        attachment.map.insert(number, queue.socket.as_fd())?;
        Ok(queue)
    }

    pub(super) fn socket(&self) -> &XskSocket {
        &self.socket
    }

    /// Switches preferred busy-polling on.
    ///
    /// # Errors
    /// The sentence for the user that explains why it was refused.
    pub(super) fn enable_busy_poll(&mut self) -> std::result::Result<(), String> {
        self.busy_poll = Some(BusyPoll::enable(self.socket.fd()).map_err(|e| busy_poll::refusal(&e))?);
        Ok(())
    }

    /// Switches preferred busy-polling off.
    pub(super) fn disable_busy_poll(&mut self) {
        self.busy_poll = None;
        busy_poll::disable(self.socket.fd());
    }

    /// True when the options of preferred busy-polling are set; [`RxQueue::napi_id`] says whether they have an effect.
    pub(super) fn busy_polls(&self) -> bool {
        self.busy_poll.is_some()
    }

    /// The id of the NAPI that busy-polling drives; 0 when there is none.
    pub(super) fn napi_id(&self) -> u32 {
        busy_poll::napi_id(self.socket.fd())
    }

    /// True when the packet memory is on huge pages.
    pub(super) fn is_on_huge_pages(&self) -> bool {
        self.umem.is_on_huge_pages()
    }

    /// Returns where the frames are, as far as both sides have published.
    pub(super) fn frames(&self) -> FrameCensus {
        self.umem.census(self.socket.fill.occupied(), self.socket.rx.occupied())
    }

    /// True when no descriptor waits to be received.
    pub(super) fn is_empty(&self) -> bool {
        self.socket.rx.occupied() == 0
    }

    /// The kernel's counters, or what they were when it last answered.
    pub(super) fn statistics(&mut self) -> XskStatistics {
        if let Ok(statistics) = self.socket.statistics() {
            self.statistics = statistics;
            if let Some(tracker) = &mut self.rx_ring_full {
                tracker.record_reading(statistics);
            }
        }
        self.statistics
    }

    /// True when the interface was removed from under the socket. The kernel reports it once.
    pub(super) fn take_interface_removed(&self) -> bool {
        self.socket.take_error().is_some_and(|e| e.raw_os_error() == Some(libc::ENETDOWN))
    }

    /// Takes the socket out of the XSKMAP: from now on packets of this rx queue go up the stack, except where a program is
    /// just running, see [`super::grace_period`].
    pub(super) fn close_intake(&self) {
        // It fails only where the map is gone, and then nothing is delivered by it.
        let _ = self.attachment.map.remove(self.number);
    }

    /// One receive pass. Returns how many frames it took.
    ///
    /// The order of the steps, and what the kernel may do after each:
    ///
    /// 1. *Consume and deliver.* `available` reads the rx ring's producer index with acquire, so that the descriptors and
    ///    the data they name are visible. Each descriptor is moved out of the ring, and its packet goes to the sink, which
    ///    copies the payload. The kernel touches neither ring entry nor frame. The fragments of a multi-buffer packet are
    ///    copied as well, so that a packet whose end has not come holds bytes but no frame: its frames go back with all others
    ///    in step 2. A pass that found fewer than [`PASS_FRAMES`] descriptors has consumed all that the kernel had published,
    ///    and drops such a packet before step 2 ([`RxQueue::discard_open_packet`]); after a full pass the next one continues
    ///    the packet, or drops it when it finds the ring empty.
    /// 2. *Give the frames back* to the fill ring, whose producer index is stored with release: all reads of the data are
    ///    over before the kernel sees the frames. From here on it may overwrite them at any moment.
    /// 3. *Release the rx ring's entries*; the consumer index is stored with release, after the descriptors were read. From
    ///    here on the kernel may overwrite them, with descriptors of frames it got in step 2 for example.
    /// 4. *Top up* the fill ring with free frames. In step 2 it may have had too little room, because the kernel publishes
    ///    the rx ring's producer before the fill ring's consumer (`xsk_flush`).
    /// 5. *Wake the kernel* when it requires it, after the frames are there, because it reads them in that very call.
    ///
    /// Step 1 must come before 2, or the kernel could overwrite data while the sink reads it, and before 3, or it could
    /// overwrite a descriptor unread. Between 2 and 3 either order would be correct, for neither needs what the other gives
    /// away. Frames go first because the kernel needs them first: `__xsk_rcv` takes a frame off the fill ring and then an
    /// entry on the rx ring, and a zero-copy driver refills its hardware ring with frames long before it needs those entries
    /// (one that finds the fill ring empty sets need_wakeup, and pauses until it is woken). The stores with release keep the
    /// order: a CPU that sees a free entry also sees the frame for it. The kernel's own sample, xdpsock, has the same order
    /// (`rx_drop`).
    ///
    /// So no packet is dropped (`rx_dropped`) for want of a frame that a pass still holds, given the sizes that
    /// [`RxQueue::open`] chooses: N frames, and two rings of N/2 entries. A frame that the pass holds keeps its entry on the rx
    /// ring occupied until step 3. Thus at most N/2 frames are on the rx ring or in the pass, and the other N/2 are as many as
    /// the fill ring holds (those that are free for the moment are put on it in step 4). When the kernel has put all of these
    /// on the rx ring, that has no free entry either, and the next packet would be dropped in any case. A longer rx ring could
    /// have a free entry while the frame for it is still held by the pass.
    #[inline]
    pub(super) fn receive_pass<S: Sink>(&mut self, filter: &AcceptFilter, sink: &mut S) -> usize {
        let count = self.socket.rx.available(PASS_FRAMES);
        if count == 0 {
            self.idle_pass(sink);
            return 0;
        }
        let info = PassInfo { time: Timestamp::now(), rx_queue: self.number as u16 };
        for _ in 0..count {
            let descriptor = self.socket.rx.consume();
            let may_lack_end = || {
                self.rx_ring_full
                    .as_ref()
                    .is_some_and(|tracker| tracker.may_lack_end(|| self.socket.statistics().ok()))
            };
            let frame =
                receive(&mut self.umem, &mut self.packet, may_lack_end, descriptor, filter, info, sink);
            self.consumed.extend(frame);
        }
        if count < PASS_FRAMES {
            self.discard_open_packet(sink);
        }
        self.umem.give_back(&mut self.socket.fill, &mut self.consumed);
        self.socket.rx.release();
        if self.umem.free() > 0 {
            self.umem.top_up(&mut self.socket.fill);
        }
        debug_assert!(self.umem.is_conserved(), "frames lost or made: {:?}", self.frames());
        if self.socket.fill.needs_wakeup() {
            self.socket.wake();
        }
        count as usize
    }

    /// A pass that finds the rx ring empty.
    #[inline]
    fn idle_pass<S: Sink>(&mut self, sink: &mut S) {
        self.discard_open_packet(sink);
        if let Some(tracker) = &mut self.rx_ring_full {
            tracker.record_empty_ring();
        }
        if self.busy_poll.as_mut().is_some_and(BusyPoll::is_due) || self.socket.fill.needs_wakeup() {
            self.socket.wake();
        }
    }

    /// Call it when everything the kernel has published is consumed: fewer descriptors were there than a pass takes.
    /// The kernel publishes whole packets (`xsk_flush` comes after the last descriptor of a packet), so that the end of a
    /// packet that is still open was lost. It is counted as truncated.
    #[inline]
    fn discard_open_packet<S: Sink>(&mut self, sink: &mut S) {
        if !self.packet.is_idle() && self.packet.discard_open() {
            sink.frame_dropped(FrameDrop::Truncated);
        }
    }
}

impl Drop for RxQueue {
    fn drop(&mut self) {
        // Before the socket closes: from now on the rx queue's packets go up the stack.
        self.close_intake();
    }
}

/// Receives one descriptor. Returns its frame, which goes back whatever was in it; None for an address outside the UMEM,
/// which was never given to the kernel. `may_lack_end` is that of [`MultiBufferPacket::add`]. The function is apart from rings
/// and sockets, so that it can be tested without them.
#[inline]
fn receive<S: Sink>(
    umem: &mut Umem,
    packet: &mut MultiBufferPacket,
    may_lack_end: impl FnOnce() -> bool,
    descriptor: RxDescriptor,
    filter: &AcceptFilter,
    info: PassInfo,
    sink: &mut S,
) -> Option<Frame> {
    if !umem.contains(&descriptor) {
        debug_assert!(false, "rx descriptor outside the UMEM: {:#x}", descriptor.address());
        sink.frame_dropped(FrameDrop::Malformed);
        return None;
    }
    let continued = descriptor.is_continued();
    let bytes = umem.bytes(&descriptor);
    if !continued
        && packet.is_idle()
        && let Some(bytes) = bytes
    {
        filter.deliver(bytes, info, sink);
    } else {
        // A fragment of a packet, or data that crosses the end of its frame, with which the packet is dropped.
        match packet.add(bytes, continued, may_lack_end) {
            Outcome::Continued => {}
            Outcome::Complete(packet) => filter.deliver(packet, info, sink),
            Outcome::Dropped => sink.frame_dropped(FrameDrop::Truncated),
            Outcome::DroppedThenComplete(packet) => {
                sink.frame_dropped(FrameDrop::Truncated);
                filter.deliver(packet, info, sink);
            }
        }
    }
    Some(umem.reclaim(descriptor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Listen, ListenSet},
        datagram::Datagram,
        packet::build,
    };

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

    /// The kernel delivers fragments, each with XDP_PKT_CONTD or without, in frames of a UMEM of 64. Every frame comes back.
    fn deliver(packet: &mut MultiBufferPacket, seen: &mut Seen, fragments: &[(&[u8], bool)]) {
        let mut umem = Umem::new(64, None).unwrap();
        let listen = [Listen { address: None, scope: None, port: 9000 }];
        let filter = AcceptFilter { listen: Arc::new(ListenSet::new(&listen)), verify_checksum: false };
        let info = PassInfo { time: Timestamp::now(), rx_queue: 5 };
        for chunk in fragments.chunks(64) {
            let frames = umem.take_as_kernel(chunk.len());
            let mut back = Vec::new();
            for (&(fragment, continued), frame) in chunk.iter().zip(&frames) {
                let options = if continued { libc::XDP_PKT_CONTD } else { 0 };
                let descriptor = RxDescriptor::new(frame + 256, fragment.len() as u32, options);
                umem.write(&descriptor, fragment);
                back.extend(receive(&mut umem, packet, || true, descriptor, &filter, info, seen));
            }
            assert_eq!(back, frames.into_iter().map(Frame::at).collect::<Vec<_>>());
            umem.keep(back);
            assert!(umem.is_conserved() && umem.free() == 64);
        }
    }

    #[test]
    fn a_chain_without_end_costs_its_own_frame_and_no_packet_memory() {
        let ip = |a: &str| a.parse().unwrap();
        let frame =
            |fill: u8| build::Frame::new((ip("192.0.2.1"), 1), (ip("192.0.2.2"), 9000)).bytes(&[fill; 3000]);
        let (one, two) = (frame(1), frame(2));
        let whole = |f: &'static [u8]| [(&f[..1792], true), (&f[1792..], false)];
        let (one, two): (&'static [u8], &'static [u8]) = (one.leak(), two.leak());
        let (mut packet, mut seen) = (MultiBufferPacket::new(true), Seen::default());
        // Whole; begun and never ended, before a whole one; whole again.
        deliver(&mut packet, &mut seen, &whole(one));
        deliver(&mut packet, &mut seen, &[&whole(one)[..1], &whole(two)].concat());
        deliver(&mut packet, &mut seen, &whole(two));
        assert_eq!((seen.payloads.len(), seen.dropped.as_slice()), (3, &[FrameDrop::Truncated][..]));
        assert!(seen.payloads[0] == [1; 3000] && seen.payloads[1] == [2; 3000]);
        // More fragments than the packet memory has frames, and no end.
        deliver(&mut packet, &mut seen, &[(&one[42..1792], true); 1000]);
        assert_eq!(seen.dropped.len(), 2, "counted once, before its end");
        deliver(&mut packet, &mut seen, &[(&one[..10], false)]);
        deliver(&mut packet, &mut seen, &whole(one));
        assert_eq!((seen.payloads.len(), seen.dropped.len()), (4, 2));
    }
}
