//! Lanes: single-producer single-consumer rings between one receive thread and one queue.
//!
//! The memory is a SharedArrayBuffer that the TypeScript side allocated. The producer is Rust; the consumer is a worker
//! that reads descriptors in place and gives room back by moving the tail. Everything read back from that memory is
//! treated as untrusted: a worker that scribbles over it can lose its own datagrams, never make Rust leave the lane.
//!
//! ```text
//! queue memory   [queue control][lane 0 control]…[lane n control][descriptors 0]…[descriptors n][slab 0]…[slab n]
//! lane control   head (producer's line) … tail (consumer's line)
//! ```
//! Head and tail count datagrams, run freely and wrap at 2^32. Payloads lie in the slab in arrival order without gaps;
//! one that does not fit before the slab's end starts again at its beginning.

use std::{
    mem::{offset_of, size_of},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use serde::Serialize;

use crate::datagram::Datagram;

/// Alignment of control blocks and descriptors: a cache line.
const ALIGN: usize = 64;

/// Bytes of the queue control block.
pub const QUEUE_CONTROL_BYTES: usize = 128;
/// u32: 1 while the worker sleeps and wants a wake-up.
pub const ARMED_OFFSET: usize = 0;
/// u32: moved by the worker about every 100 ms.
pub const HEARTBEAT_OFFSET: usize = 4;
/// u32: lane whose batch is in the handler right now, plus one; 0 when none.
pub const LEASED_LANE_OFFSET: usize = 8;
/// u32: datagrams in that batch.
pub const LEASED_COUNT_OFFSET: usize = 12;
/// u32: index of its first datagram (the lane's tail when it was taken).
pub const LEASED_START_OFFSET: usize = 16;
/// Bytes of a lane control block: one pair of cache lines for each side, since adjacent lines are prefetched together.
pub const LANE_CONTROL_BYTES: usize = 256;
/// u32: datagrams the producer has published.
pub const HEAD_OFFSET: usize = 0;
/// u32: datagrams the consumer has released.
pub const TAIL_OFFSET: usize = 128;

/// One datagram's descriptor: one cache line, little-endian fields, addresses in network order.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Descriptor {
    payload_offset: u32,
    length: u16,
    flags: u16,
    secs: u32,
    nanos: u32,
    src: [u8; 16],
    dst: [u8; 16],
    src_port: u16,
    dst_port: u16,
    rule: u16,
    rx_queue: u16,
    key: u32,
    cpu: u16,
    generation: u16,
}

const _: () = assert!(size_of::<Descriptor>() == 64);

/// The layout constants as `(name in TypeScript, value)`; `src/generated/layout.ts` is printed from this.
pub const LAYOUT: [(&str, usize); 25] = [
    ("queueControlBytes", QUEUE_CONTROL_BYTES),
    ("armedOffset", ARMED_OFFSET),
    ("heartbeatOffset", HEARTBEAT_OFFSET),
    ("leasedLaneOffset", LEASED_LANE_OFFSET),
    ("leasedCountOffset", LEASED_COUNT_OFFSET),
    ("leasedStartOffset", LEASED_START_OFFSET),
    ("laneControlBytes", LANE_CONTROL_BYTES),
    ("headOffset", HEAD_OFFSET),
    ("tailOffset", TAIL_OFFSET),
    ("descriptorBytes", size_of::<Descriptor>()),
    ("payloadOffset", offset_of!(Descriptor, payload_offset)),
    ("length", offset_of!(Descriptor, length)),
    ("flags", offset_of!(Descriptor, flags)),
    ("seconds", offset_of!(Descriptor, secs)),
    ("nanoseconds", offset_of!(Descriptor, nanos)),
    ("srcAddress", offset_of!(Descriptor, src)),
    ("dstAddress", offset_of!(Descriptor, dst)),
    ("srcPort", offset_of!(Descriptor, src_port)),
    ("dstPort", offset_of!(Descriptor, dst_port)),
    ("rule", offset_of!(Descriptor, rule)),
    ("rxQueue", offset_of!(Descriptor, rx_queue)),
    ("key", offset_of!(Descriptor, key)),
    ("cpu", offset_of!(Descriptor, cpu)),
    ("generation", offset_of!(Descriptor, generation)),
    ("version", 2),
];

/// Where one lane lies in its queue's memory, in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LanePlan {
    /// Receive thread that fills it.
    pub thread: usize,
    /// Control block.
    pub control_offset: usize,
    /// Descriptor ring.
    pub descriptors_offset: usize,
    /// Descriptors in the ring, a power of two.
    pub slots: u32,
    /// Payload slab.
    pub payload_offset: usize,
    /// Bytes in the slab, a power of two.
    pub payload_bytes: u32,
}

/// Shape of one queue's memory.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueuePlan {
    /// Bytes to allocate: what is laid out plus room to align it, because a SharedArrayBuffer is only 16-byte aligned.
    pub bytes: usize,
    /// Queue control block.
    pub control_offset: usize,
    /// One lane per receive thread.
    pub lanes: Vec<LanePlan>,
}

