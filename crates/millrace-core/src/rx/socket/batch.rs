//! The memory that one recvmmsg(2) call writes to, allocated once.
//!
//! There are 64 messages, each with a slot that can hold any UDP payload, because a UDP_GRO super-packet may be as large as
//! 64 KiB. That reserves about 4.2 MiB of address space for each receiver, but a page of a slot becomes resident only when
//! a datagram reaches it: with ordinary datagrams that is one page for each slot, 256 KiB in all. The bound is fixed, and
//! nothing grows with traffic. Slots are not a power of two apart, or all slot starts would share one cache set.

use std::{
    io, mem,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

use super::control::CONTROL_WORDS;
use crate::datagram::Addr;

/// Most messages taken by one recvmmsg call. Fewer cost more system calls under load; more make the other sockets of the
/// thread wait longer, and reserve more memory.
pub(crate) const MESSAGES: usize = 64;
/// Bytes of a slot. The largest payload of a datagram or super-packet is shorter, so that none is cut off.
pub(crate) const SLOT_BYTES: usize = 65_536;
/// Distance between slot starts, bytes: 17 cache lines more than a slot. 17 is odd, so that slot starts spread over all
/// cache sets.
const SLOT_STRIDE: usize = SLOT_BYTES + 17 * 64;

/// A heap array that the kernel writes to through pointers kept in other arrays. It is held as a raw pointer because a `Box`
/// would claim to be the only way to its contents.
struct Region<T>(ptr::NonNull<[T]>);

impl<T: Copy> Region<T> {
    fn new(value: T, count: usize) -> Self {
        Region(ptr::NonNull::from(Box::leak(vec![value; count].into_boxed_slice())))
    }

    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.0.len());
        // SAFETY: the index was checked against the length of the live allocation.
        unsafe { self.0.as_ptr().cast::<T>().add(index) }
    }
}

impl<T> Drop for Region<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a leaked Box in `new`, is freed only here, and no borrow of it outlives self.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Buffers, addresses and control bytes for [`MESSAGES`] messages.
pub(crate) struct Batch {
    slots: Region<u8>,
    control: Region<[u64; CONTROL_WORDS]>,
    names: Region<libc::sockaddr_in6>,
    _iovecs: Region<libc::iovec>,
    headers: Region<libc::mmsghdr>,
    /// Messages of the last [`Batch::fill`].
    used: usize,
}

// SAFETY: the regions are plain memory owned by this value alone; the raw pointers in `headers` and `_iovecs` point
// into sibling regions, which move with it (heap addresses do not change when the value moves to another thread).
unsafe impl Send for Batch {}

/// One received message.
pub(crate) struct Message<'a> {
    /// Payload; several datagrams when UDP_GRO merged them.
    pub(crate) payload: &'a [u8],
    /// Control bytes.
    pub(crate) control: &'a [u8],
    /// Source address; an IPv4 address is mapped.
    pub(crate) src: Addr,
    /// Source port, host order.
    pub(crate) src_port: u16,
    /// Payload or control bytes did not fit (MSG_TRUNC, MSG_CTRUNC).
    pub(crate) truncated: bool,
}

impl Batch {
    pub(crate) fn new() -> Self {
        // SAFETY: these are C structures of integers and nullable pointers, for which all-zero is a valid value.
        let (name, header): (libc::sockaddr_in6, libc::mmsghdr) = unsafe { (mem::zeroed(), mem::zeroed()) };
        let slots = Region::new(0u8, SLOT_STRIDE * MESSAGES);
        let control = Region::new([0u64; CONTROL_WORDS], MESSAGES);
        let names = Region::new(name, MESSAGES);
        let empty = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let iovecs = Region::new(empty, MESSAGES);
        let headers = Region::new(header, MESSAGES);
        for i in 0..MESSAGES {
            let iovec = libc::iovec { iov_base: slots.at(i * SLOT_STRIDE).cast(), iov_len: SLOT_BYTES };
            // SAFETY: `at` gave pointers to live, aligned elements, and nothing else refers to them yet.
            unsafe {
                *iovecs.at(i) = iovec;
                let h = &mut (*headers.at(i)).msg_hdr;
                h.msg_name = names.at(i).cast();
                h.msg_iov = iovecs.at(i);
                h.msg_iovlen = 1;
                h.msg_control = control.at(i).cast();
            }
        }
        Batch { slots, control, names, _iovecs: iovecs, headers, used: MESSAGES }
    }

