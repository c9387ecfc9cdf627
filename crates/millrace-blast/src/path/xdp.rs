//! AF_XDP transmission in copy mode.

use std::{collections::VecDeque, ops::Range};

use millrace_core::error::{Code, Error, Result};

use super::{Path, Refusal, Taken, frame::Frames, opening};
use crate::{
    plan::Plan,
    report::Gap,
    route::Way,
    sys::{self, xsk::Xsk},
};

/// Frames of a UMEM: 4 MiB in chunks of 2 KiB stay below the usual RLIMIT_MEMLOCK of 8 MiB.
const FRAMES: u32 = 2048;

pub(super) struct XdpPath {
    xsk: Xsk,
    frames: Frames,
    block: u64,
    /// Numbers not on the ring yet.
    fresh: Range<u64>,
    /// Numbers the device dropped and said so: to be put on the ring again.
    again: VecDeque<u64>,
    /// Numbers on the ring, oldest first.
    ring: VecDeque<u64>,
}

impl XdpPath {
    pub(super) fn open(plan: &Plan, way: &Way, flows: &[u32], queue: u32) -> Result<Self> {
        let frames = Frames::new(plan, way, flows);
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
        let what = format!("AF_XDP socket on {} queue {queue}", way.link.name);
        let xsk = Xsk::open(way.link.index, queue, FRAMES, chunk).map_err(|e| match e.raw_os_error() {
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
        Ok(XdpPath {
            xsk,
            frames,
            block: u64::from(plan.batch),
            fresh: 0..0,
            again: VecDeque::new(),
            ring: VecDeque::new(),
        })
    }

    fn put(&mut self, n: u64) -> bool {
        let frames = &self.frames;
        let done = self.xsk.put(frames.len(n), |out| frames.write(n, out));
        if done {
            self.ring.push_back(n);
        }
        done
    }

    fn load(&mut self) {
        if self.again.is_empty() && self.fresh.is_empty() {
            return;
        }
        self.xsk.reclaim();
        while let Some(&n) = self.again.front() {
            if !self.put(n) {
                break;
            }
            self.again.pop_front();
        }
        while !self.fresh.is_empty() && self.put(self.fresh.start) {
            self.fresh.start += 1;
        }
        self.xsk.publish();
    }
}

impl Path for XdpPath {
    fn block(&self) -> u64 {
        self.block
    }

    fn begin(&mut self, numbers: Range<u64>) {
        self.fresh = numbers;
    }

    fn push(&mut self) -> Result<Taken, Refusal> {
        self.load();
        if self.ring.is_empty() {
            return Err(Refusal::Full);
        }
        let result = self.xsk.kick();
        let taken = self.ring.len() - self.xsk.pending() as usize;
        let last = self.ring.drain(..taken).next_back();
        match result.map_err(Refusal::from) {
            // EBUSY: the kernel took a descriptor, the device dropped its frame, and the kernel stopped there. So it is
            // the last one taken.
            Err(Refusal::Device) => {
                self.again.extend(last);
                Err(Refusal::Device)
            }
            // EAGAIN after progress: the share of one call (32 frames) is used up.
            Err(Refusal::Full) if taken > 0 => Ok(Taken::All),
            Err(other) => Err(other),
            Ok(()) => Ok(Taken::All),
        }
    }

    fn left(&self) -> u64 {
        self.fresh.end - self.fresh.start + (self.again.len() + self.ring.len()) as u64
    }

    fn leftover(&self) -> Vec<Gap> {
        let singles = self.again.iter().chain(&self.ring).map(|&first| Gap { first, count: 1 });
        let rest = Gap { first: self.fresh.start, count: self.fresh.end - self.fresh.start };
        singles.chain([rest]).filter(|g| g.count > 0).collect()
    }

    fn wait(&self) {
        // Not poll(2): in copy mode that sends too, and hides the EBUSY of a frame that was dropped.
        std::thread::sleep(std::time::Duration::from_micros(20));
    }
}