impl QueuePlan {
    /// Lays out `lanes` lanes of `slots` descriptors and `payload_bytes` bytes each (both powers of two).
    pub fn new(lanes: usize, slots: u32, payload_bytes: u32) -> Self {
        assert!(slots.is_power_of_two() && payload_bytes.is_power_of_two(), "lane sizes are powers of two");
        let ring = slots as usize * size_of::<Descriptor>();
        let controls = QUEUE_CONTROL_BYTES + lanes * LANE_CONTROL_BYTES;
        let slabs = controls + lanes * ring;
        let plan = |thread| LanePlan {
            thread,
            control_offset: QUEUE_CONTROL_BYTES + thread * LANE_CONTROL_BYTES,
            descriptors_offset: controls + thread * ring,
            slots,
            payload_offset: slabs + thread * payload_bytes as usize,
            payload_bytes,
        };
        let bytes = slabs + lanes * payload_bytes as usize + ALIGN - 1;
        QueuePlan { bytes, control_offset: 0, lanes: (0..lanes).map(plan).collect() }
    }

    /// The same layout `base` bytes further on.
    fn moved(&self, base: usize) -> Self {
        let lane = |l: &LanePlan| LanePlan {
            control_offset: l.control_offset + base,
            descriptors_offset: l.descriptors_offset + base,
            payload_offset: l.payload_offset + base,
            ..*l
        };
        QueuePlan {
            bytes: self.bytes,
            control_offset: self.control_offset + base,
            lanes: self.lanes.iter().map(lane).collect(),
        }
    }
}

/// One queue's memory: a view of bytes that JavaScript owns.
#[derive(Debug)]
pub struct QueueMemory {
    base: NonNull<u8>,
    plan: QueuePlan,
}

// SAFETY: the pointer is only dereferenced through atomics (control words) and by the one producer of each lane, which
// `QueueMemory::producer` documents; moving or sharing the handle between threads adds no other access.
unsafe impl Send for QueueMemory {}
// SAFETY: as above.
unsafe impl Sync for QueueMemory {}

impl QueueMemory {
    /// Lays `plan` out in memory, from its first 64-byte boundary on. Returns `None` when it is too small.
    ///
    /// # Safety
    /// `base` must point to `length` zeroed bytes that stay valid, and are not used for anything but this queue, for as
    /// long as the returned value or any [`LaneProducer`] made from it lives.
    pub unsafe fn new(base: *mut u8, length: usize, plan: QueuePlan) -> Option<Arc<Self>> {
        let base = NonNull::new(base)?;
        if length < plan.bytes {
            return None;
        }
        let plan = plan.moved(base.as_ptr().align_offset(ALIGN));
        Some(Arc::new(QueueMemory { base, plan }))
    }

