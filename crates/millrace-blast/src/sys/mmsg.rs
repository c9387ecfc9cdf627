//! sendmmsg(2) over one buffer that is divided into equal slots.

use std::{io, mem, os::fd::RawFd, ptr};

/// A buffer of `messages` slots and the headers that point into it.
pub(crate) struct Batch {
    buffer: Box<[u8]>,
    slot: usize,
    // Both point into memory that is never reallocated while they live: `buffer` and each other are boxed slices.
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

// SAFETY: the raw pointers inside point only into heap memory this value owns, so moving it to another thread moves
// everything they reach.
unsafe impl Send for Batch {}

impl Batch {
    /// Room for `messages` of up to `slot` bytes.
    pub(crate) fn new(messages: usize, slot: usize) -> Self {
        let slot = slot.max(1);
        let mut buffer = vec![0u8; messages * slot].into_boxed_slice();
        let mut iovecs: Box<[libc::iovec]> = buffer
            .chunks_exact_mut(slot)
            .map(|c| libc::iovec { iov_base: c.as_mut_ptr().cast(), iov_len: 0 })
            .collect();
        let headers = iovecs
            .iter_mut()
            .map(|v| {
                // SAFETY: all-zero is a valid mmsghdr: no name, no vectors, no control data.
                let mut h: libc::mmsghdr = unsafe { mem::zeroed() };
                h.msg_hdr.msg_iov = ptr::from_mut(v);
                h.msg_hdr.msg_iovlen = 1;
                h
            })
            .collect();
        Batch { buffer, slot, iovecs, headers }
    }

    /// Messages it holds.
    pub(crate) fn capacity(&self) -> usize {
        self.iovecs.len()
    }

    /// The bytes of message `i`, to write into; `len` of them will be sent.
    #[inline]
    pub(crate) fn message(&mut self, i: usize, len: usize) -> &mut [u8] {
        assert!(len <= self.slot);
        self.iovecs[i].iov_len = len;
        &mut self.buffer[i * self.slot..][..len]
    }

    /// Sends messages `from..to`; how many the kernel took (at least one).
    #[inline]
    pub(crate) fn send(&mut self, fd: RawFd, from: usize, to: usize) -> io::Result<usize> {
        let headers = &mut self.headers[from..to];
        // SAFETY: the headers are valid and exclusively borrowed; each points to one iovec of `self.iovecs`, whose base
        // is a slot of `self.buffer` and whose length `message` bounded by the slot. All live through the call; the
        // kernel reads the data and writes only msg_len.
        let n = unsafe {
            libc::sendmmsg(fd, headers.as_mut_ptr(), headers.len() as libc::c_uint, libc::MSG_DONTWAIT as _)
        };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsRawFd};

    use super::*;

    #[test]
    fn sends_the_chosen_messages() {
        let rx = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tx = UdpSocket::bind("127.0.0.1:0").unwrap();
        tx.connect(rx.local_addr().unwrap()).unwrap();
        let mut batch = Batch::new(3, 4);
        for i in 0..3u8 {
            batch.message(i.into(), usize::from(i) + 1).fill(i);
        }
        assert_eq!(batch.capacity(), 3);
        assert_eq!(batch.send(tx.as_raw_fd(), 1, 3).unwrap(), 2);
        let mut buf = [9; 16];
        assert_eq!(rx.recv(&mut buf).unwrap(), 2);
        assert_eq!(rx.recv(&mut buf).unwrap(), 3);
        assert_eq!(buf[..3], [2, 2, 2]);
    }
}
