//! The receive pass: descriptors off the rx ring, datagrams to the sink, the same frames back on the fill ring.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use super::{
    attachment::Attachment,
    busy::{self, BusyPoll},
    joined::{Joined, Piece},
    socket::{XskSocket, XskStatistics},
    umem::{FrameCensus, Umem},
};
use crate::{
    config::{EngineConfig, ListenSet},
    datagram::{Datagram, Timestamp},
    error::{Code, Error, Result},
    net::Interface,
    packet::{checksum, parse_ethernet},
    rx::{FrameDrop, KernelCounters, Receiver, Sink},
};

/// Frames taken in one pass: long enough to pay for the ring's cache misses, short enough that the kernel gets frames
/// back while it still has some.
const PASS_FRAMES: u32 = 256;
/// A receiver that never waits looks after its socket's health once in so many idle passes.
const IDLE_CHECK: u32 = 1 << 16;

/// Receives from one rx queue. Field order matters: rings and socket go before the packet memory they use, and the
/// last receiver takes the program off the interface after its own socket is closed.
pub struct XdpReceiver {
    socket: XskSocket,
    umem: Umem,
    /// Addresses of the frames of this pass; here only to keep its memory.
    pass: Vec<u64>,
    listen: Arc<ListenSet>,
    interface: Interface,
    verify_checksum: bool,
    queue: u32,
    /// A frame of several descriptors, as far as it came.
    joined: Joined,
    busy_poll: Option<BusyPoll>,
    idle_passes: u32,
    /// What counters said last, in case the kernel cannot be asked any more.
    statistics: XskStatistics,
    attachment: Arc<Attachment>,
}

impl XdpReceiver {
    /// Memory, rings, a filled fill ring, bound, in the map: from here on frames arrive.
    pub(super) fn open(
        attachment: &Arc<Attachment>,
        interface: &Interface,
        listen: &Arc<ListenSet>,
        queue: u32,
        config: &EngineConfig,
        zero_copy: bool,
        node: Option<u32>,
    ) -> Result<Self> {
        let frames = config.xdp_frames;
        let umem = Umem::new(frames, node)?;
        let socket = XskSocket::new(&umem, frames / 2)?;
        let mut receiver = XdpReceiver {
            socket,
            umem,
            pass: Vec::with_capacity(frames as usize),
            listen: Arc::clone(listen),
            interface: interface.clone(),
            verify_checksum: config.verify_checksum,
            queue,
            joined: Joined::new(attachment.segments),
            busy_poll: None,
            idle_passes: 0,
            statistics: XskStatistics::default(),
            attachment: Arc::clone(attachment),
        };
        receiver.top_up();
        receiver.socket.bind(interface, queue, zero_copy, attachment.segments)?;
        attachment.map.insert(queue, receiver.socket.as_fd())?;
        Ok(receiver)
    }

