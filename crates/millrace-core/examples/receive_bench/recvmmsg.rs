//! What one writes first: a UDP socket and recvmmsg(2), 64 messages a call, nothing but payloads.

use std::{io, net::UdpSocket, os::fd::AsRawFd, ptr, time::Duration};

use millrace_core::{
    error::{Code, Error, Result},
    rx::{KernelCounters, NoGuard, Receiver, Sink},
};

const MESSAGES: usize = 64;
const BYTES: usize = 2048;

/// Counts the datagrams of a port.
pub(crate) struct PlainSocket {
    socket: UdpSocket,
    buffers: Vec<[u8; BYTES]>,
}

impl PlainSocket {
    /// Binds the port, with the same receive buffer as Millrace's.
    pub(crate) fn open(port: u16, rcvbuf: u32) -> io::Result<Self> {
        let socket = UdpSocket::bind(("0.0.0.0", port))?;
        socket.set_nonblocking(true)?;
        let bytes = rcvbuf as libc::c_int;
        // SAFETY: pointer and length describe `bytes`, which outlives the call and is only read.
        let rc = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const bytes).cast(),
                size_of_val(&bytes) as libc::socklen_t,
            )
        };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(PlainSocket { socket, buffers: vec![[0; BYTES]; MESSAGES] })
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut iovecs = [libc::iovec { iov_base: ptr::null_mut(), iov_len: BYTES }; MESSAGES];
        // SAFETY: mmsghdr is integers and nullable pointers, for which zero is a valid value.
        let mut headers: [libc::mmsghdr; MESSAGES] = unsafe { std::mem::zeroed() };
        for ((header, iovec), buffer) in headers.iter_mut().zip(&mut iovecs).zip(&mut self.buffers) {
            iovec.iov_base = buffer.as_mut_ptr().cast();
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every header names one iovec, every iovec one buffer of BYTES bytes; all of them outlive the call, and
        // nothing else refers to the buffers. A null timeout is allowed.
        let n = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
    }
}

impl Receiver for PlainSocket {
    type Guard = NoGuard;

    fn receive<S: Sink>(&mut self, _: &mut S) -> Result<usize> {
        match self.fill() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result.map_err(|e| Error::os(Code::Kernel, "recvmmsg", e)),
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, alive through the call. Its result does not matter: the next pass reads the socket in any case.
        unsafe { libc::poll(&raw mut poll, 1, timeout.as_millis().max(1) as libc::c_int) };
        Ok(())
    }

    fn close_intake(&mut self) {}

    fn counters(&mut self) -> KernelCounters {
        KernelCounters::default()
    }

    fn rx_queue(&self) -> u16 {
        0
    }
}
