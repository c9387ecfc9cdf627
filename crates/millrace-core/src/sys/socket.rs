//! Sockets: socket(2), bind(2), setsockopt(2) and getsockopt(2), each wrapped once so that its `unsafe` is argued once.

use std::{
    io, mem,
    net::IpAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use libc::{c_int, sock_filter, socklen_t};

use super::errno::ok_or_errno;

/// Opens a socket with close-on-exec (socket(2)). `kind` may carry SOCK_NONBLOCK. It belongs to the network namespace of
/// the calling thread.
pub(crate) fn open(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes no pointers; the result is checked before it is owned.
    let raw = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    ok_or_errno(raw)?;
    // SAFETY: `raw` is the descriptor that socket(2) has just made, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A UDP socket of IPv4, bound to nothing: to query the kernel, or to find out whether it accepts an option.
pub(crate) fn open_udp_v4() -> io::Result<OwnedFd> {
    open(libc::AF_INET, libc::SOCK_DGRAM, 0)
}

/// False on a kernel built or booted without IPv6 (ipv6(7)).
pub(crate) fn kernel_has_ipv6() -> bool {
    open(libc::AF_INET6, libc::SOCK_DGRAM, 0).is_ok()
}

/// Sets an option to a C structure (setsockopt(2)).
///
/// # Safety
/// `T` must be the structure that the option takes. Where it holds addresses, the memory that they name must be valid for what
/// the kernel does with it, and for as long as the kernel does so.
pub(crate) unsafe fn set_option<T>(fd: &OwnedFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: pointer and length describe `value`, which outlives the call and which the kernel only reads. What it does with
    // memory that `value` names is the caller's part.
    ok_or_errno(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const *value).cast(),
            mem::size_of::<T>() as socklen_t,
        )
    })
}

/// Sets an option to an int (setsockopt(2); the options are those of socket(7), ip(7), ipv6(7), udp(7) and packet(7)).
pub(crate) fn set_int(fd: &OwnedFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: an int names no memory, and an option that takes a structure refuses the length of an int (EINVAL).
    unsafe { set_option(fd, level, name, &value) }
}

/// Sets an option of a packet socket to a structure of 32-bit words, such as `tpacket_req` (packet(7), setsockopt(2)).
pub(crate) fn set_packet_words<const N: usize>(
    fd: &OwnedFd,
    name: c_int,
    words: &[u32; N],
) -> io::Result<()> {
    // SAFETY: the options of SOL_PACKET are numbers and structures of numbers. Only PACKET_FANOUT_DATA takes an address, and
    // from there the kernel copies a program during the call, or fails with EFAULT (net/packet/af_packet.c,
    // `packet_setsockopt`). None makes it keep an address or write to one.
    unsafe { set_option(fd, libc::SOL_PACKET, name, words) }
}

/// Reads an option that is an int (getsockopt(2)).
pub(crate) fn get_int(fd: &OwnedFd, level: c_int, name: c_int) -> io::Result<c_int> {
    Ok(get_words::<1>(fd, level, name)?[0] as c_int)
}

/// Reads an option that is a structure of 32-bit words, such as SO_MEMINFO or packet(7)'s PACKET_STATISTICS
/// (getsockopt(2)). Words that this kernel does not have stay 0.
pub(crate) fn get_words<const N: usize>(fd: &OwnedFd, level: c_int, name: c_int) -> io::Result<[u32; N]> {
    let mut words = [0u32; N];
    let mut length = mem::size_of_val(&words) as socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `words`, to `words`, and any bytes are valid u32s.
    ok_or_errno(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, words.as_mut_ptr().cast(), &raw mut length)
    })?;
    Ok(words)
}

/// Attaches a classic BPF program by `option`, which is SO_ATTACH_FILTER or SO_ATTACH_REUSEPORT_CBPF (socket(7)). It
/// replaces an earlier program in one step.
///
/// # Errors
/// Those of setsockopt(2): ENOMEM when the kernel's form of the program exceeds net.core.optmem_max, EINVAL when it is
/// no valid program.
pub(crate) fn attach_cbpf(fd: &OwnedFd, option: c_int, program: &[sock_filter]) -> io::Result<()> {
    set_program(fd, libc::SOL_SOCKET, option, program)
}

/// Gives a classic BPF program to the fanout group of a packet socket (PACKET_FANOUT_DATA, packet(7)). It replaces an
/// earlier program in one step.
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn set_fanout_cbpf(fd: &OwnedFd, program: &[sock_filter]) -> io::Result<()> {
    set_program(fd, libc::SOL_PACKET, libc::PACKET_FANOUT_DATA, program)
}

/// Sets an option of SOL_SOCKET or SOL_PACKET to a classic BPF program, a `struct sock_fprog` (setsockopt(2)).
fn set_program(fd: &OwnedFd, level: c_int, option: c_int, program: &[sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: an option that takes a `sock_fprog` names `program` by it, which outlives the call. Although the C field points
    // to mutable memory, the kernel only copies from it, during the call (net/core/filter.c, `__get_filter`). Any other option
    // of these levels would read numbers.
    unsafe { set_option(fd, level, option, &fprog) }
}

/// Binds an IP socket (bind(2), ip(7)). `scope` is the index of the interface of a link-local IPv6 address (ipv6(7)), else
/// 0; `port` is in host order.
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

/// Binds an AF_PACKET socket to the interface with this index, for every protocol (packet(7)).
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

/// bind(2). `A` must be one of the `sockaddr_*` structures.
fn bind<A>(fd: &OwnedFd, address: &A) -> io::Result<()> {
    // SAFETY: pointer and length describe `address`, which outlives the call and which the kernel only reads.
    ok_or_errno(unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const *address).cast(), mem::size_of::<A>() as socklen_t)
    })
}
