//! For benches: an AF_XDP loop that only counts frames. Same program, rings and memory as [`super::XdpReceiver`], but no
//! byte of a frame is read and no frame's owner is kept in the books.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use super::{
    attachment::Attachment,
    socket::{BIND_PATIENCE, XskSocket},
    umem::Umem,
};
use crate::{
    config::EngineConfig,
    error::{Code, Error, Result},
    net::Interface,
    rx::{KernelCounters, NoGuard, Receiver, Sink},
};

/// As many as a pass of the real receiver takes.
const PASS_FRAMES: u32 = 256;

/// Counts the frames of rx queue 0. Field order as in the real receiver: rings before memory.
pub struct XdpCounter {
    socket: XskSocket,
    _umem: Umem,
    pass: Vec<u64>,
    _attachment: Arc<Attachment>,
}

impl XdpCounter {
    /// Attached, bound and in the map.
    ///
    /// # Errors
    /// As [`super::open`].
    pub fn open(config: &EngineConfig) -> Result<Self> {
        let name = config.interface.as_deref().unwrap_or_default();
        let interface = Interface::by_name(name)?;
        let attachment = Attachment::new(&interface, &config.listen, config.xdp_mode, &mut Vec::new())?;
        let mut umem = Umem::new(config.xdp_frames, None)?;
        let mut socket = XskSocket::new(&umem, config.xdp_frames / 2)?;
        let pass: Vec<u64> = umem.take_free(config.xdp_frames as usize / 2).collect();
        if socket.fill.push(&pass) != pass.len() {
            return Err(Error::new(Code::Kernel, "a fresh fill ring is full"));
        }
        socket.bind(&interface, 0, false, attachment.segments, BIND_PATIENCE)?;
        attachment.map.insert(0, socket.as_fd())?;
        Ok(XdpCounter { socket, _umem: umem, pass, _attachment: Arc::new(attachment) })
    }
}

impl Receiver for XdpCounter {
    type Guard = NoGuard;

    fn receive<S: Sink>(&mut self, _: &mut S) -> Result<usize> {
        let count = self.socket.rx.available(PASS_FRAMES);
        self.pass.clear();
        // The address as it came: the kernel masks it to the frame's start by itself.
        self.pass.extend((0..count).map(|i| self.socket.rx.get(i).addr));
        // What was received fits: the kernel took it from this ring, which holds as many as the rx ring.
        self.socket.fill.push(&self.pass);
        self.socket.rx.release(count);
        if self.socket.fill.needs_wakeup() {
            self.socket.wake();
        }
        Ok(count as usize)
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        self.socket.wait(timeout).map(drop)
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
