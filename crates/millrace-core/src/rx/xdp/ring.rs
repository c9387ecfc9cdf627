//! The rings an AF_XDP socket shares with the kernel (af_xdp.rst, "Rings"; `net/xdp/xsk_queue.h`).
//!
//! A ring has a single producer, a single consumer, a power of two of entries, and two free-running u32 indices that wrap
//! at 2^32, each written by one side only. An index is published with a store-release and read with a load-acquire. So a
//! side that sees an index sees what the other side wrote before it (the entries), and what the other side read before it
//! was read before the entries are overwritten.

use std::{
    marker::PhantomData,
    mem, ptr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::sys::mapping::Mapping;

/// `XDP_RING_NEED_WAKEUP` of if_xdp.h, in the flags word: the kernel reads the ring again after a system call only.
const NEED_WAKEUP: u32 = 1;

/// Offsets in a ring's memory, in bytes (`struct xdp_ring_offset`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Offsets {
    /// Offset of the producer index.
    pub(super) producer: usize,
    /// Offset of the consumer index.
    pub(super) consumer: usize,
    /// Offset of the flags word.
    pub(super) flags: usize,
    /// Offset of the first entry.
    pub(super) entries: usize,
}

impl Offsets {
    /// Bytes to map for `entries` entries of type `T`.
    pub(super) fn length<T>(&self, entries: u32) -> usize {
        self.entries + entries as usize * mem::size_of::<T>()
    }
}

/// The common part of both ends: the memory and the offsets in it.
#[derive(Debug)]
struct Ring<T> {
    memory: Arc<Mapping>,
    offsets: Offsets,
    size: u32,
    entry: PhantomData<T>,
}

impl<T> Ring<T> {
    fn new(memory: Arc<Mapping>, offsets: Offsets, size: u32) -> Self {
        assert!(size.is_power_of_two(), "a ring of {size} entries: the kernel makes powers of two only");
        let fits =
            |at: usize, bytes: usize, align: usize| at.is_multiple_of(align) && at + bytes <= memory.len();
        assert!(
            [offsets.producer, offsets.consumer, offsets.flags].iter().all(|&at| fits(at, 4, 4))
                && fits(offsets.entries, size as usize * mem::size_of::<T>(), mem::align_of::<T>()),
            "ring offsets {offsets:?} do not fit into {} bytes",
            memory.len()
        );
        Ring { memory, offsets, size, entry: PhantomData }
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: `new` asserted that the word lies aligned inside the mapping, which `self` keeps alive; the kernel and
        // this process access it with atomic loads and stores only.
        unsafe { &*self.memory.start().as_ptr().add(offset).cast::<AtomicU32>() }
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        self.word(self.offsets.producer)
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        self.word(self.offsets.consumer)
    }

    /// Entries produced and not yet consumed, as far as both sides have published.
    fn occupied(&self) -> u32 {
        // The consumer is read first: read second, it could have moved past the producer index read before.
        let consumer = self.consumer().load(Ordering::Acquire);
        self.producer().load(Ordering::Acquire).wrapping_sub(consumer)
    }

    #[inline]
    fn needs_wakeup(&self) -> bool {
        // Relaxed, because nothing is read on the strength of the flag. The kernel may set it just after this load although
        // frames were published just before it; nothing is lost by that, because an idle pass and poll(2) read it again.
        self.word(self.offsets.flags).load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    #[inline]
    fn entry(&self, index: u32) -> *mut T {
        let position = (index & (self.size - 1)) as usize;
        // SAFETY: `position < size`, and `new` asserted that `size` entries lie aligned inside the mapping.
        unsafe { self.memory.start().as_ptr().add(self.offsets.entries).cast::<T>().add(position) }
    }
}

/// The producing end of a ring that user space fills (the fill ring).
#[derive(Debug)]
pub(super) struct ProducerRing<T> {
    ring: Ring<T>,
    /// The producer index. Entries up to here are written and published.
    produced: u32,
    /// The kernel's consumer index when it was last read; the kernel may be further.
    consumed: u32,
}

impl<T> ProducerRing<T> {
    /// Takes the producing end.
    ///
    /// # Safety
    /// The memory holds a ring of `size` entries laid out as `offsets` say; a value of `T` has the size and meaning of an
    /// entry; the other end keeps to the protocol of `af_xdp.rst`, and nothing else has this end.
    pub(super) unsafe fn new(memory: Arc<Mapping>, offsets: Offsets, size: u32) -> Self {
        let ring = Ring::new(memory, offsets, size);
        let produced = ring.producer().load(Ordering::Relaxed);
        let consumed = ring.consumer().load(Ordering::Acquire);
        ProducerRing { ring, produced, consumed }
    }

