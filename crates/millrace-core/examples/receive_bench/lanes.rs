//! Memory for queues and a consumer that only moves tails: what a worker costs must not be in the figures.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use millrace_core::lane::{HEAD_OFFSET, QueueLayout, TAIL_OFFSET};

/// Zeroed memory, never freed: the process ends soon.
pub(crate) fn memory(bytes: usize) -> &'static mut [u64] {
    let memory = Box::leak(vec![0u64; bytes.div_ceil(8)].into_boxed_slice());
    // Touch every page now, not while the clock runs.
    memory.iter_mut().step_by(512).for_each(|word| {
        // SAFETY: a live, exclusive reference; volatile so that writing a zero over a zero is not left out.
        unsafe { std::ptr::write_volatile(word, 0) };
    });
    memory
}

/// One queue as its consumer sees it.
#[derive(Clone)]
pub(crate) struct Queue {
    /// Address of its memory.
    pub(crate) base: usize,
    /// Where lanes lie in it.
    pub(crate) layout: QueueLayout,
}

impl Queue {
    fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: the layout was made for this memory, which is never freed; control words are only used atomically.
        unsafe { AtomicU32::from_ptr((self.base + offset) as *mut u32) }
    }

    /// Releases everything published.
    fn release(&self) {
        for lane in &self.layout.lanes {
            let head = self.word(lane.control_offset + HEAD_OFFSET).load(Ordering::Acquire);
            self.word(lane.control_offset + TAIL_OFFSET).store(head, Ordering::Release);
        }
    }
}

/// The consumer's thread.
pub(crate) struct Consumer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Consumer {
    /// Starts it.
    pub(crate) fn start(queues: Vec<Queue>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let body = move || {
            while !seen.load(Ordering::Relaxed) {
                queues.iter().for_each(Queue::release);
                thread::sleep(Duration::from_micros(500));
            }
        };
        let thread = thread::Builder::new().name("consumer".into()).spawn(body).ok();
        Consumer { stop, thread }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
