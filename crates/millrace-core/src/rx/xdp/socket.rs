//! The AF_XDP socket: packet memory registered, rings made and mapped, bound to one rx queue (af_xdp.rst, if_xdp.h).

use std::{
    io, mem,
    ops::Add,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    ring::{ConsumerRing, Offsets, ProducerRing},
    umem::{Frame, RxDescriptor, Umem},
};
use crate::{
    error::{Code, Error, Result},
    net::Interface,
    sys::{self, mapping::Mapping},
};

/// Entries of the completion ring. It is for sending, which is not done here, but bind(2) is refused without one.
const COMPLETION_ENTRIES: u32 = 2;
/// How long the first opening retries bind(2) while the rx queue is taken. The kernel frees a closed socket's rx queue after
/// an RCU grace period: milliseconds, on a loaded host hundreds. Too low, and a restart fails because of its predecessor;
/// too high, and a start on an rx queue that another program keeps is slow to say so.
pub(super) const BIND_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause between two tries of bind(2). Lower, it takes the RTNL more often than it helps; higher, it delays the start.
const BIND_RETRY_INTERVAL: Duration = Duration::from_millis(2);
/// Pause after a ppoll(2) that returned at once with an error event alone. With none, a standing error would make the
/// caller spin on a CPU; frames that arrive during a long one would wait for its end.
const ERROR_PAUSE: Duration = Duration::from_millis(1);

/// Sleeps until one of these sockets has a frame or the time is over. Returns true when one has.
///
/// # Errors
/// [`Code::Kernel`].
pub(super) fn wait_any(polled: &mut [libc::pollfd], timeout: Duration) -> Result<bool> {
    match sys::poll::ppoll(polled, timeout) {
        Ok(_) => {}
        // ppoll(2): the kernel had no memory for the moment.
        Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => return Ok(false),
        Err(e) => return Err(Error::os(Code::Kernel, "waiting on an AF_XDP socket (ppoll)", e)),
    }
    let events = polled.iter().fold(0, |all, p| all | p.revents);
    // An error event without POLLIN is no progress.
    if events != 0 && events & libc::POLLIN == 0 {
        thread::sleep(timeout.min(ERROR_PAUSE));
    }
    Ok(events & libc::POLLIN != 0)
}

/// The six counters of XDP_STATISTICS (af_xdp.rst), cumulative since the socket was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct XskStatistics {
    /// Frames for this socket dropped because no fill entry was there, or because they were longer than a frame.
    pub rx_dropped: u64,
    /// Entries of the fill ring that the kernel refused as outside the UMEM: always a fault of this crate.
    pub rx_invalid_descs: u64,
    /// Refused entries of the tx ring; always 0, because nothing is sent.
    pub tx_invalid_descs: u64,
    /// Frames dropped because the rx ring was full.
    pub rx_ring_full: u64,
    /// Times the fill ring was found empty; in copy mode each is also in `rx_dropped`.
    pub rx_fill_ring_empty: u64,
    /// Times the tx ring was found empty; it says nothing here, because nothing is sent.
    pub tx_ring_empty: u64,
}

impl Add for XskStatistics {
    type Output = Self;

    fn add(self, o: Self) -> Self {
        XskStatistics {
            rx_dropped: self.rx_dropped + o.rx_dropped,
            rx_invalid_descs: self.rx_invalid_descs + o.rx_invalid_descs,
            tx_invalid_descs: self.tx_invalid_descs + o.tx_invalid_descs,
            rx_ring_full: self.rx_ring_full + o.rx_ring_full,
            rx_fill_ring_empty: self.rx_fill_ring_empty + o.rx_fill_ring_empty,
            tx_ring_empty: self.tx_ring_empty + o.tx_ring_empty,
        }
    }
}

/// A socket with its two rings. Field order matters: the rings are unmapped before the descriptor is closed, because a
/// closed socket whose rings are still mapped lives on and, if in an XSKMAP, swallows frames.
#[derive(Debug)]
pub struct XskSocket {
    /// Descriptors of received frames.
    pub(super) rx: ConsumerRing<RxDescriptor>,
    /// Frames for the kernel to write to.
    pub(super) fill: ProducerRing<Frame>,
    fd: OwnedFd,
}

