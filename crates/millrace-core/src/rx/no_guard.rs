//! The guard of a backend that needs none.

use std::time::Duration;

use super::{KernelCounters, Receiver, Sink};
use crate::error::Result;

/// A receiver of which there is none: [`Receiver::Guard`] of backends that can read everything.
#[derive(Debug, Clone, Copy)]
pub enum NoGuard {}

impl Receiver for NoGuard {
    type Guard = NoGuard;

    fn receive<S: Sink>(&mut self, _: &mut S) -> Result<usize> {
        match *self {}
    }

    fn wait(&mut self, _: Duration) -> Result<()> {
        match *self {}
    }

    fn close_intake(&mut self) {
        match *self {}
    }

    fn counters(&mut self) -> KernelCounters {
        match *self {}
    }

    fn rx_queue(&self) -> u16 {
        match *self {}
    }
}
