//! Real sockets that the kernel steers datagrams to: a fanout group on an interface, and a reuseport group.

use std::{
    io, mem,
    net::IpAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

const PACKET_FANOUT: i32 = 18;
const PACKET_FANOUT_DATA: i32 = 22;
const PACKET_FANOUT_CBPF: u32 = 6;
const FLAG_UNIQUEID: u32 = 0x2000;
const FLAG_IGNORE_OUTGOING: u32 = 0x4000;
const SO_ATTACH_REUSEPORT_CBPF: i32 = 51;

/// Sockets of one group, by index.
pub struct Group {
    sockets: Vec<OwnedFd>,
    /// Level and option that take a program.
    attach: (i32, i32),
}

fn socket(family: i32, kind: i32) -> OwnedFd {
    // SAFETY: plain socket(2); the result is checked before it is owned.
    let raw = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    assert!(raw >= 0, "socket: {}", io::Error::last_os_error());
    // SAFETY: `raw` is a fresh descriptor that nothing else owns.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

fn set<T: ?Sized>(fd: &OwnedFd, level: i32, option: i32, value: &T) {
    let length = mem::size_of_val(value) as libc::socklen_t;
    // SAFETY: pointer and length describe `value`, which outlives the call; the kernel only reads it, and what a
    // `sock_fprog` points to, which its maker keeps alive.
    let rc = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const *value).cast(), length) };
    assert_eq!(rc, 0, "setsockopt {level}/{option}: {}", io::Error::last_os_error());
}

fn bind<T>(fd: &OwnedFd, address: &T) {
    // SAFETY: pointer and length describe `address`, which outlives the call.
    let rc = unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const *address).cast(), mem::size_of::<T>() as libc::socklen_t)
    };
    assert_eq!(rc, 0, "bind: {}", io::Error::last_os_error());
}

impl Group {
    /// AF_PACKET sockets on an interface of the calling thread's namespace, which hand out packets from the network
    /// header on.
    pub fn fanout(interface: &str, members: u16) -> Self {
        let name = std::ffi::CString::new(interface).unwrap();
        // SAFETY: a NUL-terminated name; the call only reads it.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        assert_ne!(index, 0, "no interface {interface}");
        let mut id = 0;
        let sockets = (0..members)
            .map(|member| {
                let fd = socket(libc::AF_PACKET, libc::SOCK_DGRAM);
                // SAFETY: sockaddr_ll is plain old data; all zero is valid.
                let mut sll: libc::sockaddr_ll = unsafe { mem::zeroed() };
                sll.sll_family = libc::AF_PACKET as u16;
                sll.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
                sll.sll_ifindex = index as i32;
                bind(&fd, &sll);
                let flags = FLAG_IGNORE_OUTGOING | if member == 0 { FLAG_UNIQUEID } else { 0 };
                set(&fd, libc::SOL_PACKET, PACKET_FANOUT, &(id | (PACKET_FANOUT_CBPF | flags) << 16));
                if member == 0 {
                    let mut length = 4 as libc::socklen_t;
                    // SAFETY: the kernel writes at most `length` bytes to `id`.
                    let rc = unsafe {
                        libc::getsockopt(
                            fd.as_raw_fd(),
                            libc::SOL_PACKET,
                            PACKET_FANOUT,
                            (&raw mut id).cast(),
                            &raw mut length,
                        )
                    };
                    assert_eq!(rc, 0, "fanout id: {}", io::Error::last_os_error());
                    id &= 0xffff;
                }
                fd
            })
            .collect();
        Group { sockets, attach: (libc::SOL_PACKET, PACKET_FANOUT_DATA) }
    }

    /// UDP sockets on one port, for both families.
    pub fn reuseport(port: u16, members: u16) -> Self {
        let sockets = (0..members)
            .map(|_| {
                let fd = socket(libc::AF_INET6, libc::SOCK_DGRAM);
                set(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &0i32);
                set(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1i32);
                bind(&fd, &v6_address(std::net::Ipv6Addr::UNSPECIFIED, port));
                fd
            })
            .collect();
        Group { sockets, attach: (libc::SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF) }
    }

