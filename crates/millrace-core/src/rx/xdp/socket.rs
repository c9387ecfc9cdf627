//! The AF_XDP socket: memory registered, rings made and mapped, bound to one rx queue (af_xdp.rst, `if_xdp.h`).

use std::{
    io, mem,
    ops::Add,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    ring::{ConsumerRing, Offsets, ProducerRing},
    umem::Umem,
};
use crate::{
    error::{Code, Error, Result},
    net::Interface,
    sys::mapping::Mapping,
};

/// The completion ring is for sending, which we do not do; the kernel refuses to bind without one.
const COMPLETION_ENTRIES: u32 = 2;
/// A socket that was just closed keeps its rx queue for a moment, because the kernel frees it after a grace period.
pub(super) const BIND_PATIENCE: Duration = Duration::from_secs(1);
/// A standing error makes every poll return at once; this keeps that from becoming a spin.
const ERROR_PAUSE: Duration = Duration::from_millis(1);
const BIND_PAUSE: Duration = Duration::from_millis(2);

pub(super) const fn pollin(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Sleeps until one of these sockets has a frame or the time is over (ppoll(2)). Returns true when one has.
///
/// # Errors
/// [`Code::Kernel`].
pub(super) fn wait_any(polled: &mut [libc::pollfd], timeout: Duration) -> Result<bool> {
    let time = libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: pointer and length describe the slice, which is writable and outlives the call, as the timespec does; a
    // null mask leaves signals as they are.
    let rc = unsafe {
        libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, &raw const time, ptr::null())
    };
    if rc < 0 {
        let e = io::Error::last_os_error();
        if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) {
            return Ok(false);
        }
        return Err(Error::os(Code::Kernel, "waiting on an AF_XDP socket (ppoll)", e));
    }
    let events = polled.iter().fold(0, |all, p| all | p.revents);
    // POLLERR without POLLIN: a caller that believed in progress would spin on it.
    if events != 0 && events & libc::POLLIN == 0 {
        thread::sleep(timeout.min(ERROR_PAUSE));
    }
    Ok(events & libc::POLLIN != 0)
}

/// The six counters of XDP_STATISTICS, cumulative since the socket was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct XskStatistics {
    /// Frames for this socket dropped because no fill entry was there, or because they were longer than a frame.
    pub rx_dropped: u64,
    /// Entries of the fill ring the kernel refused: a fault of ours.
    pub rx_invalid_descs: u64,
    /// Sending only, always 0.
    pub tx_invalid_descs: u64,
    /// Frames dropped because the rx ring was full.
    pub rx_ring_full: u64,
    /// Times the fill ring was found empty; in copy mode each is also in `rx_dropped`.
    pub rx_fill_ring_empty: u64,
    /// Sending only.
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
    /// Received descriptors.
    pub(super) rx: ConsumerRing<libc::xdp_desc>,
    /// Frames for the kernel to write to, by address.
    pub(super) fill: ProducerRing<u64>,
    fd: OwnedFd,
}

impl XskSocket {
    /// Makes a socket on `umem` with rx and fill rings of `entries` (a power of two). Not bound yet: some drivers want
    /// the fill ring filled before.
    ///
    /// # Errors
    /// [`Code::Permission`], [`Code::Unsupported`], [`Code::Kernel`].
    pub fn new(umem: &Umem, entries: u32) -> Result<Self> {
        let fd = fresh()?;
        set_option(fd.as_fd(), libc::XDP_UMEM_REG, &umem.registration()).map_err(|e| umem.refused(e))?;
        for (name, option, size) in [
            ("fill", libc::XDP_UMEM_FILL_RING, entries),
            ("completion", libc::XDP_UMEM_COMPLETION_RING, COMPLETION_ENTRIES),
            ("rx", libc::XDP_RX_RING, entries),
        ] {
            set_option(fd.as_fd(), option, &size).map_err(|e| {
                Error::os(Code::Kernel, format!("making the {name} ring of {size} entries (AF_XDP)"), e)
            })?;
        }
        // SAFETY: xdp_mmap_offsets is all integers; zero is valid.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { mem::zeroed() };
        let got = get_option(fd.as_fd(), libc::XDP_MMAP_OFFSETS, &mut offsets)
            .map_err(|e| Error::os(Code::Kernel, "reading XDP_MMAP_OFFSETS", e))?;
        if got != mem::size_of_val(&offsets) {
            // The shorter struct has no flags words, so need_wakeup would not work.
            return Err(Error::new(Code::Unsupported, "AF_XDP of this kernel is older than Linux 5.4"));
        }
        let rx_map = map_ring::<libc::xdp_desc>(&fd, &offsets.rx, entries, libc::XDP_PGOFF_RX_RING as u64)?;
        let fill_map = map_ring::<u64>(&fd, &offsets.fr, entries, libc::XDP_UMEM_PGOFF_FILL_RING)?;
        // SAFETY: the kernel just made these rings of `entries` entries of these types, at these offsets, for this
        // socket; the mappings are ours alone.
        let (rx, fill) = unsafe {
            (
                ConsumerRing::new(rx_map, offsets_of(&offsets.rx), entries),
                ProducerRing::new(fill_map, offsets_of(&offsets.fr), entries),
            )
        };
        Ok(XskSocket { rx, fill, fd })
    }

