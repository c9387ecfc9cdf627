//! The socket calls both the socket and the packet backend make, each wrapped once so that its `unsafe` is argued once.

use std::{
    io, mem,
    net::IpAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

use libc::{c_int, sock_filter, socklen_t};

/// socket(2) with close-on-exec.
pub(crate) fn open(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes no pointers; the result is checked before it is owned.
    let raw = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    check(raw)?;
    // SAFETY: `raw` is a fresh descriptor, returned to us a line above, that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// setsockopt(2) with an int.
pub(crate) fn set_int(fd: &OwnedFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    set_words(fd, level, name, &[value as u32])
}

/// setsockopt(2) with a structure that consists of 32-bit words.
pub(crate) fn set_words<const N: usize>(
    fd: &OwnedFd,
    level: c_int,
    name: c_int,
    words: &[u32; N],
) -> io::Result<()> {
    // SAFETY: pointer and length describe `words`, which the kernel only reads during the call. No option this crate
    // passes through here holds a pointer in its words.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            words.as_ptr().cast(),
            mem::size_of_val(words) as socklen_t,
        )
    })
}

/// getsockopt(2) of an int.
pub(crate) fn get_int(fd: &OwnedFd, level: c_int, name: c_int) -> io::Result<c_int> {
    Ok(get_words::<1>(fd, level, name)?[0] as c_int)
}

/// getsockopt(2) of a structure that consists of 32-bit words; words the kernel does not know stay 0.
pub(crate) fn get_words<const N: usize>(fd: &OwnedFd, level: c_int, name: c_int) -> io::Result<[u32; N]> {
    let mut words = [0u32; N];
    let mut length = mem::size_of_val(&words) as socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `words`, to `words`, and any bytes are valid u32s.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, words.as_mut_ptr().cast(), &raw mut length)
    })?;
    Ok(words)
}

/// Attaches a classic BPF program by `option` (SO_ATTACH_FILTER or SO_ATTACH_REUSEPORT_CBPF); replaces an earlier one
/// atomically.
pub(crate) fn attach_cbpf(fd: &OwnedFd, option: c_int, program: &[sock_filter]) -> io::Result<()> {
    set_program(fd, libc::SOL_SOCKET, option, program)
}

/// setsockopt(2) with a `struct sock_fprog`, for options of any level.
pub(crate) fn set_program(
    fd: &OwnedFd,
    level: c_int,
    option: c_int,
    program: &[sock_filter],
) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: `fprog` describes `program`; the kernel copies both during the call and writes to neither, so the cast
    // to a mutable pointer (the type of the C field) is never used to write.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const fprog).cast(),
            mem::size_of_val(&fprog) as socklen_t,
        )
    })
}

/// bind(2) of an IP socket. `scope`: index of the interface of a link-local IPv6 address (ipv6(7)), else 0.
pub(crate) fn bind_ip(fd: &OwnedFd, address: IpAddr, scope: u32, port: u16) -> io::Result<()> {
    match address {
        IpAddr::V4(a) => {
            let sin = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: port.to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.octets()) },
                sin_zero: [0; 8],
            };
            bind(fd, &sin)
        }
        IpAddr::V6(a) => {
            let sin6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: port.to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: a.octets() },
                sin6_scope_id: scope,
            };
            bind(fd, &sin6)
        }
    }
}

/// `struct group_source_req`; its first part up to `source` is `struct group_req` (linux/in.h).
#[repr(C)]
struct GroupRequest {
    interface: u32,
    pad: u32,
    group: libc::sockaddr_storage,
    source: libc::sockaddr_storage,
}

const MCAST_JOIN_GROUP: c_int = 42;
const MCAST_LEAVE_GROUP: c_int = 45;
const MCAST_JOIN_SOURCE_GROUP: c_int = 46;

/// Joins a multicast group on an interface (0: the kernel's routes decide), of one source or of all.
pub(crate) fn join_group(
    fd: &OwnedFd,
    group: IpAddr,
    interface: u32,
    source: Option<IpAddr>,
) -> io::Result<()> {
    let request =
        GroupRequest { interface, pad: 0, group: storage(group), source: storage(source.unwrap_or(group)) };
    let (option, length) = match source {
        Some(_) => (MCAST_JOIN_SOURCE_GROUP, mem::size_of_val(&request)),
        None => (MCAST_JOIN_GROUP, mem::offset_of!(GroupRequest, source)),
    };
    let level = if group.is_ipv4() { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
    // SAFETY: pointer and length describe `request` or its first part, which the kernel only reads during the call.
    check(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const request).cast(), length as socklen_t)
    })
}

/// Leaves a group that was joined on this interface, which may be gone.
pub(crate) fn leave_group(fd: &OwnedFd, group: IpAddr, interface: u32) -> io::Result<()> {
    let request = GroupRequest { interface, pad: 0, group: storage(group), source: storage(group) };
    let length = mem::offset_of!(GroupRequest, source) as socklen_t;
    let level = if group.is_ipv4() { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
    // SAFETY: pointer and length describe the first part of `request`, which the kernel only reads during the call.
    check(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, MCAST_LEAVE_GROUP, (&raw const request).cast(), length)
    })
}

fn storage(address: IpAddr) -> libc::sockaddr_storage {
    // SAFETY: sockaddr_storage is plain old data; all zero is valid.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    match address {
        IpAddr::V4(a) => {
            // SAFETY: a sockaddr_storage is as large and as aligned as any socket address.
            let sin = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in>() };
            sin.sin_family = libc::AF_INET as u16;
            sin.sin_addr.s_addr = u32::from_ne_bytes(a.octets());
        }
        IpAddr::V6(a) => {
            // SAFETY: as above.
            let sin6 = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in6>() };
            sin6.sin6_family = libc::AF_INET6 as u16;
            sin6.sin6_addr.s6_addr = a.octets();
        }
    }
    storage
}

/// bind(2) of an AF_PACKET socket to an interface, for every protocol.
pub(crate) fn bind_packet(fd: &OwnedFd, ifindex: u32) -> io::Result<()> {
    let sll = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    bind(fd, &sll)
}

/// `A` must be one of the sockaddr types; private, and called with those only.
fn bind<A>(fd: &OwnedFd, address: &A) -> io::Result<()> {
    // SAFETY: pointer and length describe `address`, which the kernel only reads during the call.
    check(unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const *address).cast(), mem::size_of::<A>() as socklen_t)
    })
}

/// ppoll(2); a signal counts as nothing ready.
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout: Duration) -> io::Result<usize> {
    let ts = libc::timespec {
        tv_sec: timeout.as_secs().min(i64::MAX as u64) as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: pointer and count describe `fds`, of which the kernel writes only `revents`; `ts` outlives the call; a
    // null signal mask leaves the mask alone.
    let n =
        unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, &raw const ts, std::ptr::null()) };
    match check(n) {
        Ok(()) => Ok(n as usize),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(e) => Err(e),
    }
}

/// A pollfd that waits for input.
pub(crate) fn pollin(fd: &OwnedFd) -> libc::pollfd {
    libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }
}

fn check(rc: c_int) -> io::Result<()> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
