//! Sinks that do a part of the work each, so that the parts can be told apart by subtraction.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use millrace_core::{
    datagram::Datagram,
    packet::FrameDrop,
    rule::{Facts, RuleSet, RuleState},
    rx::Sink,
    scatter::Scatter,
};

/// A sink that the drain drives pass by pass.
pub(crate) trait Stage: Sink {
    /// After each pass.
    fn passed(&mut self) {}
    /// Time spent in `passed`.
    fn publishing(&self) -> Duration {
        Duration::ZERO
    }
}

/// Receive and parse: datagrams are found and forgotten.
#[derive(Default)]
pub(crate) struct Parse;

impl Sink for Parse {
    #[inline]
    fn datagram(&mut self, datagram: &Datagram<'_>) {
        black_box(datagram);
    }
    fn frame_dropped(&mut self, _: FrameDrop) {}
}

impl Stage for Parse {}

/// And decide.
pub(crate) struct Rules {
    pub(crate) set: RuleSet,
    pub(crate) state: RuleState,
}

impl Sink for Rules {
    #[inline]
    fn datagram(&mut self, d: &Datagram<'_>) {
        black_box(self.set.evaluate(&Facts::of(d, 0), &mut self.state));
    }
    fn frame_dropped(&mut self, _: FrameDrop) {}
}

impl Stage for Rules {}

/// And copy into lanes, and publish: all of it.
pub(crate) struct Lanes {
    pub(crate) scatter: Scatter,
    pub(crate) publishing: Duration,
}

impl Sink for Lanes {
    #[inline]
    fn datagram(&mut self, d: &Datagram<'_>) {
        self.scatter.datagram(d);
    }
    fn frame_dropped(&mut self, reason: FrameDrop) {
        self.scatter.frame_dropped(reason);
    }
}

impl Stage for Lanes {
    fn passed(&mut self) {
        let before = Instant::now();
        self.scatter.publish(before);
        self.scatter.wake_due(before);
        self.publishing += before.elapsed();
    }
    fn publishing(&self) -> Duration {
        self.publishing
    }
}