    /// Binds to one rx queue. The mode is always said: with flags 0 the kernel would choose, and on some drivers choose
    /// what fails later. With `segments` frames may come in several descriptors (XDP_USE_SG, Linux 6.6). An rx queue
    /// that another socket has is waited for with `patience`.
    ///
    /// # Errors
    /// [`Code::Busy`] when another socket has the queue, [`Code::Interface`], [`Code::Unsupported`], [`Code::Kernel`].
    pub fn bind(
        &self,
        interface: &Interface,
        queue: u32,
        zero_copy: bool,
        segments: bool,
        patience: Duration,
    ) -> Result<()> {
        let mode = if zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
        let segments = if segments { libc::XDP_USE_SG } else { 0 };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: mode | segments | libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: interface.index,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        let deadline = Instant::now() + patience;
        loop {
            let Err(e) = bind_to(self.fd.as_fd(), &address) else { return Ok(()) };
            if e.raw_os_error() != Some(libc::EBUSY) || Instant::now() >= deadline {
                return Err(bind_refused(interface, queue, zero_copy, e));
            }
            thread::sleep(BIND_PAUSE);
        }
    }

    /// Whether the kernel granted zero-copy (XDP_OPTIONS).
    ///
    /// # Errors
    /// [`Code::Kernel`].
    pub fn zero_copy(&self) -> Result<bool> {
        let mut options = libc::xdp_options { flags: 0 };
        get_option(self.fd.as_fd(), libc::XDP_OPTIONS, &mut options)
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
        get_option(self.fd.as_fd(), libc::XDP_STATISTICS, &mut s)
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

    /// Tells the kernel to look at the fill ring. By recvfrom, not poll: only that drives busy-polling. What it says
    /// (EAGAIN, ENETDOWN, EBUSY …) is of no consequence, the next pass tries again.
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

    /// Sleeps until a frame is there or the time is over (ppoll(2)). Returns true when one is there.
    ///
    /// # Errors
    /// [`Code::Kernel`].
    #[cfg(feature = "bench")]
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        wait_any(&mut [pollin(self.fd.as_raw_fd())], timeout)
    }

    /// Takes the socket's pending error (SO_ERROR, which clears it; poll(2) does not show it: `xsk_poll` answers nothing at
    /// all for a socket that lost its device). ENETDOWN means that the interface was removed; a
    /// link that is merely down is no error of the socket.
    pub fn take_error(&self) -> Option<io::Error> {
        let mut errno: libc::c_int = 0;
        get_option_at(self.fd.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR, &mut errno).ok()?;
        (errno != 0).then(|| io::Error::from_raw_os_error(errno))
    }
}

impl AsFd for XskSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether this kernel takes frames of several descriptors (XDP_USE_SG, Linux 6.6). Older ones take an XDP program for
/// such frames (Linux 5.18) and then refuse every socket. `xsk_bind` looks at the flags first, and at the interface,
/// here none, later: an unknown flag is EINVAL, a known one ENODEV.
///
/// # Errors
/// [`Code::Permission`], [`Code::Unsupported`], [`Code::Kernel`]: no socket can be made.
pub fn knows_segments() -> Result<bool> {
    Ok(bind_nowhere(libc::XDP_COPY | libc::XDP_USE_SG)? != Some(libc::EINVAL))
}

/// The errno of binding a fresh socket to no interface.
fn bind_nowhere(flags: u16) -> Result<Option<i32>> {
    let fd = fresh()?;
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: 0,
        sxdp_queue_id: 0,
        sxdp_shared_umem_fd: 0,
    };
    Ok(bind_to(fd.as_fd(), &address).err().and_then(|e| e.raw_os_error()))
}

fn fresh() -> Result<OwnedFd> {
    // SAFETY: plain socket(2); the result is checked before it is owned.
    let raw = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(socket_refused(io::Error::last_os_error()));
    }
    // SAFETY: `raw` is a fresh descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn bind_to(fd: BorrowedFd<'_>, address: &libc::sockaddr_xdp) -> io::Result<()> {
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
    let map = Mapping::shared(fd.as_fd(), len, at)
        .map_err(|e| Error::os(Code::Kernel, format!("mapping an AF_XDP ring of {entries} entries"), e))?;
    Ok(Arc::new(map))
}

fn set_option<T>(fd: BorrowedFd<'_>, option: i32, value: &T) -> io::Result<()> {
    set_option_at(fd, libc::SOL_XDP, option, value)
}

pub(super) fn set_option_at<T>(fd: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: pointer and length describe `value`, which outlives the call and is only read.
    let rc = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const *value).cast(), len) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn get_option<T>(fd: BorrowedFd<'_>, option: i32, value: &mut T) -> io::Result<usize> {
    get_option_at(fd, libc::SOL_XDP, option, value)
}

/// Returns how many bytes the kernel wrote. `T` must be all integers.
pub(super) fn get_option_at<T>(
    fd: BorrowedFd<'_>,
    level: i32,
    option: i32,
    value: &mut T,
) -> io::Result<usize> {
    let mut len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: pointer and length describe `value`, writable and alive through the call; the kernel writes at most `len`
    // bytes, and any bytes are a value of an all-integer struct.
    let rc =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut *value).cast(), &raw mut len) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(len as usize) }
}

fn socket_refused(e: io::Error) -> Error {
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

fn bind_refused(interface: &Interface, queue: u32, zero_copy: bool, e: io::Error) -> Error {
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

    /// As this kernel answers; skipped where no AF_XDP socket can be made.
    #[test]
    fn flags_are_looked_at_before_the_interface() {
        let Ok(known) = knows_segments() else {
            return crate::testing::skip("needs CAP_NET_RAW to make an AF_XDP socket");
        };
        // Distributions bring it to older kernels, none takes it away.
        let (major, minor) = crate::rx::xdp::zerocopy::kernel();
        assert!(known || (major, minor) < (6, 6), "Linux {major}.{minor}");
        assert_eq!(bind_nowhere(libc::XDP_COPY).unwrap(), Some(libc::ENODEV));
        assert_eq!(bind_nowhere(1 << 15).unwrap(), Some(libc::EINVAL), "an unknown flag");
    }
}