    /// Where things lie in this memory, counted from its first byte.
    pub fn plan(&self) -> &QueuePlan {
        &self.plan
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset + 4 <= self.plan.bytes && offset.is_multiple_of(4));
        // SAFETY: offsets come from the plan, which `new` checked against the length and moved to a 64-byte boundary, so
        // the word is inside and aligned; both sides access control words only atomically (Atomics.* in JavaScript).
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    /// True when the worker sleeps; clears the flag, so that one caller wins the right to wake it.
    pub fn disarm(&self) -> bool {
        self.armed()
            && self
                .word(self.plan.control_offset + ARMED_OFFSET)
                .compare_exchange(1, 0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// True when the worker sleeps and wants a wake-up.
    pub fn armed(&self) -> bool {
        self.word(self.plan.control_offset + ARMED_OFFSET).load(Ordering::Acquire) == 1
    }

    /// Datagrams published and not yet released, over all lanes. A worker's bad tail counts as a full lane.
    pub fn depth(&self) -> u64 {
        let lane = |l: &LanePlan| {
            let head = self.word(l.control_offset + HEAD_OFFSET).load(Ordering::Relaxed);
            let tail = self.word(l.control_offset + TAIL_OFFSET).load(Ordering::Relaxed);
            u64::from(head.wrapping_sub(tail).min(l.slots))
        };
        self.plan.lanes.iter().map(lane).sum()
    }

    /// Datagrams the lanes hold when full of small ones.
    pub fn capacity(&self) -> u64 {
        self.plan.lanes.iter().map(|l| u64::from(l.slots)).sum()
    }

    /// The producer of lane `thread`.
    ///
    /// # Safety
    /// At most one producer per lane may exist at a time.
    pub unsafe fn producer(self: &Arc<Self>, thread: usize) -> LaneProducer {
        let plan = self.plan.lanes[thread];
        let head = self.word(plan.control_offset + HEAD_OFFSET).load(Ordering::Acquire);
        LaneProducer {
            memory: Arc::clone(self),
            plan,
            head,
            published: head,
            tail: head,
            slab_head: 0,
            slab_tail: 0,
            ends: vec![0; plan.slots as usize].into_boxed_slice(),
        }
    }
}

/// Producer's side of a lane. All of its own indices are private; only the published head is shared.
#[derive(Debug)]
pub struct LaneProducer {
    memory: Arc<QueueMemory>,
    plan: LanePlan,
    /// Next index to write.
    head: u32,
    /// What the consumer has been told.
    published: u32,
    /// Last tail seen; refreshed only when the lane looks full.
    tail: u32,
    /// Slab positions run freely and wrap at 2^32 (slabs are at most 2^30): next byte to write …
    slab_head: u32,
    /// … and first byte still in use.
    slab_tail: u32,
    /// Slab position behind the payload of each slot. Private, because the shared descriptors are untrusted.
    ends: Box<[u32]>,
}

/// What the rules said about a datagram, for its descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Rule index.
    pub rule: u16,
    /// Key value.
    pub key: u32,
    /// CPU of the receive thread.
    pub cpu: u16,
    /// Generation of the rules that `rule` counts in, modulo 2^16.
    pub generation: u16,
}

impl LaneProducer {
    /// Copies a datagram in, without telling the consumer yet. False when the lane is full.
    #[inline]
    pub fn push(&mut self, d: &Datagram<'_>, mark: Mark) -> bool {
        let Ok(length) = u16::try_from(d.payload.len()) else { return false };
        let Some((offset, need)) = self.place(u32::from(length)).or_else(|| self.place_after_refresh(length))
        else {
            return false;
        };
        let slot = (self.head & (self.plan.slots - 1)) as usize;
        let descriptor = Descriptor {
            payload_offset: offset,
            length,
            flags: d.flags,
            secs: d.time.secs,
            nanos: d.time.nanos,
            src: d.src.0,
            dst: d.dst.0,
            src_port: d.src_port,
            dst_port: d.dst_port,
            rule: mark.rule,
            rx_queue: d.rx_queue,
            key: mark.key,
            cpu: mark.cpu,
            generation: mark.generation,
        };
        // SAFETY: `slot` is below `slots`, and offset + length is at most `payload_bytes` (`place` refuses what does
        // not fit in one piece), so both writes stay inside the ranges the plan gave
        // this lane and `QueueMemory::new` checked. The consumer does not read them before `publish`: the slot and the
        // bytes are outside tail..head. The source is a borrowed slice that cannot overlap shared memory we alone write.
        unsafe {
            let base = self.memory.base.as_ptr();
            let payload = base.add(self.plan.payload_offset + offset as usize);
            std::ptr::copy_nonoverlapping(d.payload.as_ptr(), payload, usize::from(length));
            base.add(self.plan.descriptors_offset).cast::<Descriptor>().add(slot).write(descriptor);
        }
        self.slab_head = self.slab_head.wrapping_add(need);
        self.ends[slot] = self.slab_head;
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Slab offset for a payload and how far the slab head moves, or `None` when there is no room.
    #[inline]
    fn place(&self, length: u32) -> Option<(u32, u32)> {
        let bytes = self.plan.payload_bytes;
        let at = self.slab_head & (bytes - 1);
        // A payload does not wrap: what is left before the end is skipped when it is too small.
        let (offset, need) = if at + length > bytes { (0, bytes - at + length) } else { (at, length) };
        let fits = self.head.wrapping_sub(self.tail) < self.plan.slots
            && self.slab_head.wrapping_sub(self.slab_tail) + need <= bytes;
        fits.then_some((offset, need))
    }

    #[cold]
    fn place_after_refresh(&mut self, length: u16) -> Option<(u32, u32)> {
        self.refresh();
        if self.head == self.tail {
            // Empty: start at the slab's beginning, or a payload longer than either side of the middle never fits.
            self.slab_head =
                self.slab_head.wrapping_add(self.plan.payload_bytes - 1) & !(self.plan.payload_bytes - 1);
            self.slab_tail = self.slab_head;
        }
        self.place(u32::from(length))
    }

    /// Reads the consumer's tail. One that lies outside what was published is a scribble and is ignored.
    fn refresh(&mut self) {
        let tail = self.memory.word(self.plan.control_offset + TAIL_OFFSET).load(Ordering::Acquire);
        if self.published.wrapping_sub(tail) > self.published.wrapping_sub(self.tail) || tail == self.tail {
            return;
        }
        self.tail = tail;
        self.slab_tail = self.ends[(tail.wrapping_sub(1) & (self.plan.slots - 1)) as usize];
    }

    /// Makes everything pushed visible to the consumer. Returns how many datagrams that was.
    #[inline]
    pub fn publish(&mut self) -> u32 {
        let fresh = self.head.wrapping_sub(self.published);
        if fresh > 0 {
            self.published = self.head;
            self.memory.word(self.plan.control_offset + HEAD_OFFSET).store(self.head, Ordering::Release);
        }
        fresh
    }

    /// Datagrams published and not released.
    #[inline]
    pub fn pending(&mut self) -> u32 {
        self.refresh();
        self.published.wrapping_sub(self.tail)
    }
}

#[cfg(test)]
mod tests;
