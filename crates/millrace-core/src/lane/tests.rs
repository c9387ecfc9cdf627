use std::{alloc::Layout, collections::VecDeque, net::IpAddr, thread};

use proptest::prelude::*;

use super::*;
use crate::{
    datagram::{Addr, Timestamp},
    lane::layout::{QUEUE_CONTROL_BYTES, QueueLayout},
};

/// Zeroed, 64-byte aligned memory that outlives the test's producers, as a SharedArrayBuffer would.
struct Memory {
    base: *mut u8,
    layout: Layout,
}

impl Memory {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes, 64).unwrap();
        // SAFETY: the size is not zero.
        Memory { base: unsafe { std::alloc::alloc_zeroed(layout) }, layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout and freed once.
        unsafe { std::alloc::dealloc(self.base, self.layout) };
    }
}

/// The worker's side, as src/queue/lane.ts does it.
struct Consumer {
    memory: Arc<QueueMemory>,
    layout: LaneLayout,
    next: u32,
}

impl Consumer {
    fn take(&mut self, limit: u32) -> Vec<(Descriptor, Vec<u8>)> {
        let head = self.memory.word(self.layout.control_offset + HEAD_OFFSET).load(Ordering::Acquire);
        let n = head.wrapping_sub(self.next).min(limit);
        let read = |k: u32| {
            let slot = (self.next.wrapping_add(k) & (self.layout.slots - 1)) as usize;
            // SAFETY: published slots are not written until they are released.
            unsafe {
                let base = self.memory.base();
                let d = base.add(self.layout.descriptors_offset).cast::<Descriptor>().add(slot).read();
                let at = base.add(self.layout.payload_offset + d.payload_offset as usize);
                (d, std::slice::from_raw_parts(at, usize::from(d.length)).to_vec())
            }
        };
        (0..n).map(read).collect()
    }

    fn release(&mut self, n: usize) {
        self.next = self.next.wrapping_add(n as u32);
        self.memory.word(self.layout.control_offset + TAIL_OFFSET).store(self.next, Ordering::Release);
    }
}

fn lane(slots: u32, bytes: u32, start: u32) -> (Memory, LaneProducer, Consumer) {
    let layout = QueueLayout::new(2, slots, bytes);
    let memory = Memory::new(layout.bytes);
    // SAFETY: zeroed, large enough, and returned to the caller so that it outlives both sides.
    let queue = unsafe { QueueMemory::new(memory.base, layout.bytes, layout.clone()) }.unwrap();
    let lane = queue.layout().lanes[1];
    for word in [HEAD_OFFSET, TAIL_OFFSET] {
        queue.word(lane.control_offset + word).store(start, Ordering::Relaxed);
    }
    // SAFETY: the only producer of this lane.
    let mut producer = unsafe { LaneProducer::new(&queue, 1) };
    // Slab positions wrap too.
    (producer.slab_head, producer.slab_tail) = (start.wrapping_mul(bytes), start.wrapping_mul(bytes));
    (memory, producer, Consumer { memory: queue, layout: lane, next: start })
}

const CLASSIFICATION: Classification = Classification { rule: 3, key: 0xfeed, cpu: 1, generation: 7 };

fn datagram(payload: &[u8]) -> Datagram<'_> {
    let ip = |a: &str| Addr::from(a.parse::<IpAddr>().unwrap());
    Datagram {
        payload,
        src: ip("192.0.2.1"),
        dst: ip("2001:db8::2"),
        src_port: 1,
        dst_port: 2,
        time: Timestamp { secs: 7, nanos: 8 },
        rx_queue: 9,
        flags: 4,
    }
}

#[test]
fn a_datagram_comes_out_as_it_went_in() {
    let (_m, mut p, mut c) = lane(64, 65_536, 0);
    assert!(p.push(&datagram(b"hello"), CLASSIFICATION));
    assert!(c.take(9).is_empty(), "not visible before publish");
    assert_eq!((p.publish(), p.publish()), (1, 0));
    let (d, payload) = c.take(9).remove(0);
    assert_eq!(payload, b"hello");
    assert_eq!((d.secs, d.nanos, d.src_port, d.dst_port, d.rx_queue, d.flags), (7, 8, 1, 2, 9, 4));
    assert_eq!((d.rule, d.key, d.cpu), (3, 0xfeed, 1));
    assert_eq!((Addr(d.src), Addr(d.dst)), (datagram(b"").src, datagram(b"").dst));
    assert_eq!((p.pending(), c.memory.depth()), (1, 1));
    c.release(1);
    assert_eq!((p.pending(), c.memory.depth()), (0, 0));
}

#[test]
fn full_by_descriptors_and_full_by_bytes() {
    let (_m, mut p, mut c) = lane(64, 65_536, 0);
    assert_eq!((0..100).filter(|_| p.push(&datagram(b""), CLASSIFICATION)).count(), 64);
    p.publish();
    c.release(64);
    let big = vec![1; 30_000];
    assert_eq!((0..100).filter(|_| p.push(&datagram(&big), CLASSIFICATION)).count(), 2);
    p.publish();
    assert!(
        !p.push(&datagram(&big), CLASSIFICATION),
        "5,536 bytes are left before the end, and the beginning is in use"
    );
    c.release(1);
    assert!(p.push(&datagram(&big), CLASSIFICATION), "the beginning is free again");
    p.publish();
    assert_eq!(c.take(9).iter().map(|(d, _)| d.payload_offset).collect::<Vec<_>>(), [30_000, 0]);
}