    /// Replaces the group's program.
    pub fn attach(&self, program: &[libc::sock_filter]) {
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        set(&self.sockets[0], self.attach.0, self.attach.1, &program);
    }

    /// The index of the socket that got `want`, which is tried at `expected` first.
    pub fn find(&self, want: &[u8], expected: Option<u16>) -> Option<usize> {
        const LATE: Duration = Duration::from_secs(2);
        const LOST: Duration = Duration::from_secs(60);
        let start = Instant::now();
        let has = |index: &usize| self.take(*index).iter().any(|got| got == want);
        loop {
            let late = start.elapsed() > LATE;
            // The other sockets are read only when it is late, because each read is a system call.
            let found = match expected {
                Some(index) if !late => Some(usize::from(index)).filter(has),
                _ => (0..self.sockets.len()).find(has),
            };
            if found.is_some() || start.elapsed() > LOST {
                return found;
            }
            std::thread::yield_now();
        }
    }

    /// What waits at a socket.
    fn take(&self, index: usize) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut buffer = [0u8; 2048];
        loop {
            // SAFETY: pointer and length describe `buffer`, which outlives the call.
            let n = unsafe {
                libc::recv(self.sockets[index].as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
            };
            let Ok(n) = usize::try_from(n) else { return out };
            out.push(buffer[..n].to_vec());
        }
    }

    /// Everything that waits anywhere.
    pub fn left(&self) -> Vec<Vec<u8>> {
        (0..self.sockets.len()).flat_map(|i| self.take(i)).collect()
    }
}

fn v6_address(ip: std::net::Ipv6Addr, port: u16) -> libc::sockaddr_in6 {
    // SAFETY: sockaddr_in6 is plain old data; all zero is valid.
    let mut address: libc::sockaddr_in6 = unsafe { mem::zeroed() };
    address.sin6_family = libc::AF_INET6 as u16;
    address.sin6_port = port.to_be();
    address.sin6_addr.s6_addr = ip.octets();
    address
}

fn v4_address(ip: std::net::Ipv4Addr, port: u16) -> libc::sockaddr_in {
    // SAFETY: sockaddr_in is plain old data; all zero is valid.
    let mut address: libc::sockaddr_in = unsafe { mem::zeroed() };
    address.sin_family = libc::AF_INET as u16;
    address.sin_port = port.to_be();
    address.sin_addr.s_addr = u32::from(ip).to_be();
    address
}

/// Sends one datagram from one local address to another, with IPv4 options.
pub fn send(src: (IpAddr, u16), dst: (IpAddr, u16), options: &[u8], payload: &[u8]) {
    fn to<T>(fd: &OwnedFd, address: &T, payload: &[u8]) {
        // SAFETY: both pointers and lengths describe slices and values that outlive the call.
        let n = unsafe {
            libc::sendto(
                fd.as_raw_fd(),
                payload.as_ptr().cast(),
                payload.len(),
                0,
                (&raw const *address).cast(),
                mem::size_of::<T>() as libc::socklen_t,
            )
        };
        assert_eq!(n, payload.len() as isize, "sendto: {}", io::Error::last_os_error());
    }
    match (src.0, dst.0) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let fd = socket(libc::AF_INET, libc::SOCK_DGRAM);
            bind(&fd, &v4_address(s, src.1));
            if !options.is_empty() {
                set(&fd, libc::IPPROTO_IP, libc::IP_OPTIONS, options);
            }
            to(&fd, &v4_address(d, dst.1), payload);
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let fd = socket(libc::AF_INET6, libc::SOCK_DGRAM);
            bind(&fd, &v6_address(s, src.1));
            to(&fd, &v6_address(d, dst.1), payload);
        }
        mixed => panic!("{mixed:?}"),
    }
}
