//! One queue as receive threads see it: its lanes and its worker's wake-up.

use std::sync::{Arc, Mutex, PoisonError};

use crate::lane::QueueMemory;

/// Wakes one worker. Receive threads call it, so it must not block.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// One queue as receive threads see it.
pub struct Queue {
    /// The memory with the queue's lanes.
    pub memory: Arc<QueueMemory>,
    /// The wake-up of the queue's worker, while one is attached. The lock makes detaching wait for a wake-up in progress.
    wake: Mutex<Option<Wake>>,
}

impl Queue {
    /// A queue whose worker is not attached yet.
    pub fn new(memory: Arc<QueueMemory>) -> Self {
        Queue { memory, wake: Mutex::new(None) }
    }

    /// Attaches a worker's wake-up, or detaches it with `None`; when it returns, the old one is no longer in use.
    pub(crate) fn set_wake(&self, wake: Option<Wake>) {
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = wake;
    }

    /// Wakes the worker if it sleeps; true when a wake-up was sent.
    pub(super) fn wake(&self) -> bool {
        let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        match &*wake {
            Some(wake) if self.memory.disarm() => {
                wake();
                true
            }
            _ => false,
        }
    }
}