    /// Entries the kernel has not consumed yet, as far as it has published.
    pub(super) fn occupied(&self) -> u32 {
        self.ring.occupied()
    }

    /// True when the kernel requires a system call before it reads the ring again.
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }

    #[inline]
    fn known_room(&self) -> u32 {
        self.ring.size - self.produced.wrapping_sub(self.consumed)
    }

    /// Number of entries that [`ProducerRing::push`] takes now. The kernel's index is read only when fewer than `wanted` are
    /// known to fit.
    #[inline]
    pub(super) fn room(&mut self, wanted: u32) -> u32 {
        if self.known_room() < wanted {
            // Acquire: the kernel has finished reading the entries that are about to be overwritten.
            self.consumed = self.ring.consumer().load(Ordering::Acquire);
        }
        self.known_room()
    }

    /// Moves entries into the ring and publishes them together.
    ///
    /// # Panics
    /// When there are more than [`ProducerRing::room`] returned.
    #[inline]
    pub(super) fn push(&mut self, entries: impl ExactSizeIterator<Item = T>) {
        let count = entries.len();
        assert!(count <= self.known_room() as usize, "ring filled past its room");
        if count == 0 {
            return;
        }
        // `take`, because an iterator's length is a promise and not a proof.
        for entry in entries.take(count) {
            // SAFETY: `entry` is inside the mapping, and the kernel has consumed what was there: at most `known_room`
            // entries are written. Nothing else touches it until the store below.
            unsafe { ptr::write(self.ring.entry(self.produced), entry) };
            self.produced = self.produced.wrapping_add(1);
        }
        // Release: the entries are written, and everything read from the frames they name was read, before the kernel
        // sees the index.
        self.ring.producer().store(self.produced, Ordering::Release);
    }
}

/// The consuming end of a ring that the kernel fills (the rx ring).
#[derive(Debug)]
pub(super) struct ConsumerRing<T> {
    ring: Ring<T>,
    /// Entries up to here were returned by [`ConsumerRing::consume`]. The kernel learns of it by [`ConsumerRing::release`].
    consumed: u32,
    /// The kernel's producer index when it was last read; the kernel may be further.
    produced: u32,
}

impl<T> ConsumerRing<T> {
    /// Takes the consuming end.
    ///
    /// # Safety
    /// As for [`ProducerRing::new`], and every bit pattern is a value of `T`.
    pub(super) unsafe fn new(memory: Arc<Mapping>, offsets: Offsets, size: u32) -> Self {
        let ring = Ring::new(memory, offsets, size);
        let consumed = ring.consumer().load(Ordering::Relaxed);
        ConsumerRing { ring, consumed, produced: consumed }
    }

    /// Entries on the ring, as far as both sides have published: consumed ones count until they are released.
    pub(super) fn occupied(&self) -> u32 {
        self.ring.occupied()
    }

    /// How many entries can be consumed now, at most `limit`. The kernel's index is read only when fewer are known.
    #[inline]
    pub(super) fn available(&mut self, limit: u32) -> u32 {
        if self.produced.wrapping_sub(self.consumed) < limit {
            // Acquire: pairs with the kernel's barrier in `xskq_prod_submit`. The entries up to here are written, and so are
            // the frames they name.
            self.produced = self.ring.producer().load(Ordering::Acquire);
        }
        self.produced.wrapping_sub(self.consumed).min(limit)
    }

    /// Moves the next entry out of the ring; each is returned once. The kernel does not reuse its entry before
    /// [`ConsumerRing::release`].
    ///
    /// # Panics
    /// When all entries that [`ConsumerRing::available`] knew of are consumed.
    #[inline]
    pub(super) fn consume(&mut self) -> T {
        assert!(self.consumed != self.produced, "rx ring read past what was produced");
        // SAFETY: `entry` is inside the mapping; the kernel published this entry and does not write to it before it is
        // released. Every bit pattern is a value of `T` (see `new`), and it is read once, because the index advances.
        let entry = unsafe { ptr::read(self.ring.entry(self.consumed)) };
        self.consumed = self.consumed.wrapping_add(1);
        entry
    }

