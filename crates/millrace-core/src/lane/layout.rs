//! The layout of a queue's memory. The TypeScript side has the same numbers in `src/generated/layout.ts`, which
//! `tests/layout_ts.rs` prints from [`LAYOUT`].

use std::mem::{offset_of, size_of};

use serde::Serialize;

/// Alignment of control blocks and descriptors: a cache line.
pub(super) const ALIGN: usize = 64;

/// Bytes of the queue control block.
pub(super) const QUEUE_CONTROL_BYTES: usize = 128;
/// u32: 1 while the worker sleeps and needs a wake-up.
pub const ARMED_OFFSET: usize = 0;
/// u32: the worker adds 1 every 250 ms (`HEARTBEAT_MS` in src/worker/main.ts) while its event loop turns.
const HEARTBEAT_OFFSET: usize = 4;
/// u32: lane whose batch is in the handler right now, plus one; 0 when none.
const LEASED_LANE_OFFSET: usize = 8;
/// u32: number of datagrams in that batch.
const LEASED_COUNT_OFFSET: usize = 12;
/// u32: index of the batch's first datagram, which was the lane's tail when the worker took the batch.
const LEASED_START_OFFSET: usize = 16;
/// Bytes of a lane control block. Each side has a pair of cache lines to itself, because processors prefetch adjacent
/// lines together.
const LANE_CONTROL_BYTES: usize = 256;
/// u32: number of datagrams the producer has published.
pub const HEAD_OFFSET: usize = 0;
/// u32: number of datagrams the consumer has released.
pub const TAIL_OFFSET: usize = 128;

/// One datagram's descriptor: one cache line, integers in little-endian byte order, addresses in network byte order.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Descriptor {
    pub(super) payload_offset: u32,
    pub(super) length: u16,
    pub(super) flags: u16,
    pub(super) secs: u32,
    pub(super) nanos: u32,
    pub(super) src: [u8; 16],
    pub(super) dst: [u8; 16],
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) rule: u16,
    pub(super) rx_queue: u16,
    pub(super) key: u32,
    pub(super) cpu: u16,
    pub(super) generation: u16,
}

const _: () = assert!(size_of::<Descriptor>() == 64);

/// The layout constants as `(name in TypeScript, value)`.
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

/// The layout of one lane inside its queue's memory; all offsets and sizes in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct LaneLayout {
    /// Index of the receive thread that fills this lane.
    pub thread: usize,
    /// Offset of the lane control block.
    pub control_offset: usize,
    /// Offset of the descriptor ring.
    pub descriptors_offset: usize,
    /// Descriptors in the ring, a power of two.
    pub slots: u32,
    /// Offset of the payload slab.
    pub payload_offset: usize,
    /// Bytes in the slab, a power of two and at most 2^30.
    pub payload_bytes: u32,
}

/// The layout of one queue's memory.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct QueueLayout {
    /// Bytes to allocate: what is laid out plus room to align it, because a SharedArrayBuffer is only 16-byte aligned.
    pub bytes: usize,
    /// Offset of the queue control block.
    pub control_offset: usize,
    /// One lane per receive thread, in thread order.
    pub lanes: Vec<LaneLayout>,
}

impl QueueLayout {
    /// Lays out `lanes` lanes of `slots` descriptors and `payload_bytes` bytes each, from offset 0 on.
    ///
    /// # Panics
    /// When `slots` or `payload_bytes` is no power of two; [`crate::config::EngineConfig::from_json`] refuses those.
    pub fn new(lanes: usize, slots: u32, payload_bytes: u32) -> Self {
        assert!(slots.is_power_of_two() && payload_bytes.is_power_of_two(), "lane sizes are powers of two");
        let ring = slots as usize * size_of::<Descriptor>();
        let controls = QUEUE_CONTROL_BYTES + lanes * LANE_CONTROL_BYTES;
        let slabs = controls + lanes * ring;
        let lane = |thread| LaneLayout {
            thread,
            control_offset: QUEUE_CONTROL_BYTES + thread * LANE_CONTROL_BYTES,
            descriptors_offset: controls + thread * ring,
            slots,
            payload_offset: slabs + thread * payload_bytes as usize,
            payload_bytes,
        };
        let bytes = slabs + lanes * payload_bytes as usize + ALIGN - 1;
        QueueLayout { bytes, control_offset: 0, lanes: (0..lanes).map(lane).collect() }
    }

    /// The same layout `base` bytes further on.
    pub(super) fn moved(&self, base: usize) -> Self {
        let lane = |l: &LaneLayout| LaneLayout {
            control_offset: l.control_offset + base,
            descriptors_offset: l.descriptors_offset + base,
            payload_offset: l.payload_offset + base,
            ..*l
        };
        QueueLayout {
            bytes: self.bytes,
            control_offset: self.control_offset + base,
            lanes: self.lanes.iter().map(lane).collect(),
        }
    }
}