impl XskSocket {
    /// Makes a socket on `umem` with rx and fill rings of `entries` (a power of two). It is not bound yet, because some
    /// drivers need the fill ring filled before.
    ///
    /// # Errors
    /// [`Code::Permission`], [`Code::Unsupported`], [`Code::Kernel`].
    pub fn new(umem: &Umem, entries: u32) -> Result<Self> {
        let fd = new_socket()?;
        register(&fd, umem).map_err(|e| umem.registration_error(e))?;
        for (name, option, size) in [
            ("fill", libc::XDP_UMEM_FILL_RING, entries),
            ("completion", libc::XDP_UMEM_COMPLETION_RING, COMPLETION_ENTRIES),
            ("rx", libc::XDP_RX_RING, entries),
        ] {
            sys::socket::set_int(&fd, libc::SOL_XDP, option, size as libc::c_int).map_err(|e| {
                Error::os(Code::Kernel, format!("making the {name} ring of {size} entries (AF_XDP)"), e)
            })?;
        }
        // SAFETY: xdp_mmap_offsets is all integers; zero is valid.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { mem::zeroed() };
        // SAFETY: the option is this structure of integers.
        let got = unsafe { get_option(&fd, libc::XDP_MMAP_OFFSETS, &mut offsets) }
            .map_err(|e| Error::os(Code::Kernel, "reading XDP_MMAP_OFFSETS", e))?;
        if got != mem::size_of_val(&offsets) {
            // The shorter struct has no flags words, so need_wakeup would not work.
            return Err(Error::new(Code::Unsupported, "AF_XDP of this kernel is older than Linux 5.4"));
        }
        let rx_map = map_ring::<RxDescriptor>(&fd, &offsets.rx, entries, libc::XDP_PGOFF_RX_RING as u64)?;
        let fill_map = map_ring::<Frame>(&fd, &offsets.fr, entries, libc::XDP_UMEM_PGOFF_FILL_RING)?;
        // SAFETY: the kernel just made these rings of `entries` entries at these offsets for this socket, and the mappings
        // belong to this value alone. RxDescriptor and Frame are transparent wrappers of the entries' types, xdp_desc and
        // u64, of integers alone.
        let (rx, fill) = unsafe {
            (
                ConsumerRing::new(rx_map, offsets_of(&offsets.rx), entries),
                ProducerRing::new(fill_map, offsets_of(&offsets.fr), entries),
            )
        };
        Ok(XskSocket { rx, fill, fd })
    }

    /// Binds to one rx queue. The mode is always named: with flags 0 the kernel would choose, and on some drivers choose
    /// what fails later. With `multi_buffer` a packet may come in several descriptors (XDP_USE_SG, Linux 6.6). While another
    /// socket has the rx queue, bind(2) is retried for `timeout`; with 0 it is tried once.
    ///
    /// # Errors
    /// [`Code::Busy`] when another socket has the queue, [`Code::Interface`], [`Code::Unsupported`], [`Code::Kernel`].
    pub fn bind(
        &self,
        interface: &Interface,
        queue: u32,
        zero_copy: bool,
        multi_buffer: bool,
        timeout: Duration,
    ) -> Result<()> {
        let mode = if zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
        let multi_buffer = if multi_buffer { libc::XDP_USE_SG } else { 0 };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: mode | multi_buffer | libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: interface.index,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        let deadline = Instant::now() + timeout;
        loop {
            let Err(e) = bind_to(&self.fd, &address) else { return Ok(()) };
            if e.raw_os_error() != Some(libc::EBUSY) || Instant::now() >= deadline {
                return Err(bind_error(interface, queue, zero_copy, e));
            }
            thread::sleep(BIND_RETRY_INTERVAL);
        }
    }