    /// Reads what the socket holds now, at most [`MESSAGES`], without waiting. Returns how many messages there are.
    ///
    /// # Errors
    /// Those of recvmmsg(2): EAGAIN when there is none.
    pub(crate) fn fill(&mut self, fd: &OwnedFd) -> io::Result<usize> {
        // The kernel wrote the sizes it used into the headers it filled; each call must be given the capacities again.
        for i in 0..self.used {
            // SAFETY: a live element of `headers`; `&mut self` means that no `Message` borrows the batch.
            let h = unsafe { &mut (*self.headers.at(i)).msg_hdr };
            h.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            h.msg_controllen = (CONTROL_WORDS * 8) as _;
            h.msg_flags = 0;
        }
        self.used = 0;
        // SAFETY: `headers` holds MESSAGES headers whose names, iovecs and control pointers describe live regions of
        // exactly the stated sizes (set above and in `new`); `&mut self` excludes every borrow of them; a null timeout
        // is allowed, and MSG_DONTWAIT means the call does not block.
        let n = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.at(0),
                MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        self.used = n as usize;
        Ok(self.used)
    }

    /// Message `i` of the last [`Batch::fill`].
    ///
    /// # Panics
    /// When `i` is not below what `fill` returned.
    pub(crate) fn message(&self, i: usize) -> Message<'_> {
        assert!(i < self.used);
        // SAFETY: live elements; the kernel is done with them since `fill` returned, and `&self` keeps the next `fill`
        // away while the result borrows them.
        let (header, name) = unsafe { (&*self.headers.at(i), &*self.names.at(i)) };
        let length = (header.msg_len as usize).min(SLOT_BYTES);
        let control = header.msg_hdr.msg_controllen.min(CONTROL_WORDS * 8);
        // SAFETY: slot `i` is SLOT_BYTES long and initialised (zeroed, then written by the kernel), the control area
        // CONTROL_WORDS × 8 bytes; both lengths were clamped to that. Shared borrows only, as above.
        let (payload, control) = unsafe {
            (
                std::slice::from_raw_parts(self.slots.at(i * SLOT_STRIDE), length),
                std::slice::from_raw_parts(self.control.at(i).cast::<u8>(), control),
            )
        };
        let (src, src_port) = source(name);
        let truncated = header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
        Message { payload, control, src, src_port, truncated }
    }
}

/// Address and port of the sender. An IPv4 socket writes a `sockaddr_in` into the same memory, whose address lies where
/// `sockaddr_in6` has its flow label.
fn source(name: &libc::sockaddr_in6) -> (Addr, u16) {
    let port = u16::from_be(name.sin6_port);
    if i32::from(name.sin6_family) == libc::AF_INET {
        (Addr::from_v4(name.sin6_flowinfo.to_ne_bytes()), port)
    } else {
        (Addr(name.sin6_addr.s6_addr), port)
    }
}

const _: () = assert!(
    mem::offset_of!(libc::sockaddr_in, sin_port) == mem::offset_of!(libc::sockaddr_in6, sin6_port)
        && mem::offset_of!(libc::sockaddr_in, sin_addr) == mem::offset_of!(libc::sockaddr_in6, sin6_flowinfo)
);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn takes_datagrams_of_every_size_and_comes_back_empty() {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = b.local_addr().unwrap();
        let b = OwnedFd::from(b);
        let mut batch = Batch::new();
        assert!(batch.fill(&b).is_err());
        for round in 0..3 {
            for size in [0usize, 1, 1472, 65_507] {
                a.send_to(&vec![round; size], to).unwrap();
            }
            assert_eq!(batch.fill(&b).unwrap(), 4);
            for (i, size) in [0usize, 1, 1472, 65_507].into_iter().enumerate() {
                let m = batch.message(i);
                assert_eq!(m.payload, vec![round; size]);
                assert_eq!(
                    (m.src, m.src_port),
                    (Addr::from_v4([127, 0, 0, 1]), a.local_addr().unwrap().port())
                );
                assert!(!m.truncated && m.control.is_empty());
            }
        }
    }
}
