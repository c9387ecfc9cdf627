//! Has the kernel's stack stamp every packet with its time of arrival.

use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::sys::socket;

/// The longest to wait for a first stamped frame. The kernel starts to stamp in a work item of its own, which a busy machine
/// may delay. With a shorter wait the cutover could come before the stamps, and frames that arrive at that very moment could
/// be lost or doubled; a longer one delays the new group where nothing arrives, and there it is unlikely that anything does
/// at the moment of the cutover.
const FIRST_STAMP: Duration = Duration::from_millis(100);
/// The time in which packets that came in before the first stamp are through the stack. With a shorter one the cutover could
/// meet a packet without a stamp; a longer one only delays the new group.
const UNSTAMPED_GONE: Duration = Duration::from_millis(5);

/// Tells the thread that waits for a first stamped frame when a member has read one.
#[derive(Default)]
pub(super) struct StampWatch {
    awaited: AtomicBool,
}

impl StampWatch {
    /// Each member calls this after each pass. `stamped` says whether the last frame of the pass had the stack's stamp.
    #[inline]
    pub(super) fn note(&self, stamped: bool) {
        if stamped && self.awaited.load(Ordering::Relaxed) {
            self.awaited.store(false, Ordering::Relaxed);
        }
    }
}

/// While it lives the stack stamps every packet, once (SO_TIMESTAMPNS; Documentation/networking/timestamping.rst,
/// net/core/dev.c, `net_enable_timestamp`).
pub(super) struct StackTimestamps {
    _socket: OwnedFd,
}

impl StackTimestamps {
    /// Requests stamps and returns when the kernel has begun, as far as can be told.
    ///
    /// # Errors
    /// Those of socket(2) and setsockopt(2).
    pub(super) fn enable(watch: &StampWatch) -> io::Result<Self> {
        let socket = socket::open(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        watch.awaited.store(true, Ordering::Relaxed);
        socket::set_int(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        let start = Instant::now();
        while watch.awaited.load(Ordering::Relaxed) && start.elapsed() < FIRST_STAMP {
            thread::sleep(Duration::from_millis(1));
        }
        watch.awaited.store(false, Ordering::Relaxed);
        thread::sleep(UNSTAMPED_GONE);
        Ok(StackTimestamps { _socket: socket })
    }
}