    /// Whether the kernel granted zero-copy (XDP_OPTIONS).
    ///
    /// # Errors
    /// [`Code::Kernel`].
    pub fn zero_copy(&self) -> Result<bool> {
        let mut options = libc::xdp_options { flags: 0 };
        // SAFETY: the option is this structure of integers.
        unsafe { get_option(&self.fd, libc::XDP_OPTIONS, &mut options) }
            .map_err(|e| Error::os(Code::Kernel, "reading XDP_OPTIONS", e))?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// Reads XDP_STATISTICS. Kernels before 5.9 know three of the six; the others stay 0.
    ///
    /// # Errors
    /// [`Code::Kernel`].
    pub fn statistics(&self) -> Result<XskStatistics> {
        // SAFETY: xdp_statistics is all integers; zero is valid.
        let mut s: libc::xdp_statistics = unsafe { mem::zeroed() };
        // SAFETY: the option is this structure of integers.
        unsafe { get_option(&self.fd, libc::XDP_STATISTICS, &mut s) }
            .map_err(|e| Error::os(Code::Kernel, "reading XDP_STATISTICS", e))?;
        Ok(XskStatistics {
            rx_dropped: s.rx_dropped,
            rx_invalid_descs: s.rx_invalid_descs,
            tx_invalid_descs: s.tx_invalid_descs,
            rx_ring_full: s.rx_ring_full,
            rx_fill_ring_empty: s.rx_fill_ring_empty_descs,
            tx_ring_empty: s.tx_ring_empty_descs,
        })
    }

    /// Makes the kernel read the fill ring, and drives busy-polling where it is on. This takes recvfrom(2):
    /// `xsk_poll` never busy-polls, and sendto(2) fails without a tx ring. The answer (EAGAIN, ENETDOWN, EBUSY …) is of no
    /// consequence, because the next pass tries again.
    pub fn wake(&self) {
        // SAFETY: a null buffer of length zero is never written to.
        unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
    }

    /// Returns the argument of [`wait_any`] for this socket.
    pub(super) fn pollfd(&self) -> libc::pollfd {
        sys::poll::for_input(&self.fd)
    }

    /// The descriptor, for options of other levels than SOL_XDP.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Takes the socket's pending error by SO_ERROR, which clears it. ENETDOWN means that the interface was removed; a link
    /// that is merely down is no error of the socket. poll(2) does not show it: `xsk_poll` returns no event at all for a
    /// socket that lost its device.
    pub fn take_error(&self) -> Option<io::Error> {
        let errno = sys::socket::get_int(&self.fd, libc::SOL_SOCKET, libc::SO_ERROR).ok()?;
        (errno != 0).then(|| io::Error::from_raw_os_error(errno))
    }
}

impl AsFd for XskSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether sockets of this kernel take packets of several descriptors (XDP_USE_SG, Linux 6.6). Older kernels take an XDP
/// program for such packets (Linux 5.18) and then refuse every socket. `xsk_bind` examines the flags first and the
/// interface, here none, later: an unknown flag is EINVAL, a known one ENODEV.
///
/// # Errors
/// [`Code::Permission`], [`Code::Unsupported`], [`Code::Kernel`]: no socket can be made.
pub fn supports_multi_buffer() -> Result<bool> {
    Ok(bind_without_interface(libc::XDP_COPY | libc::XDP_USE_SG)? != Some(libc::EINVAL))
}

/// The errno of binding a new socket to no interface.
fn bind_without_interface(flags: u16) -> Result<Option<i32>> {
    let fd = new_socket()?;
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: 0,
        sxdp_queue_id: 0,
        sxdp_shared_umem_fd: 0,
    };
    Ok(bind_to(&fd, &address).err().and_then(|e| e.raw_os_error()))
}

/// Makes a socket with rings and `frames` frames of packet memory, bound to nothing, and closes it again.
///
/// # Errors
/// [`Code::Permission`], [`Code::Unsupported`], [`Code::Kernel`].
pub fn probe_socket(frames: u32) -> Result<()> {
    let umem = Umem::new(frames, None)?;
    XskSocket::new(&umem, frames / 2).map(drop)
}

fn new_socket() -> Result<OwnedFd> {
    sys::socket::open(libc::AF_XDP, libc::SOCK_RAW, 0).map_err(socket_error)
}

