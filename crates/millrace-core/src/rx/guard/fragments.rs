//! Datagrams that the kernel reassembled from fragments, and how a socket learns of it.

use std::{io, os::fd::OwnedFd};

use crate::{rx::socket::control::Control, sys::socket};

/// IPv6 header, fragment header and UDP header, bytes: what an atomic fragment has besides its payload.
const ATOMIC_FRAGMENT_OVERHEAD: usize = 40 + 8 + 8;

/// Makes the kernel name with each datagram the size of the largest fragment that it was reassembled from (IP_RECVFRAGSIZE,
/// IPV6_RECVFRAGSIZE: linux/in.h and linux/in6.h, since Linux 4.10).
pub(super) fn report_fragment_sizes(fd: &OwnedFd, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        socket::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVFRAGSIZE, 1)
    } else {
        socket::set_int(fd, libc::IPPROTO_IP, libc::IP_RECVFRAGSIZE, 1)
    }
}

/// Asks whether this kernel can name the sizes of IPv4 fragments.
///
/// # Errors
/// The kernel's refusal, when it cannot.
pub(super) fn try_fragment_sizes_ipv4() -> io::Result<()> {
    report_fragment_sizes(&socket::open_udp_v4()?, false)
}

/// True when the kernel reassembled the datagram.
///
/// For IPv6 the kernel names a fragment size for an atomic fragment too (RFC 6946: a fragment header, but a whole
/// datagram), which the ring's parser takes. The selection program keeps those away, but for broadcast and multicast,
/// which pass it by. There the "fragment" is as large as the datagram with all its headers, while a real fragment is
/// smaller. Extension headers are not known here: with some, a datagram hardly longer than one fragment is missed.
pub(super) fn is_reassembled(control: &Control, payload_bytes: usize) -> bool {
    let v4 = control.fragment_size_v4.is_some_and(|size| size > 0);
    let v6 = control.fragment_size_v6.is_some_and(|size| {
        let whole = payload_bytes + ATOMIC_FRAGMENT_OVERHEAD;
        size > 0 && (!control.broadcast_or_multicast || (size as usize) < whole)
    });
    v4 || v6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_atomic_fragment_is_not_reassembled() {
        let c = |size| Control { fragment_size_v6: size, broadcast_or_multicast: true, ..Control::default() };
        assert!(!is_reassembled(&c(None), 4000));
        assert!(is_reassembled(&c(Some(1496)), 4000));
        assert!(!is_reassembled(&c(Some(1400 + 56)), 1400));
        // With extension headers a fragment may be longer than that.
        assert!(is_reassembled(&Control { broadcast_or_multicast: false, ..c(Some(1280)) }, 1216));
        // IPv4 has no such thing, and a fragment with options may be longer than the datagram it is of.
        let v4 = Control { fragment_size_v4: Some(76), ..Control::default() };
        assert!(is_reassembled(&v4, 9));
    }
}
