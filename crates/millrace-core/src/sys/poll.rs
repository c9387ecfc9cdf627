//! Waiting for input on several descriptors: ppoll(2).

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr,
    time::Duration,
};

use super::errno::ok_or_errno;

/// The entry of a [`ppoll`] list that waits until `fd` has something to read. It holds the bare number, so the caller
/// keeps the descriptor open until `ppoll` returns.
pub(crate) fn for_input(fd: impl AsFd) -> libc::pollfd {
    libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 }
}

/// Sleeps until one of `fds` has an event or an error, or `timeout` has passed, and returns how many have one (ppoll(2)).
/// A signal ends the sleep early, with 0.
///
/// # Errors
/// Those of ppoll(2) but EINTR: ENOMEM, and EINVAL for more entries than RLIMIT_NOFILE.
pub(crate) fn ppoll(fds: &mut [libc::pollfd], timeout: Duration) -> io::Result<usize> {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: pointer and count describe `fds`, of which the kernel writes only `revents`; `timeout` outlives the call; a
    // null signal mask leaves the mask as it is.
    let ready =
        unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, &raw const timeout, ptr::null()) };
    match ok_or_errno(ready) {
        Ok(()) => Ok(ready as usize),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn says_whether_something_can_be_read() {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut fds = [for_input(&a), for_input(&b)];
        assert_eq!(ppoll(&mut fds, Duration::from_millis(1)).unwrap(), 0);
        a.send_to(b"x", b.local_addr().unwrap()).unwrap();
        assert_eq!(ppoll(&mut fds, Duration::MAX).unwrap(), 1);
        assert_eq!((fds[0].revents, fds[1].revents), (0, libc::POLLIN));
    }
}
