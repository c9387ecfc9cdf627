//! The rings an AF_XDP socket shares with the kernel (Linux `Documentation/networking/af_xdp.rst`, `net/xdp/xsk_queue.h`).
//!
//! Single producer, single consumer; a power of two of entries; two free-running u32 indices that wrap at 2^32, each
//! written by one side only. An index is published with a store-release and read with a load-acquire, so the entries
//! behind it are visible with it.

use std::{
    marker::PhantomData,
    mem, ptr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::sys::mapping::Mapping;

/// In the flags word: the kernel sleeps until it is woken with a system call (`XDP_RING_NEED_WAKEUP`).
const NEED_WAKEUP: u32 = 1;

/// Where things are in a ring's memory, in bytes (`struct xdp_ring_offset`).
#[derive(Debug, Clone, Copy)]
pub struct Offsets {
    /// The producer index.
    pub producer: usize,
    /// The consumer index.
    pub consumer: usize,
    /// The flags word.
    pub flags: usize,
    /// The first entry.
    pub entries: usize,
}

impl Offsets {
    /// Bytes to map for `entries` entries of type `T`.
    pub fn length<T>(&self, entries: u32) -> usize {
        self.entries + entries as usize * mem::size_of::<T>()
    }
}

/// Both ends' common part: the memory and where things are in it.
#[derive(Debug)]
struct Ring<T> {
    memory: Arc<Mapping>,
    offsets: Offsets,
    size: u32,
    entry: PhantomData<T>,
}

impl<T: Copy> Ring<T> {
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
        // SAFETY: `new` checked that the word lies aligned inside the mapping, which `self` keeps alive; the kernel and
        // we access it with atomic loads and stores only.
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
        // Consumer first: read the other way round, it could have moved past the producer index we hold.
        let consumer = self.consumer().load(Ordering::Acquire);
        self.producer().load(Ordering::Acquire).wrapping_sub(consumer)
    }

    #[inline]
    fn needs_wakeup(&self) -> bool {
        // Relaxed: a flag by itself, nothing is read on its strength.
        self.word(self.offsets.flags).load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    #[inline]
    fn slot(&self, index: u32) -> *mut T {
        let entry = (index & (self.size - 1)) as usize;
        // SAFETY: `entry < size`, and `new` checked that `size` entries lie aligned inside the mapping.
        unsafe { self.memory.start().as_ptr().add(self.offsets.entries).cast::<T>().add(entry) }
    }
}

/// Our end of a ring we fill (the fill ring).
#[derive(Debug)]
pub struct ProducerRing<T> {
    ring: Ring<T>,
    /// Our index; what we wrote up to here may not be published yet.
    produced: u32,
    /// The kernel's index when we last looked.
    consumed: u32,
}

impl<T: Copy> ProducerRing<T> {
    /// Takes the producing end.
    ///
    /// # Safety
    /// The memory holds a ring of `size` entries of type `T` laid out as `offsets` say, whose other end keeps to the
    /// protocol of `af_xdp.rst`, and nobody else has this end.
    pub unsafe fn new(memory: Arc<Mapping>, offsets: Offsets, size: u32) -> Self {
        let ring = Ring::new(memory, offsets, size);
        let produced = ring.producer().load(Ordering::Relaxed);
        let consumed = ring.consumer().load(Ordering::Acquire);
        ProducerRing { ring, produced, consumed }
    }

    /// Entries the kernel has not taken yet.
    pub fn occupied(&self) -> u32 {
        self.ring.occupied()
    }

    /// True when the kernel wants a system call before it looks at the ring again.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }

    /// Entries that fit now, looked up afresh only when fewer than `wanted` are known to fit.
    #[inline]
    pub fn room(&mut self, wanted: u32) -> u32 {
        let room = |s: &Self| s.ring.size - s.produced.wrapping_sub(s.consumed);
        if room(self) < wanted {
            // Acquire: the kernel has finished reading the entries we are about to overwrite.
            self.consumed = self.ring.consumer().load(Ordering::Acquire);
        }
        room(self)
    }

    /// Writes entries and publishes them together. Returns how many fitted.
    #[inline]
    pub fn push(&mut self, entries: &[T]) -> usize {
        let wanted = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let count = self.room(wanted).min(wanted);
        for entry in &entries[..count as usize] {
            // SAFETY: `slot` is inside the mapping, and `room` says that the kernel is done with this entry, so only we
            // touch it until the store below.
            unsafe { ptr::write(self.ring.slot(self.produced), *entry) };
            self.produced = self.produced.wrapping_add(1);
        }
        if count > 0 {
            self.ring.producer().store(self.produced, Ordering::Release);
        }
        count as usize
    }
}

/// Our end of a ring the kernel fills (the rx ring).
#[derive(Debug)]
pub struct ConsumerRing<T> {
    ring: Ring<T>,
    /// Our index, always published.
    consumed: u32,
    /// The kernel's index when we last looked.
    produced: u32,
}

impl<T: Copy> ConsumerRing<T> {
    /// Takes the consuming end.
    ///
    /// # Safety
    /// The memory holds a ring of `size` entries of type `T` laid out as `offsets` say, whose other end keeps to the
    /// protocol of `af_xdp.rst`, and nobody else has this end.
    pub unsafe fn new(memory: Arc<Mapping>, offsets: Offsets, size: u32) -> Self {
        let ring = Ring::new(memory, offsets, size);
        let consumed = ring.consumer().load(Ordering::Relaxed);
        ConsumerRing { ring, consumed, produced: consumed }
    }

    /// Entries waiting for us.
    pub fn occupied(&self) -> u32 {
        self.ring.occupied()
    }

    /// How many entries can be read, at most `limit`; looks up afresh only when fewer are known.
    #[inline]
    pub fn available(&mut self, limit: u32) -> u32 {
        if self.produced.wrapping_sub(self.consumed) < limit {
            // Acquire: pairs with the kernel's release, so the entries up to here are complete.
            self.produced = self.ring.producer().load(Ordering::Acquire);
        }
        self.produced.wrapping_sub(self.consumed).min(limit)
    }

    /// The `index`-th entry not yet released; `index` must be below what [`ConsumerRing::available`] returned.
    #[inline]
    pub fn get(&self, index: u32) -> T {
        assert!(index < self.produced.wrapping_sub(self.consumed), "rx ring read past what was produced");
        // SAFETY: `slot` is inside the mapping, the kernel published this entry and does not write it before we
        // release it. Entries are plain integers, so any bytes are a value.
        unsafe { ptr::read(self.ring.slot(self.consumed.wrapping_add(index))) }
    }

    /// Gives the first `count` entries back to the kernel.
    #[inline]
    pub fn release(&mut self, count: u32) {
        debug_assert!(count <= self.produced.wrapping_sub(self.consumed));
        self.consumed = self.consumed.wrapping_add(count);
        // Release: our reads of the entries are over before the kernel sees the index.
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

    #[test]
    fn fills_empties_and_refuses_what_does_not_fit() {
        let (mut p, mut c) = pair(4, 0);
        assert_eq!((c.available(9), p.room(9)), (0, 4));
        assert_eq!(p.push(&[1, 2, 3]), 3);
        assert_eq!(p.push(&[4, 5]), 1, "full");
        assert_eq!((p.occupied(), c.occupied(), p.push(&[6])), (4, 4, 0));
        assert_eq!(c.available(2), 2, "the limit holds");
        assert_eq!(c.available(9), 4);
        assert_eq!([c.get(0), c.get(1), c.get(2), c.get(3)], [1, 2, 3, 4]);
        c.release(3);
        assert_eq!((c.available(9), c.get(0), p.room(9)), (1, 4, 3));
        assert_eq!(p.push(&[7, 8, 9, 10]), 3);
    }

    #[test]
    fn indices_wrap_at_u32_max() {
        for start in [u32::MAX - 2, u32::MAX, 0u32.wrapping_sub(7)] {
            let (mut p, mut c) = pair(8, start);
            let mut next = 0u64;
            for round in 0..10u64 {
                let batch: Vec<u64> = (0..5).map(|i| round * 5 + i).collect();
                assert_eq!(p.push(&batch), 5);
                assert_eq!((p.occupied(), c.available(64)), (5, 5));
                for i in 0..5 {
                    assert_eq!(c.get(i), next);
                    next += 1;
                }
                c.release(5);
                assert_eq!(p.room(8), 8);
            }
        }
    }

    #[test]
    #[should_panic(expected = "past what was produced")]
    fn reading_past_the_producer_panics() {
        let (mut p, mut c) = pair(4, 0);
        p.push(&[1]);
        c.available(4);
        c.get(1);
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
                    next += p.push(&batch) as u64;
                    thread::yield_now();
                }
            });
            let mut next = 0;
            while next < COUNT {
                let n = c.available(32);
                for i in 0..n {
                    assert_eq!(c.get(i), next);
                    next += 1;
                }
                c.release(n);
                thread::yield_now();
            }
        });
    }
}
