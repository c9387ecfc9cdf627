//! AF_PACKET: sendmmsg of whole frames.

use std::{
    ops::Range,
    os::fd::{AsRawFd, OwnedFd},
};

use millrace_core::error::Result;

use super::{
    frame::Frames,
    sender::{Accepted, Refusal, Sender, opening},
};
use crate::{
    config::RunConfig,
    destination::Destination,
    report::Gap,
    sys::{self, mmsg::Batch},
};

pub(super) struct PacketSender {
    fd: OwnedFd,
    batch: Batch,
    frames: Frames,
    /// Numbers not taken yet.
    pending: Range<u64>,
    /// Number in slot 0, and where the written slots end.
    written: Range<u64>,
}

impl PacketSender {
    pub(super) fn open(config: &RunConfig, destination: &Destination, flows: &[u32]) -> Result<Self> {
        let what = format!("AF_PACKET socket on {}", destination.link.name);
        let fd =
            sys::packet_socket(destination.link.index, config.qdisc_bypass).map_err(|e| opening(&what, e))?;
        // Frames in flight count against the send buffer; the default (208 KiB) holds about 270 small ones. Without
        // CAP_NET_ADMIN the limit of the host stays, which is slower and no error.
        let _ = sys::set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &(4 << 20));
        let frames = Frames::new(config, destination, flows);
        let batch = Batch::new(config.batch as usize, frames.largest());
        Ok(PacketSender { fd, batch, frames, pending: 0..0, written: 0..0 })
    }
}

impl Sender for PacketSender {
    fn max_block(&self) -> u64 {
        self.batch.capacity() as u64
    }

    fn begin(&mut self, numbers: Range<u64>) {
        for (slot, n) in numbers.clone().enumerate() {
            self.frames.write(n, self.batch.message(slot, self.frames.len(n)));
        }
        self.written = numbers.clone();
        self.pending = numbers;
    }

    fn offer(&mut self) -> Result<Accepted, Refusal> {
        let from = (self.pending.start - self.written.start) as usize;
        let to = (self.pending.end - self.written.start) as usize;
        let taken = self.batch.send(self.fd.as_raw_fd(), from, to)?;
        self.pending.start += taken as u64;
        Ok(if taken < to - from { Accepted::Partly } else { Accepted::All })
    }

    fn remaining(&self) -> u64 {
        self.pending.end - self.pending.start
    }

    fn unsent(&self) -> Vec<Gap> {
        vec![Gap { first: self.pending.start, count: self.remaining() }]
    }

    fn wait(&self) {
        sys::wait_writable(self.fd.as_raw_fd(), 1);
    }
}
