//! An engine with consumers in place of workers: memory for the lanes, and what a worker reads from them.
#![allow(dead_code, unreachable_pub)]

use std::{
    alloc::Layout,
    sync::atomic::{AtomicU32, Ordering},
};

use millrace_core::{
    config::EngineConfig,
    engine::Engine,
    lane::{HEAD_OFFSET, LaneLayout, TAIL_OFFSET},
};

/// One queue's memory and its consumer.
pub struct Consumer {
    base: *mut u8,
    layout: Layout,
    lanes: Vec<LaneLayout>,
}

impl Consumer {
    fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: offsets come from the layout; the memory lives as long as `self`, and control words are only used
        // atomically, by both sides.
        unsafe { AtomicU32::from_ptr(self.base.add(offset).cast()) }
    }

    /// Shows everything that is there to `take`, lane after lane in the order of arrival, and releases it. Returns how
    /// many datagrams that were.
    pub fn drain(&self, mut take: impl FnMut(&[u8])) -> u32 {
        let mut taken = 0;
        for lane in &self.lanes {
            let tail = self.word(lane.control_offset + TAIL_OFFSET).load(Ordering::Relaxed);
            let head = self.word(lane.control_offset + HEAD_OFFSET).load(Ordering::Acquire);
            for k in 0..head.wrapping_sub(tail) {
                let slot = (tail.wrapping_add(k) & (lane.slots - 1)) as usize;
                // SAFETY: published slots and their payloads lie inside the memory, and are not written until they
                // are released below.
                let payload = unsafe {
                    let d = self.base.add(lane.descriptors_offset + slot * 64);
                    let (offset, length) = (d.cast::<u32>().read(), d.add(4).cast::<u16>().read());
                    let p = self.base.add(lane.payload_offset + offset as usize);
                    std::slice::from_raw_parts(p, usize::from(length))
                };
                take(payload);
            }
            self.word(lane.control_offset + TAIL_OFFSET).store(head, Ordering::Release);
            taken += head.wrapping_sub(tail);
        }
        taken
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // SAFETY: allocated in `Running::start` with this layout, freed once, after the engine that writes to it.
        unsafe { std::alloc::dealloc(self.base, self.layout) };
    }
}

/// The engine is declared first, so that it is dropped before the memory it writes to.
pub struct Running {
    pub engine: Engine,
    pub queues: Vec<Consumer>,
}

impl Running {
    /// Opens and starts an engine in the calling thread's namespace.
    pub fn start(config: EngineConfig) -> Self {
        let mut engine = Engine::open(config).unwrap();
        let description = engine.describe();
        let layout = Layout::from_size_align(description.queue_bytes, 64).unwrap();
        let queues = (0..description.queues)
            .map(|queue| {
                // SAFETY: the size is not zero; zeroed memory, used for this queue alone, that outlives the engine.
                let (base, lanes) = unsafe {
                    let base = std::alloc::alloc_zeroed(layout);
                    (base, engine.attach(queue, base, layout.size()).unwrap())
                };
                Consumer { base, layout, lanes: lanes.lanes }
            })
            .collect();
        engine.start().unwrap();
        Running { engine, queues }
    }
}
