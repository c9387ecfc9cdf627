//! A TPACKET_V3 loop that only counts frames, by the number in each block's header, to measure the receiver against. It reads
//! no frame, attaches no filter and joins no group.

use std::{os::fd::OwnedFd, time::Duration};

use super::{member::open_socket, ring_v3::RingV3};
use crate::{
    config::{EngineConfig, Tpacket},
    error::{Code, Error, Result},
    net::Interface,
    rx::{KernelCounters, NoGuard, Receiver, Sink},
    sys::{poll, socket},
};

/// A receiver that counts the frames of an interface and delivers none.
pub struct PacketCounter {
    ring: RingV3,
    fd: OwnedFd,
    lost: u64,
}

impl PacketCounter {
    /// Opens a ring of the configured size on the configured interface.
    ///
    /// # Errors
    /// Those of [`super::open()`].
    pub fn open(config: &EngineConfig) -> Result<Self> {
        let interface = Interface::by_name(config.interface.as_deref().unwrap_or_default())?;
        let kernel = |what: &'static str| move |e| Error::os(Code::Kernel, what, e);
        let fd = open_socket(Tpacket::V3)?;
        let ring = RingV3::new(&fd, config.packet_block_bytes, config.packet_blocks)
            .map_err(kernel("PACKET_RX_RING"))?;
        socket::bind_packet(&fd, interface.index).map_err(kernel("bind of a packet socket"))?;
        Ok(PacketCounter { ring, fd, lost: 0 })
    }
}

impl Receiver for PacketCounter {
    type Guard = NoGuard;

    const POLL_COALESCES: bool = true;

    fn receive<S: Sink>(&mut self, _: &mut S) -> Result<usize> {
        Ok(self.ring.next_block().map_or(0, |block| block.frames()))
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        let mut fds = [poll::for_input(&self.fd)];
        poll::ppoll(&mut fds, timeout).map_err(|e| Error::os(Code::Kernel, "poll on a packet ring", e))?;
        Ok(())
    }

    fn close_intake(&mut self) {}

    fn counters(&mut self) -> KernelCounters {
        // struct tpacket_stats_v3: packets, drops, freezes; reading sets them to zero.
        let read = socket::get_words::<3>(&self.fd, libc::SOL_PACKET, libc::PACKET_STATISTICS);
        self.lost += read.map_or(0, |[_, drops, _]| drops.into());
        KernelCounters { lost: vec![("ring_full", self.lost)], notes: Vec::new() }
    }

    fn rx_queue(&self) -> u16 {
        0
    }
}
