//! Lanes: single-producer single-consumer rings, each between one receive thread and one queue.
//!
//! The memory is a SharedArrayBuffer that the TypeScript side allocated, one per queue. The producer is Rust; the consumer
//! is a worker that reads descriptors in place and gives room back by moving the tail. Everything read back from that
//! memory is treated as untrusted: a worker that scribbles over it can lose its own datagrams, but never make Rust leave
//! the lane.
//!
//! ```text
//! queue memory   [queue control][lane 0 control]…[lane n control][descriptors 0]…[descriptors n][slab 0]…[slab n]
//! lane control   head (producer's line) … tail (consumer's line)
//! ```
//! Head and tail count datagrams, run freely and wrap at 2^32. Payloads lie in the slab in arrival order without gaps; one
//! that does not fit before the slab's end starts again at its beginning.
//!
//! `layout` says where things lie, `memory` gives access to the control words, and `producer` writes a lane.

mod layout;
mod memory;
mod producer;

pub use layout::{ARMED_OFFSET, HEAD_OFFSET, LAYOUT, LaneLayout, QueueLayout, TAIL_OFFSET};
pub use memory::QueueMemory;
pub(crate) use producer::{Classification, LaneProducer};
