//! A sender of raw frames.

use std::{
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    thread,
};

/// Sends any bytes as a frame out of one interface of the calling thread's namespace.
pub struct RawSender {
    fd: OwnedFd,
}

impl RawSender {
    /// Opens an AF_PACKET socket on `interface`; protocol 0, so it receives nothing.
    pub fn new(interface: &str) -> Self {
        let name = std::ffi::CString::new(interface).unwrap();
        // SAFETY: a NUL-terminated name; the call only reads it.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        assert_ne!(index, 0, "no interface {interface}");
        // SAFETY: plain socket(2); the result is checked before it is owned.
        let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(raw >= 0, "socket: {}", std::io::Error::last_os_error());
        // SAFETY: `raw` is a fresh descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: sockaddr_ll is plain old data; all zero is valid.
        let mut sll: libc::sockaddr_ll = unsafe { mem::zeroed() };
        sll.sll_family = libc::AF_PACKET as u16;
        sll.sll_ifindex = index as i32;
        // SAFETY: the pointer and the length describe `sll`, which outlives the call.
        let rc = unsafe {
            libc::bind(fd.as_raw_fd(), (&raw const sll).cast(), mem::size_of_val(&sll) as libc::socklen_t)
        };
        assert_eq!(rc, 0, "bind: {}", std::io::Error::last_os_error());
        RawSender { fd }
    }

    /// Sends past the queueing discipline (PACKET_QDISC_BYPASS): a veth's tx queue is then the CPU's.
    pub fn bypass_qdisc(&self) {
        let on: libc::c_int = 1;
        // SAFETY: pointer and length describe `on`, which outlives the call.
        let rc = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const on).cast(),
                mem::size_of_val(&on) as libc::socklen_t,
            )
        };
        assert_eq!(rc, 0, "PACKET_QDISC_BYPASS: {}", std::io::Error::last_os_error());
    }

    /// Sends one frame; waits while the device's queue is full, so that what returns was handed over.
    pub fn send(&self, frame: &[u8]) {
        loop {
            // SAFETY: pointer and length describe `frame`, which outlives the call.
            let n = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
            if n == frame.len() as isize {
                return;
            }
            let e = std::io::Error::last_os_error();
            assert_eq!(e.raw_os_error(), Some(libc::ENOBUFS), "send of {} bytes: {e}", frame.len());
            thread::yield_now();
        }
    }
}