#[test]
fn a_lane_of_one_largest_datagram_takes_it_again_and_again() {
    let (_m, mut p, mut c) = lane(64, 65_536, u32::MAX - 2);
    let big = vec![7; 65_507];
    for _ in 0..10 {
        assert!(p.push(&datagram(&big), CLASSIFICATION));
        assert!(!p.push(&datagram(&big), CLASSIFICATION));
        p.publish();
        assert_eq!(c.take(9)[0].1, big);
        c.release(1);
    }
}

#[test]
fn a_scribbled_tail_is_ignored() {
    let (_m, mut p, c) = lane(64, 65_536, 0);
    for _ in 0..64 {
        assert!(p.push(&datagram(b"x"), CLASSIFICATION));
    }
    p.publish();
    for bad in [65, 1000, u32::MAX] {
        c.memory.word(c.layout.control_offset + TAIL_OFFSET).store(bad, Ordering::Release);
        assert!(!p.push(&datagram(b"y"), CLASSIFICATION), "tail {bad}");
    }
    // Moving back is as wrong as running ahead.
    c.memory.word(c.layout.control_offset + TAIL_OFFSET).store(10, Ordering::Release);
    assert!(p.push(&datagram(b"y"), CLASSIFICATION));
    c.memory.word(c.layout.control_offset + TAIL_OFFSET).store(5, Ordering::Release);
    assert_eq!((p.publish(), p.pending()), (1, 55));
}

#[test]
fn memory_is_aligned_by_us_and_refused_when_too_small() {
    let layout = QueueLayout::new(1, 64, 65_536);
    let memory = Memory::new(layout.bytes + 64);
    // SAFETY: the memory is as large as claimed in each call.
    unsafe {
        assert!(QueueMemory::new(memory.base, layout.bytes - 1, layout.clone()).is_none());
        let shifted = QueueMemory::new(memory.base.add(16), layout.bytes, layout.clone()).unwrap();
        assert_eq!(
            (shifted.layout().control_offset, shifted.layout().lanes[0].control_offset),
            (48, 48 + QUEUE_CONTROL_BYTES)
        );
        assert!(QueueMemory::new(std::ptr::null_mut(), layout.bytes, layout).is_none());
    }
}

#[test]
fn two_threads_a_million_datagrams() {
    const N: u32 = if cfg!(miri) { 500 } else { 1_000_000 };
    let (_m, mut p, mut c) = lane(256, 65_536, u32::MAX - 1000);
    thread::scope(|s| {
        s.spawn(move || {
            let mut pushed = 0u32;
            while pushed < N {
                let mut payload = [0u8; 40];
                payload[..4].copy_from_slice(&pushed.to_be_bytes());
                let length = 4 + pushed as usize % 37;
                payload[4..length].fill(pushed as u8);
                if p.push(&datagram(&payload[..length]), CLASSIFICATION) {
                    pushed += 1;
                    if pushed.is_multiple_of(7) {
                        p.publish();
                    }
                } else {
                    p.publish();
                    thread::yield_now();
                }
            }
            p.publish();
        });
        let mut expected = 0u32;
        while expected < N {
            let got = c.take(100);
            if got.is_empty() {
                thread::yield_now();
            }
            for (_, payload) in &got {
                assert_eq!(payload[..4], expected.to_be_bytes());
                assert_eq!(payload.len(), 4 + expected as usize % 37);
                assert!(payload[4..].iter().all(|b| *b == expected as u8));
                expected += 1;
            }
            c.release(got.len());
        }
    });
}

proptest! {
    #[test]
    fn any_interleaving_is_a_queue(start: u32, steps in proptest::collection::vec((0u8..3, 0usize..66_000), 1..300)) {
        let (_m, mut p, mut c) = lane(64, 65_536, start);
        let (mut sent, mut stamp) = (VecDeque::new(), 0u8);
        for (what, n) in steps {
            match what {
                0 => {
                    stamp = stamp.wrapping_add(1);
                    let payload = vec![stamp; if n % 3 == 0 { n % 100 } else { n }];
                    let bytes: usize = sent.iter().map(Vec::len).sum();
                    if p.push(&datagram(&payload), CLASSIFICATION) {
                        sent.push_back(payload);
                    } else {
                        // Refused only when the slots are used up, or the bytes are not there in one piece: each wrap
                        // skips less than the payload behind it.
                        prop_assert!(payload.len() > 65_535 || !sent.is_empty());
                        prop_assert!(payload.len() > 65_535 || sent.len() == 64 || 2 * (bytes + payload.len()) > 65_536);
                    }
                }
                1 => { p.publish(); }
                _ => {
                    let got = c.take(n as u32 % 80);
                    let count = got.len();
                    for (_, payload) in got {
                        prop_assert_eq!(Some(payload), sent.pop_front());
                    }
                    c.release(count);
                }
            }
        }
    }
}
