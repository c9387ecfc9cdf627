//! The producer's side of a lane.

use std::sync::{Arc, atomic::Ordering};

use super::{
    layout::{Descriptor, HEAD_OFFSET, LaneLayout, TAIL_OFFSET},
    memory::QueueMemory,
};
use crate::datagram::Datagram;

/// The producer's side of a lane. All of its own indices are private; only the published head is shared.
#[derive(Debug)]
pub(crate) struct LaneProducer {
    memory: Arc<QueueMemory>,
    layout: LaneLayout,
    /// Index of the next datagram to write.
    head: u32,
    /// The head that was published to the consumer.
    published: u32,
    /// The last plausible tail read from the consumer. It is read again when the lane looks full and by
    /// [`LaneProducer::pending`]; in between the consumer may have released more.
    tail: u32,
    /// Slab position of the next byte to write. Slab positions run freely and wrap at 2^32; slabs have at most 2^30 bytes,
    /// so differences of positions are unambiguous.
    slab_head: u32,
    /// Slab position of the first byte still in use.
    slab_tail: u32,
    /// For each slot, the slab position behind its payload. Private memory, because the shared descriptors are untrusted.
    ends: Box<[u32]>,
}

/// How the rules classified a datagram, for its descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Classification {
    /// Index of the rule that matched.
    pub(crate) rule: u16,
    /// The 32-bit key that the rule's action reduced or hashed; 0 where it has none.
    pub(crate) key: u32,
    /// CPU of the receive thread.
    pub(crate) cpu: u16,
    /// Generation of the rules that `rule` is an index into, modulo 2^16.
    pub(crate) generation: u16,
}

impl LaneProducer {
    /// The producer of the lane that receive thread `thread` fills.
    ///
    /// # Safety
    /// At most one producer per lane may exist at a time.
    ///
    /// # Panics
    /// When the layout has no lane for `thread`.
    pub(crate) unsafe fn new(memory: &Arc<QueueMemory>, thread: usize) -> Self {
        let layout = memory.layout().lanes[thread];
        let head = memory.word(layout.control_offset + HEAD_OFFSET).load(Ordering::Acquire);
        LaneProducer {
            memory: Arc::clone(memory),
            layout,
            head,
            published: head,
            tail: head,
            slab_head: 0,
            slab_tail: 0,
            ends: vec![0; layout.slots as usize].into_boxed_slice(),
        }
    }

    /// Copies a datagram in, without telling the consumer yet. False when the lane is full, or the payload has more than
    /// 65,535 bytes, which UDP does not allow.
    #[inline]
    pub(crate) fn push(&mut self, d: &Datagram<'_>, classification: Classification) -> bool {
        let Ok(length) = u16::try_from(d.payload.len()) else { return false };
        let Some((offset, need)) =
            self.find_room(u32::from(length)).or_else(|| self.find_room_after_refresh(length))
        else {
            return false;
        };
        let slot = (self.head & (self.layout.slots - 1)) as usize;
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
            rule: classification.rule,
            rx_queue: d.rx_queue,
            key: classification.key,
            cpu: classification.cpu,
            generation: classification.generation,
        };
        // SAFETY: `slot` is below `slots`, and offset + length is at most `payload_bytes` (`find_room` refuses what does not
        // fit in one piece), so both writes stay inside the ranges the layout gave this lane and `QueueMemory::new`
        // compared with the length. The consumer does not read them before `publish`: the slot and the bytes are outside
        // tail..head. The source is a borrowed slice that cannot overlap shared memory which only this producer writes.
        unsafe {
            let base = self.memory.base();
            let payload = base.add(self.layout.payload_offset + offset as usize);
            std::ptr::copy_nonoverlapping(d.payload.as_ptr(), payload, usize::from(length));
            base.add(self.layout.descriptors_offset).cast::<Descriptor>().add(slot).write(descriptor);
        }
        self.slab_head = self.slab_head.wrapping_add(need);
        self.ends[slot] = self.slab_head;
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Slab offset for a payload and how far the slab head moves, or `None` when there is no room before the known tail.
    #[inline]
    fn find_room(&self, length: u32) -> Option<(u32, u32)> {
        let bytes = self.layout.payload_bytes;
        let at = self.slab_head & (bytes - 1);
        // A payload does not wrap: what is left before the end is skipped when it is too small.
        let (offset, need) = if at + length > bytes { (0, bytes - at + length) } else { (at, length) };
        let fits = self.head.wrapping_sub(self.tail) < self.layout.slots
            && self.slab_head.wrapping_sub(self.slab_tail) + need <= bytes;
        fits.then_some((offset, need))
    }

    #[cold]
    fn find_room_after_refresh(&mut self, length: u16) -> Option<(u32, u32)> {
        self.refresh();
        if self.head == self.tail {
            // The lane is empty: start at the slab's beginning. From a position near the middle, a payload longer than
            // either side would never fit.
            self.slab_head =
                self.slab_head.wrapping_add(self.layout.payload_bytes - 1) & !(self.layout.payload_bytes - 1);
            self.slab_tail = self.slab_head;
        }
        self.find_room(u32::from(length))
    }

    /// Reads the consumer's tail. A tail outside `self.tail..=published` cannot be right and is ignored.
    ///
    /// The slab is free up to the end of datagram `tail - 1`, the last one released. Its slot in `ends` still belongs to it:
    /// the next datagram with the same slot is `tail - 1 + slots`, and [`LaneProducer::find_room`] admits only indices below
    /// `self.tail + slots`, where `self.tail` is the old tail and so at most `tail - 1`.
    fn refresh(&mut self) {
        let tail = self.memory.word(self.layout.control_offset + TAIL_OFFSET).load(Ordering::Acquire);
        if self.published.wrapping_sub(tail) > self.published.wrapping_sub(self.tail) || tail == self.tail {
            return;
        }
        self.tail = tail;
        self.slab_tail = self.ends[(tail.wrapping_sub(1) & (self.layout.slots - 1)) as usize];
    }

    /// Makes everything pushed visible to the consumer. Returns how many datagrams that was.
    #[inline]
    pub(crate) fn publish(&mut self) -> u32 {
        let fresh = self.head.wrapping_sub(self.published);
        if fresh > 0 {
            self.published = self.head;
            self.memory.word(self.layout.control_offset + HEAD_OFFSET).store(self.head, Ordering::Release);
        }
        fresh
    }

    /// Datagrams published and not yet released.
    #[inline]
    pub(crate) fn pending(&mut self) -> u32 {
        self.refresh();
        self.published.wrapping_sub(self.tail)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
