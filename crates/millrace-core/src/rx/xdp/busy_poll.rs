//! Preferred busy-polling (napi.rst, "Busy polling" and "IRQ mitigation"; Linux 5.11): the NIC's softirq stays off while
//! the receive thread requests frames by recvfrom(2). poll(2) never drives an AF_XDP socket's NAPI, and sendto(2) fails
//! without a tx ring.
//!
//! The kernel accepts all three options on any device and then polls nothing where it does not know the NAPI of the socket's
//! rx queue (veth; drivers without `netif_queue_set_napi` since 6.13). So busy-polling is called active only when
//! SO_INCOMING_NAPI_ID names that NAPI.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use libc::c_int;

use crate::sys::socket::{get_int, set_int};

// Values of asm-generic/socket.h.
const SO_BUSY_POLL: c_int = 46;
const SO_INCOMING_NAPI_ID: c_int = 56;
const SO_PREFER_BUSY_POLL: c_int = 69;
const SO_BUSY_POLL_BUDGET: c_int = 70;

// The three numbers are those that Firedancer settled on for mlx5 and i40e.

/// How long one recvfrom(2) may poll, in µs (SO_BUSY_POLL). Too low, and the call returns before a frame is there; too high,
/// and frames that have arrived wait for the end of the call.
const POLL_TIME_US: c_int = 64;
/// Frames that one recvfrom(2) may take off the NIC (SO_BUSY_POLL_BUDGET). Too low, and a burst takes many system calls; too
/// high, and the first frames of a burst wait for the last ones.
const BUDGET: c_int = 64;
/// The shortest pause between two recvfrom(2). Too low, and an idle thread spends its time in system calls; too high, and
/// frames wait for so long on the NIC.
const MIN_PAUSE: Duration = Duration::from_micros(5);

/// Busy-polling of one socket.
#[derive(Debug)]
pub(super) struct BusyPoll {
    last: Instant,
}

impl BusyPoll {
    /// Sets the three options.
    ///
    /// # Errors
    /// The errno of setsockopt(2), see [`refusal`].
    pub(super) fn enable(fd: &OwnedFd) -> io::Result<Self> {
        for (option, value) in
            [(SO_PREFER_BUSY_POLL, 1), (SO_BUSY_POLL, POLL_TIME_US), (SO_BUSY_POLL_BUDGET, BUDGET)]
        {
            set_int(fd, libc::SOL_SOCKET, option, value)?;
        }
        Ok(BusyPoll { last: Instant::now() })
    }

    /// True when the last poll is at least [`MIN_PAUSE`] ago; the caller then polls.
    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.last) < MIN_PAUSE {
            return false;
        }
        self.last = now;
        true
    }
}

/// Takes the options back. This needs no privilege, and where an option is unknown there is nothing to take back.
pub(super) fn disable(fd: &OwnedFd) {
    for option in [SO_PREFER_BUSY_POLL, SO_BUSY_POLL] {
        let _ = set_int(fd, libc::SOL_SOCKET, option, 0);
    }
}

/// The id of the NAPI of the socket's rx queue; 0 when the kernel does not know it and busy-polling does nothing.
pub(super) fn napi_id(fd: &OwnedFd) -> u32 {
    get_int(fd, libc::SOL_SOCKET, SO_INCOMING_NAPI_ID).map_or(0, |id| id as u32)
}

/// The sentence for a user whose options were refused.
pub(super) fn refusal(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::EPERM) => format!("preferred busy-polling was refused: it needs CAP_NET_ADMIN ({e})"),
        Some(libc::ENOPROTOOPT) => "preferred busy-polling needs Linux 5.11".into(),
        _ => format!("preferred busy-polling was refused: {e}"),
    }
}
