//! AF_XDP transmission in copy mode.

use std::{collections::VecDeque, ops::Range};

use millrace_core::error::{Code, Error, Result};

use super::{
    frame::Frames,
    sender::{Accepted, Refusal, Sender, opening},
};
use crate::{
    config::RunConfig,
    destination::Destination,
    report::Gap,
    sys::{self, xsk::Xsk},
};

/// Frames of a UMEM: 4 MiB in chunks of 2 KiB stay below the usual RLIMIT_MEMLOCK of 8 MiB.
const FRAMES: u32 = 2048;

pub(super) struct XdpSender {
    xsk: Xsk,
    frames: Frames,
    block: u64,
    /// Numbers that were never on the ring.
    fresh: Range<u64>,
    /// Numbers whose frames the device dropped, which are to be sent again.
    resend: VecDeque<u64>,
    /// Numbers on the ring, oldest first.
    ring: VecDeque<u64>,
}

impl XdpSender {
    pub(super) fn open(
        config: &RunConfig,
        destination: &Destination,
        flows: &[u32],
        queue: u32,
    ) -> Result<Self> {
        let frames = Frames::new(config, destination, flows);
        let chunk = match frames.largest() {
            0..=2048 => 2048,
            2049..=4096 => 4096,
            n => {
                return Err(Error::new(
                    Code::Config,
                    format!("frame of {n} bytes: expected at most 4096 with --via xdp (one UMEM chunk)"),
                ));
            }
        };
        let what = format!("AF_XDP socket on {} queue {queue}", destination.link.name);
        let xsk =
            Xsk::open(destination.link.index, queue, FRAMES, chunk).map_err(|e| match e.raw_os_error() {
                Some(libc::ENOBUFS) => {
                    Error::os(Code::Permission, format!("{what}: UMEM exceeds RLIMIT_MEMLOCK (ulimit -l)"), e)
                }
                Some(libc::EINVAL) => {
                    Error::os(Code::Interface, format!("{what}: expected the number of an existing queue"), e)
                }
                _ => opening(&what, e),
            })?;
        // Frames in flight count against the send buffer, see packet.rs.
        let _ = sys::set_option(xsk.fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &(4 << 20));
        Ok(XdpSender {
            xsk,
            frames,
            block: u64::from(config.batch),
            fresh: 0..0,
            resend: VecDeque::new(),
            ring: VecDeque::new(),
        })
    }

    /// Puts the frame of a number on the ring; false when there is no room.
    fn enqueue(&mut self, n: u64) -> bool {
        let frames = &self.frames;
        let done = self.xsk.enqueue(frames.len(n), |out| frames.write(n, out));
        if done {
            self.ring.push_back(n);
        }
        done
    }

    /// Puts as much as there is room for on the ring.
    fn fill_ring(&mut self) {
        if self.resend.is_empty() && self.fresh.is_empty() {
            return;
        }
        self.xsk.reclaim();
        while let Some(&n) = self.resend.front() {
            if !self.enqueue(n) {
                break;
            }
            self.resend.pop_front();
        }
        while !self.fresh.is_empty() && self.enqueue(self.fresh.start) {
            self.fresh.start += 1;
        }
        self.xsk.publish();
    }
}

impl Sender for XdpSender {
    fn max_block(&self) -> u64 {
        self.block
    }

    fn begin(&mut self, numbers: Range<u64>) {
        self.fresh = numbers;
    }

    fn offer(&mut self) -> Result<Accepted, Refusal> {
        self.fill_ring();
        if self.ring.is_empty() {
            return Err(Refusal::Full);
        }
        let result = self.xsk.kick();
        let taken = self.ring.len() - self.xsk.pending() as usize;
        let last = self.ring.drain(..taken).next_back();
        match result.map_err(Refusal::from) {
            // EBUSY: the kernel took a descriptor, the device dropped its frame, and the kernel stopped there. So the frame is
            // that of the last descriptor taken.
            Err(Refusal::Device) => {
                self.resend.extend(last);
                Err(Refusal::Device)
            }
            // EAGAIN after progress: one call sends at most 32 frames (`TX_BATCH_SIZE` in net/xdp/xsk.c).
            Err(Refusal::Full) if taken > 0 => Ok(Accepted::All),
            Err(other) => Err(other),
            Ok(()) => Ok(Accepted::All),
        }
    }

    fn remaining(&self) -> u64 {
        self.fresh.end - self.fresh.start + (self.resend.len() + self.ring.len()) as u64
    }

    fn unsent(&self) -> Vec<Gap> {
        let singles = self.resend.iter().chain(&self.ring).map(|&first| Gap { first, count: 1 });
        let rest = Gap { first: self.fresh.start, count: self.fresh.end - self.fresh.start };
        singles.chain([rest]).filter(|g| g.count > 0).collect()
    }

    fn wait(&self) {
        // poll(2) is no alternative: in copy mode it sends too, and hides the EBUSY of a frame that was dropped.
        std::thread::sleep(std::time::Duration::from_micros(20));
    }
}
