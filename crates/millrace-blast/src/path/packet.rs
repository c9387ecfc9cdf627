//! AF_PACKET: sendmmsg of whole frames.

use std::{
    ops::Range,
    os::fd::{AsRawFd, OwnedFd},
};

use millrace_core::error::Result;

use super::{Path, Refusal, Taken, frame::Frames, opening};
use crate::{
    plan::Plan,
    report::Gap,
    route::Way,
    sys::{self, mmsg::Batch},
};

pub(super) struct PacketPath {
    fd: OwnedFd,
    batch: Batch,
    frames: Frames,
    /// Numbers not taken yet.
    left: Range<u64>,
    /// Number in slot 0, and where the written slots end.
    written: Range<u64>,
}

impl PacketPath {
    pub(super) fn open(plan: &Plan, way: &Way, flows: &[u32]) -> Result<Self> {
        let what = format!("AF_PACKET socket on {}", way.link.name);
        let fd = sys::packet_socket(way.link.index, plan.qdisc_bypass).map_err(|e| opening(&what, e))?;
        // Frames in flight count against the send buffer; the default (208 KiB) holds about 270 small ones. Without
        // CAP_NET_ADMIN the limit of the host stays, which is slower and no error.
        let _ = sys::set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &(4 << 20));
        let frames = Frames::new(plan, way, flows);
        let batch = Batch::new(plan.batch as usize, frames.largest());
        Ok(PacketPath { fd, batch, frames, left: 0..0, written: 0..0 })
    }
}

impl Path for PacketPath {
    fn block(&self) -> u64 {
        self.batch.capacity() as u64
    }

    fn begin(&mut self, numbers: Range<u64>) {
        for (slot, n) in numbers.clone().enumerate() {
            self.frames.write(n, self.batch.message(slot, self.frames.len(n)));
        }
        self.written = numbers.clone();
        self.left = numbers;
    }

    fn push(&mut self) -> Result<Taken, Refusal> {
        let from = (self.left.start - self.written.start) as usize;
        let to = (self.left.end - self.written.start) as usize;
        let taken = self.batch.send(self.fd.as_raw_fd(), from, to)?;
        self.left.start += taken as u64;
        Ok(if taken < to - from { Taken::Partly } else { Taken::All })
    }

    fn left(&self) -> u64 {
        self.left.end - self.left.start
    }

    fn leftover(&self) -> Vec<Gap> {
        vec![Gap { first: self.left.start, count: self.left() }]
    }

    fn wait(&self) {
        sys::wait_writable(self.fd.as_raw_fd(), 1);
    }
}
