//! Sockets and their options.

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// socket(2), close-on-exec.
pub(crate) fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: three integers; the result is checked before it is owned.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` is a fresh descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// C data without pointers or padding that matters, for which any bit pattern is valid.
///
/// # Safety
/// Implementors must be `repr(C)` integers-only data.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: a C integer.
unsafe impl Plain for libc::c_int {}
// SAFETY: `repr(C)` structure of integers.
unsafe impl Plain for libc::sockaddr_in {}
// SAFETY: `repr(C)` structure of integers.
unsafe impl Plain for libc::sockaddr_in6 {}
// SAFETY: `repr(C)` structure of integers.
unsafe impl Plain for libc::sockaddr_ll {}
// SAFETY: `repr(C)` structure of integers.
unsafe impl Plain for libc::sockaddr_xdp {}
// SAFETY: `repr(C)` structure of integers (the address is passed as a number).
unsafe impl Plain for libc::xdp_umem_reg {}

/// setsockopt(2).
pub(crate) fn set_option<T: Plain>(fd: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: pointer and length describe `value`, which outlives the call; the kernel only reads it. `T` is plain data.
    // An address inside an xdp_umem_reg is checked by the kernel, which pins the pages; the owner of that area
    // (xsk::Umem) keeps it mapped for as long as the socket lives.
    let rc = unsafe {
        libc::setsockopt(fd, level, name, (&raw const *value).cast(), mem::size_of::<T>() as libc::socklen_t)
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// SO_BINDTODEVICE.
pub(crate) fn bind_to_device(fd: RawFd, name: &str) -> io::Result<()> {
    // SAFETY: pointer and length describe `name`; the kernel reads at most IFNAMSIZ bytes of it.
    let rc = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// bind(2) to a plain socket address.
pub(crate) fn bind<T: Plain>(fd: RawFd, address: &T) -> io::Result<()> {
    // SAFETY: pointer and length describe `address`, which outlives the call; the kernel only reads it.
    let rc = unsafe { libc::bind(fd, (&raw const *address).cast(), mem::size_of::<T>() as libc::socklen_t) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An AF_PACKET socket bound to an interface. Protocol 0: it never receives, so nothing taps the traffic.
pub(crate) fn packet_socket(ifindex: u32, bypass: bool) -> io::Result<OwnedFd> {
    let fd = socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    let sll = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    bind(fd.as_raw_fd(), &sll)?;
    if bypass {
        set_option(fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1)?;
    }
    Ok(fd)
}

/// Waits up to `ms` milliseconds until `fd` is writable.
pub(crate) fn wait_writable(fd: RawFd, ms: i32) {
    let mut p = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid pollfd. Any outcome is fine: the caller tries again.
    unsafe { libc::poll(&raw mut p, 1, ms) };
}
