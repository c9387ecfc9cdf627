//! One queue's memory: a view of bytes that JavaScript owns, and its control words.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::layout::{ALIGN, ARMED_OFFSET, HEAD_OFFSET, LaneLayout, QueueLayout, TAIL_OFFSET};

/// One queue's memory. It does not own the bytes.
#[derive(Debug)]
pub struct QueueMemory {
    base: NonNull<u8>,
    layout: QueueLayout,
}

// SAFETY: the pointer is dereferenced only through atomics (control words) and by the one producer of each lane, which
// `LaneProducer::new` demands; moving the handle between threads adds no other access.
unsafe impl Send for QueueMemory {}
// SAFETY: sharing the handle allows nothing that moving it does not: every method here is one atomic access per word.
unsafe impl Sync for QueueMemory {}

impl QueueMemory {
    /// Lays `layout` out in memory, from its first 64-byte boundary on. Returns `None` when the memory is too small or
    /// `base` is null.
    ///
    /// # Safety
    /// `base` must point to `length` zeroed bytes that stay valid, and are used for nothing but this queue, for as long as
    /// the returned value or any `LaneProducer` made from it lives.
    pub unsafe fn new(base: *mut u8, length: usize, layout: QueueLayout) -> Option<Arc<Self>> {
        let base = NonNull::new(base)?;
        if length < layout.bytes {
            return None;
        }
        let layout = layout.moved(base.as_ptr().align_offset(ALIGN));
        Some(Arc::new(QueueMemory { base, layout }))
    }

    /// Returns the layout of this memory; offsets count from its first byte.
    pub fn layout(&self) -> &QueueLayout {
        &self.layout
    }

    /// Address of the memory's first byte.
    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The control word at a 4-byte aligned offset that lies inside the layout.
    pub(super) fn word(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset + 4 <= self.layout.bytes && offset.is_multiple_of(4));
        // SAFETY: offsets come from the layout, which `new` compared with the length and moved to a 64-byte boundary, so
        // the word is inside and aligned; both sides access control words only atomically (Atomics.* in JavaScript).
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    /// True when the worker sleeps; clears the flag, so that exactly one caller wins the right to wake it.
    pub(crate) fn disarm(&self) -> bool {
        self.is_armed()
            && self
                .word(self.layout.control_offset + ARMED_OFFSET)
                .compare_exchange(1, 0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// True when the worker sleeps and needs a wake-up.
    pub(crate) fn is_armed(&self) -> bool {
        self.word(self.layout.control_offset + ARMED_OFFSET).load(Ordering::Acquire) == 1
    }

    /// Datagrams published and not yet released, over all lanes. A lane whose worker wrote an impossible tail counts as
    /// full.
    pub(crate) fn depth(&self) -> u64 {
        let lane = |l: &LaneLayout| {
            let head = self.word(l.control_offset + HEAD_OFFSET).load(Ordering::Relaxed);
            let tail = self.word(l.control_offset + TAIL_OFFSET).load(Ordering::Relaxed);
            u64::from(head.wrapping_sub(tail).min(l.slots))
        };
        self.layout.lanes.iter().map(lane).sum()
    }

    /// Descriptors of all lanes: the most datagrams they hold, provided that the payloads fit the slabs.
    pub(crate) fn capacity(&self) -> u64 {
        self.layout.lanes.iter().map(|l| u64::from(l.slots)).sum()
    }
}