    /// Releases all consumed entries to the kernel.
    #[inline]
    pub(super) fn release(&mut self) {
        // Release: the entries were read before the kernel sees the index and overwrites them.
        self.ring.consumer().store(self.consumed, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const OFFSETS: Offsets = Offsets { producer: 0, consumer: 64, flags: 128, entries: 192 };

    /// Both ends of one ring whose indices start at `start`.
    fn pair(size: u32, start: u32) -> (ProducerRing<u64>, ConsumerRing<u64>) {
        let memory = Arc::new(Mapping::anonymous(OFFSETS.length::<u64>(size), None).unwrap());
        let ring = Ring::<u64>::new(Arc::clone(&memory), OFFSETS, size);
        ring.producer().store(start, Ordering::Relaxed);
        ring.consumer().store(start, Ordering::Relaxed);
        // SAFETY: the memory was made for exactly this, and these are its only two ends.
        unsafe {
            (ProducerRing::new(Arc::clone(&memory), OFFSETS, size), ConsumerRing::new(memory, OFFSETS, size))
        }
    }

    /// Pushes as many entries as fit, and returns how many.
    fn push(p: &mut ProducerRing<u64>, entries: &[u64]) -> usize {
        let count = (p.room(entries.len() as u32) as usize).min(entries.len());
        p.push(entries[..count].iter().copied());
        count
    }

    #[test]
    fn fills_empties_and_refuses_what_does_not_fit() {
        let (mut p, mut c) = pair(4, 0);
        assert_eq!((c.available(9), p.room(9)), (0, 4));
        assert_eq!(push(&mut p, &[1, 2, 3]), 3);
        assert_eq!(push(&mut p, &[4, 5]), 1, "full");
        assert_eq!((p.occupied(), c.occupied(), push(&mut p, &[6])), (4, 4, 0));
        assert_eq!(c.available(2), 2, "the limit holds");
        assert_eq!(c.available(9), 4);
        assert_eq!([c.consume(), c.consume(), c.consume()], [1, 2, 3]);
        assert_eq!((c.available(9), c.occupied(), p.room(9)), (1, 4, 0), "consumed is not released");
        c.release();
        assert_eq!((c.available(9), c.consume(), p.room(9)), (1, 4, 3));
        assert_eq!(push(&mut p, &[7, 8, 9, 10]), 3);
    }

    #[test]
    #[should_panic(expected = "past its room")]
    fn filling_past_the_room_panics() {
        let (mut p, _c) = pair(4, 0);
        p.push([0; 5].into_iter());
    }

    #[test]
    fn indices_wrap_at_u32_max() {
        for start in [u32::MAX - 2, u32::MAX, 0u32.wrapping_sub(7)] {
            let (mut p, mut c) = pair(8, start);
            let mut next = 0u64;
            for round in 0..10u64 {
                let batch: Vec<u64> = (0..5).map(|i| round * 5 + i).collect();
                assert_eq!(push(&mut p, &batch), 5);
                assert_eq!((p.occupied(), c.available(64)), (5, 5));
                for i in 0..5 {
                    assert_eq!(c.consume(), next, "entry {i}");
                    next += 1;
                }
                c.release();
                assert_eq!(p.room(8), 8);
            }
        }
    }

    #[test]
    #[should_panic(expected = "past what was produced")]
    fn reading_past_the_producer_panics() {
        let (mut p, mut c) = pair(4, 0);
        push(&mut p, &[1]);
        c.available(4);
        c.consume();
        c.consume();
    }

    #[test]
    fn the_flag_is_read_from_memory() {
        let (p, c) = pair(4, 0);
        assert!(!p.needs_wakeup());
        c.ring.word(OFFSETS.flags).store(NEED_WAKEUP, Ordering::Relaxed);
        assert!(p.needs_wakeup());
    }

    #[test]
    fn two_threads_see_every_entry_once_and_in_order() {
        const COUNT: u64 = 100_000;
        let (mut p, mut c) = pair(64, u32::MAX - 1000);
        thread::scope(|s| {
            s.spawn(move || {
                let mut next = 0;
                while next < COUNT {
                    let batch: Vec<u64> = (next..COUNT.min(next + 13)).collect();
                    next += push(&mut p, &batch) as u64;
                    thread::yield_now();
                }
            });
            let mut next = 0;
            while next < COUNT {
                let n = c.available(32);
                for _ in 0..n {
                    assert_eq!(c.consume(), next);
                    next += 1;
                }
                c.release();
                thread::yield_now();
            }
        });
    }
}
