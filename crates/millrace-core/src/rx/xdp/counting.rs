//! An AF_XDP loop that only counts frames, for benches. It has the program, rings and memory of [`super::XdpReceiver`], but
//! reads no byte of a frame and keeps no books on frames.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use super::{
    attachment::Attachment,
    socket::{self, BIND_TIMEOUT, XskSocket},
    umem::{Frame, RxDescriptor, Umem},
};
use crate::{
    config::EngineConfig,
    error::Result,
    net::Interface,
    rx::{KernelCounters, NoGuard, Receiver, Sink},
};

/// Descriptors taken in one pass, as many as in a pass of the real receiver.
const PASS_FRAMES: u32 = 256;

/// Counts the frames of rx queue 0. Field order as in the real receiver: rings before memory.
pub struct XdpCounter {
    socket: XskSocket,
    _umem: Umem,
    /// Frames consumed and not given back yet.
    consumed: Vec<Frame>,
    _attachment: Arc<Attachment>,
}

impl XdpCounter {
    /// Attaches the program to `config.interface` and binds a socket to rx queue 0.
    ///
    /// # Errors
    /// Those of [`super::open()`].
    pub fn open(config: &EngineConfig) -> Result<Self> {
        let name = config.interface.as_deref().unwrap_or_default();
        let interface = Interface::by_name(name)?;
        let attachment = Attachment::new(&interface, &config.listen, config.xdp_mode, &mut Vec::new())?;
        let mut umem = Umem::new(config.xdp_frames, None)?;
        let mut socket = XskSocket::new(&umem, config.xdp_frames / 2)?;
        umem.top_up(&mut socket.fill);
        socket.bind(&interface, 0, false, attachment.multi_buffer, BIND_TIMEOUT)?;
        attachment.map.insert(0, socket.as_fd())?;
        let consumed = Vec::with_capacity(config.xdp_frames as usize);
        Ok(XdpCounter { socket, _umem: umem, consumed, _attachment: Arc::new(attachment) })
    }
}

impl Receiver for XdpCounter {
    type Guard = NoGuard;

    fn receive<S: Sink>(&mut self, _: &mut S) -> Result<usize> {
        let count = self.socket.rx.available(PASS_FRAMES);
        self.consumed.extend((0..count).map(|_| self.socket.rx.consume()).map(RxDescriptor::into_frame));
        // Frames that the fill ring has no room for wait for the next pass.
        let room = self.socket.fill.room(self.consumed.len() as u32) as usize;
        self.socket.fill.push(self.consumed.drain(..room.min(self.consumed.len())));
        self.socket.rx.release();
        if self.socket.fill.needs_wakeup() {
            self.socket.wake();
        }
        Ok(count as usize)
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        socket::wait_any(&mut [self.socket.pollfd()], timeout).map(drop)
    }

    fn close_intake(&mut self) {}

    fn counters(&mut self) -> KernelCounters {
        let lost = self.socket.statistics().map_or(0, |s| s.rx_dropped + s.rx_ring_full);
        KernelCounters { lost: vec![("xsk", lost)], notes: Vec::new() }
    }

    fn rx_queue(&self) -> u16 {
        0
    }
}