    /// Whether the kernel granted zero-copy, read back from it.
    pub(super) fn zero_copy(&self) -> Result<bool> {
        self.socket.zero_copy()
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

    /// The NAPI that busy-polling drives; 0: none.
    pub(super) fn napi_id(&self) -> u32 {
        busy::napi_id(self.socket.as_fd())
    }

    /// True when the packet memory is on huge pages.
    pub(super) fn huge_pages(&self) -> bool {
        self.umem.huge_pages()
    }

    /// Where this queue's frames are, as far as both sides have published. For tests and diagnosis.
    pub fn frames(&self) -> FrameCensus {
        self.umem.census(self.socket.fill.occupied(), self.socket.rx.occupied())
    }

    /// All six kernel counters of this queue's socket.
    ///
    /// # Errors
    /// [`Code::Kernel`].
    pub fn statistics(&self) -> Result<XskStatistics> {
        self.socket.statistics()
    }

    /// The kernel's id of the XDP program.
    pub fn program_id(&self) -> u32 {
        self.attachment.program.id()
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

    /// The error that ends the thread, if the socket has one: its interface is gone.
    fn health(&self) -> Result<()> {
        match self.socket.take_error() {
            Some(e) if e.raw_os_error() == Some(libc::ENETDOWN) => Err(Error::os(
                Code::Interface,
                format!("interface {} was removed: rx queue {} has ended", self.interface.name, self.queue),
                e,
            )),
            _ => Ok(()),
        }
    }
}

impl Receiver for XdpReceiver {
    fn receive<S: Sink>(&mut self, sink: &mut S) -> Result<usize> {
        let count = self.socket.rx.available(PASS_FRAMES);
        if count == 0 {
            if self.busy_poll.as_mut().is_some_and(BusyPoll::due) || self.socket.fill.needs_wakeup() {
                self.socket.wake();
            }
            self.idle_passes = self.idle_passes.wrapping_add(1);
            if self.idle_passes.is_multiple_of(IDLE_CHECK) {
                self.health()?;
            }
            return Ok(0);
        }
        let time = Timestamp::now();
        for i in 0..count {
            let descriptor = self.socket.rx.get(i);
            let Some(frame) = self.umem.received(descriptor.addr) else {
                // Not an address we ever gave out: nothing to give back either.
                debug_assert!(false, "rx descriptor outside the UMEM: {:#x}", descriptor.addr);
                sink.frame_dropped(FrameDrop::Malformed);
                continue;
            };
            let more = descriptor.options & libc::XDP_PKT_CONTD != 0;
            let bytes = self.umem.bytes(&descriptor);
            if !more
                && self.joined.is_empty()
                && let Some(bytes) = bytes
            {
                deliver(bytes, &self.listen, self.verify_checksum, time, self.queue as u16, sink);
            } else {
                // A piece of a frame, or bytes outside the packet memory, with which its frame is lost.
                match self.joined.add(bytes, more) {
                    Piece::Last(frame) => {
                        deliver(frame, &self.listen, self.verify_checksum, time, self.queue as u16, sink);
                    }
                    Piece::Lost => sink.frame_dropped(FrameDrop::Truncated),
                    Piece::Taken => {}
                }
            }
            self.pass.push(frame);
        }
        // Fewer than could be: that was all the kernel has published, and it publishes whole frames.
        if count < PASS_FRAMES && !self.joined.is_empty() && self.joined.cut_off() {
            sink.frame_dropped(FrameDrop::Truncated);
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
        Ok(count as usize)
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        // poll(2) never reports a removed interface, so whoever waited in vain asks.
        if self.socket.wait(timeout)? { Ok(()) } else { self.health() }
    }

    fn close_intake(&mut self) {
        // A slot that cannot be emptied is one whose map is gone.
        let _ = self.attachment.map.remove(self.queue);
        wait_for_running_programs();
    }

    fn counters(&mut self) -> KernelCounters {
        if let Ok(now) = self.socket.statistics() {
            self.statistics = now;
        }
        let napi = self.busy_poll.as_ref().map(|_| ("busy_poll_napi_id", self.napi_id().into()));
        let s = &self.statistics;
        KernelCounters {
            lost: vec![("xsk_rx_dropped", s.rx_dropped), ("xsk_rx_ring_full", s.rx_ring_full)],
            notes: vec![
                ("xsk_fill_ring_empty", s.rx_fill_ring_empty),
                ("xsk_rx_invalid_descs", s.rx_invalid_descs),
                ("xsk_tx_invalid_descs", s.tx_invalid_descs),
                ("xsk_tx_ring_empty", s.tx_ring_empty),
            ]
            .into_iter()
            .chain(napi)
            .collect(),
        }
    }

    fn rx_queue(&self) -> u16 {
        self.queue as u16
    }
}

impl Drop for XdpReceiver {
    fn drop(&mut self) {
        // Before the socket closes: from now on the queue's frames go up the stack.
        let _ = self.attachment.map.remove(self.queue);
    }
}

/// One frame to the sink. Apart from rings and sockets so that it can be read, and tested, by itself.
#[inline]
fn deliver<S: Sink>(
    frame: &[u8],
    listen: &ListenSet,
    verify: bool,
    time: Timestamp,
    rx_queue: u16,
    sink: &mut S,
) {
    match parse_ethernet(frame) {
        // XDP gets no word about checksums from the kernel. One that is not ready is known by its value, which is
        // right for every frame of a sender on this host.
        Ok(udp)
            if verify
                && listen.accepts(udp.dst, udp.dst_port)
                && checksum::verify(&udp) == checksum::Verdict::Wrong =>
        {
            sink.frame_dropped(FrameDrop::BadChecksum);
        }
        Ok(udp) if listen.accepts(udp.dst, udp.dst_port) => sink.datagram(&Datagram {
            payload: udp.payload,
            src: udp.src,
            dst: udp.dst,
            src_port: udp.src_port,
            dst_port: udp.dst_port,
            time,
            rx_queue,
            flags: 0,
        }),
        Ok(_) => sink.frame_dropped(FrameDrop::Foreign),
        Err(reason) => sink.frame_dropped(reason),
    }
}

/// Returns when every XDP program that was running at the call has finished. Such a program may have looked the map up
/// before a slot was emptied. membarrier(2) with MEMBARRIER_CMD_GLOBAL waits for an RCU grace period, and XDP runs
/// inside RCU read-side sections, delivery to the socket included. Refused (old kernels, nohz_full) it falls back to a
/// pause far longer than any program runs.
fn wait_for_running_programs() {
    // SAFETY: membarrier takes three integers and touches no memory of ours.
    let rc = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if rc < 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
}
