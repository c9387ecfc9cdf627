//! Preferred busy-polling (Documentation/networking/napi.rst, Linux 5.11): the NIC's softirq stays off while our thread
//! asks for frames by recvfrom(2). poll(2) never drives an AF_XDP socket's NAPI, and sendto(2) refuses without a tx ring.
//!
//! The kernel takes all three options on any device and then polls nothing where it does not know the queue's NAPI
//! (veth; drivers without `netif_queue_set_napi` since 6.13). So nothing is called active unless SO_INCOMING_NAPI_ID says
//! which NAPI it is.

use std::{
    io,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use super::socket::{get_option_at, set_option_at};

/// asm-generic/socket.h.
const SO_BUSY_POLL: i32 = 46;
const SO_INCOMING_NAPI_ID: i32 = 56;
const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_BUSY_POLL_BUDGET: i32 = 70;
/// How long one call may poll, µs; frames it may take; and the least pause between two calls, without which the kernel
/// does nothing else (the numbers Firedancer settled on for mlx5 and i40e).
const POLL_US: i32 = 64;
const BUDGET: i32 = 64;
const PAUSE: Duration = Duration::from_micros(5);

/// Busy-polling of one socket.
#[derive(Debug)]
pub(super) struct BusyPoll {
    last: Instant,
}

impl BusyPoll {
    /// Sets the three options.
    pub(super) fn enable(fd: BorrowedFd<'_>) -> io::Result<Self> {
        for (option, value) in
            [(SO_PREFER_BUSY_POLL, 1), (SO_BUSY_POLL, POLL_US), (SO_BUSY_POLL_BUDGET, BUDGET)]
        {
            set_option_at(fd, libc::SOL_SOCKET, option, &value)?;
        }
        Ok(BusyPoll { last: Instant::now() })
    }

    /// True when the kernel may be asked again.
    #[inline]
    pub(super) fn due(&mut self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.last) < PAUSE {
            return false;
        }
        self.last = now;
        true
    }
}

/// Takes the options back. Switching off needs no privilege; where an option is not known there is nothing to take back.
pub(super) fn disable(fd: BorrowedFd<'_>) {
    for option in [SO_PREFER_BUSY_POLL, SO_BUSY_POLL] {
        let _ = set_option_at(fd, libc::SOL_SOCKET, option, &0);
    }
}

/// The NAPI that a socket's queue belongs to; 0: unknown, and busy-polling does nothing.
pub(super) fn napi_id(fd: BorrowedFd<'_>) -> u32 {
    let mut id: libc::c_int = 0;
    get_option_at(fd, libc::SOL_SOCKET, SO_INCOMING_NAPI_ID, &mut id).map_or(0, |_| id as u32)
}

/// Why the options were refused, for people.
pub(super) fn refused(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::EPERM) => format!("preferred busy-polling was refused: it needs CAP_NET_ADMIN ({e})"),
        Some(libc::ENOPROTOOPT) => "preferred busy-polling needs Linux 5.11".into(),
        _ => format!("preferred busy-polling was refused: {e}"),
    }
}