fn bind_to(fd: &OwnedFd, address: &libc::sockaddr_xdp) -> io::Result<()> {
    let len = mem::size_of_val(address) as libc::socklen_t;
    // SAFETY: pointer and length describe `address`, which outlives the call and is only read.
    let rc = unsafe { libc::bind(fd.as_raw_fd(), (&raw const *address).cast(), len) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn offsets_of(o: &libc::xdp_ring_offset) -> Offsets {
    Offsets {
        producer: o.producer as usize,
        consumer: o.consumer as usize,
        flags: o.flags as usize,
        entries: o.desc as usize,
    }
}

fn map_ring<T>(fd: &OwnedFd, o: &libc::xdp_ring_offset, entries: u32, at: u64) -> Result<Arc<Mapping>> {
    let len = offsets_of(o).length::<T>(entries);
    let map = Mapping::shared_populated(fd.as_fd(), len, at)
        .map_err(|e| Error::os(Code::Kernel, format!("mapping an AF_XDP ring of {entries} entries"), e))?;
    Ok(Arc::new(map))
}

/// Registers packet memory with a socket (XDP_UMEM_REG), which receives into it from then on.
fn register(fd: &OwnedFd, umem: &Umem) -> io::Result<()> {
    // SAFETY: XDP_UMEM_REG takes this structure, which names the mapping that `umem` owns. The kernel uses the address during
    // the call only: it pins the pages behind it (net/xdp/xdp_umem.c, `xdp_umem_reg` by `pin_user_pages`) and writes packets
    // to those pages until the socket is gone. So the socket may outlive the mapping; no type has to enforce an order. Pages
    // that are pinned do not become other memory of this process, even when the mapping is gone. How reads of a mapping that
    // exists keep apart from the kernel's writes is argued in `Umem::bytes`.
    unsafe { sys::socket::set_option(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &umem.registration()) }
}

/// Reads an option of level SOL_XDP; returns how many bytes the kernel wrote.
///
/// # Safety
/// Any bytes must be a value of `T`, as they are of a structure of integers.
unsafe fn get_option<T>(fd: &OwnedFd, option: i32, value: &mut T) -> io::Result<usize> {
    let mut len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: pointer and length describe `value`, writable and alive through the call; the kernel writes at most `len`
    // bytes, and the caller promises that any bytes are a value of `T`.
    let rc = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, (&raw mut *value).cast(), &raw mut len)
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(len as usize) }
}

fn socket_error(e: io::Error) -> Error {
    match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            Error::os(Code::Permission, "making an AF_XDP socket: needs CAP_NET_RAW", e)
        }
        Some(libc::EAFNOSUPPORT) => {
            Error::os(Code::Unsupported, "making an AF_XDP socket: this kernel has no CONFIG_XDP_SOCKETS", e)
        }
        _ => Error::os(Code::Kernel, "making an AF_XDP socket", e),
    }
}

fn bind_error(interface: &Interface, queue: u32, zero_copy: bool, e: io::Error) -> Error {
    let mode = if zero_copy { "zero-copy" } else { "copy mode" };
    let what = format!("binding an AF_XDP socket to {} rx queue {queue} ({mode})", interface.name);
    match e.raw_os_error() {
        Some(libc::EBUSY) => {
            Error::os(Code::Busy, format!("{what}: another AF_XDP socket has this rx queue"), e)
        }
        Some(libc::ENODEV) => Error::os(Code::Interface, format!("{what}: the interface is gone"), e),
        Some(libc::ENETDOWN) => Error::os(Code::Interface, format!("{what}: the interface is down"), e),
        Some(libc::EINVAL) => {
            Error::os(Code::Unsupported, format!("{what}: the interface has no such rx queue in use"), e)
        }
        Some(libc::EOPNOTSUPP) if zero_copy => Error::os(
            Code::Unsupported,
            format!(
                "{what}: the driver ({}) has no zero-copy, or not with these settings; MILLRACE_XDP_ZEROCOPY=off uses \
                 copy mode",
                interface.driver().unwrap_or_else(|| "unknown".into())
            ),
            e,
        ),
        Some(libc::EOPNOTSUPP) => Error::os(Code::Unsupported, format!("{what}: not supported"), e),
        _ => Error::os(Code::Kernel, what, e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This holds of the kernel that runs the test; skipped where no AF_XDP socket can be made.
    #[test]
    fn flags_are_looked_at_before_the_interface() {
        let Ok(known) = supports_multi_buffer() else {
            crate::testing::skip("no AF_XDP socket: needs CAP_NET_RAW");
            return;
        };
        // Distributions backport it to older kernels; none removes it from newer ones.
        let (major, minor) = crate::rx::xdp::zero_copy::kernel_version();
        assert!(known || (major, minor) < (6, 6), "Linux {major}.{minor}");
        assert_eq!(bind_without_interface(libc::XDP_COPY).unwrap(), Some(libc::ENODEV));
        assert_eq!(bind_without_interface(1 << 15).unwrap(), Some(libc::EINVAL), "an unknown flag");
    }
}
