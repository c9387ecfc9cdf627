//! The guard: bound sockets that own our ports beside a backend that reads below the stack.
//!
//! It keeps the host from answering with ICMP port unreachable, makes a second owner of the port visible as an error,
//! and receives what the fast path cannot read.

use super::{Options, SocketReceiver, Time, bind, receiver::Wanted, sys};
use crate::{
    config::EngineConfig,
    error::{Code, Error, Result},
    rx::cbpf::{self, Assembler, NET, NEXT},
};

/// What the guard does with datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardMode {
    /// Deliver all: for `xdp`, where the stack only gets what the program passed on.
    DeliverAll,
    /// Drop all but reassembled IPv6 datagrams: for `packet`, whose ring sees a copy of everything the stack gets,
    /// IPv4 fragments put together (PACKET_FANOUT_FLAG_DEFRAG), but IPv6 fragments one by one.
    Sink,
}

/// Receive buffer of each guard socket in [`GuardMode::Sink`], bytes.
const SINK_RCVBUF: u32 = 4 << 20;
/// No conforming sender fragments an IPv6 packet that fits the minimum MTU of 1280 (RFC 8200 §5): UDP payload of such a
/// packet, bytes. What the sink need not look at.
const NEVER_FRAGMENTED: u32 = 1280 - 40 - 8;

/// Opens the guard for `config.listen`. Its receiver puts [`crate::datagram::flags::SLOW_PATH`] on every datagram, has
/// rx queue 0, and counts losses as `guard_rcvbuf`.
///
/// In [`GuardMode::Sink`] `guard_rcvbuf` is exact for fragments but may hold more: an unfragmented IPv6 datagram above
/// 1232 bytes of payload cannot be told from a reassembled one before it is read, so when those overflow the guard's
/// buffer they are counted too, although the ring has them.
///
/// # Errors
/// As [`super::open`].
pub fn open_guard(config: &EngineConfig, mode: GuardMode) -> Result<SocketReceiver> {
    let rcvbuf = match mode {
        GuardMode::DeliverAll => config.socket_rcvbuf,
        GuardMode::Sink => SINK_RCVBUF.min(config.socket_rcvbuf),
    };
    // Kernel times on any one socket make the stack stamp every packet of the host: not worth it for the slow path.
    let mut options = Options::new(rcvbuf, Time::OfPass);
    let (mut readers, mut holders) = (Vec::new(), Vec::new());
    for place in bind::plan(&config.listen) {
        let exact = matches!(place.0, bind::Target::Exact(_));
        let v6 = match place.0 {
            bind::Target::Any => true,
            bind::Target::AnyV4 => false,
            bind::Target::Exact(a) => a.is_ipv6(),
        };
        if mode == GuardMode::DeliverAll {
            readers.extend(bind::bind_group(place, 1, &mut |fd, v6| options.receive(fd, v6, !exact))?);
            continue;
        }
        // An IPv6 place gets two sockets, and a program that picks one for each datagram: the holder, whose filter
        // drops, and the reader. One socket with a filter would do, but the kernel counts what a filter drops in the
        // same counter as a full buffer, and then nobody could say what was lost.
        let mut made = 0;
        let mut group = bind::bind_group(place, 1 + usize::from(v6), &mut |fd, is_v6| {
            made += 1;
            if made == 1 {
                return attach(fd, libc::SO_ATTACH_FILTER, &cbpf::drop_all());
            }
            if is_v6 {
                sys::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVFRAGSIZE, 1)
                    .map_err(|e| Error::os(Code::Kernel, "IPV6_RECVFRAGSIZE", e))?;
                options.receive(fd, true, !exact)
            } else {
                // "Any" on a kernel without IPv6 came out as IPv4: nothing to read.
                attach(fd, libc::SO_ATTACH_FILTER, &cbpf::drop_all())
            }
        })?;
        if let (true, Some(reader)) = (group.len() > 1, group.pop()) {
            attach(&reader.fd, libc::SO_ATTACH_REUSEPORT_CBPF, &pick_reader())?;
            readers.push(reader);
        }
        holders.extend(group.into_iter().map(|bound| bound.fd));
    }
    let wanted = if mode == GuardMode::Sink { Wanted::Reassembled } else { Wanted::All };
    Ok(SocketReceiver::new(readers, 0).into_guard(wanted, holders))
}

fn attach(fd: &std::os::fd::OwnedFd, option: libc::c_int, program: &[libc::sock_filter]) -> Result<()> {
    sys::attach_cbpf(fd, option, program).map_err(|e| Error::os(Code::Kernel, "guard: attach a filter", e))
}

/// SO_ATTACH_REUSEPORT_CBPF: member 1 (the reader) for IPv6 datagrams that may have been fragments, else member 0. The
/// program's offset 0 is the UDP payload, so its packet length is that of the payload (socket(7)).
fn pick_reader() -> Vec<libc::sock_filter> {
    let mut a = Assembler::default();
    let holder = a.label();
    a.load_len();
    a.if_gt(NEVER_FRAGMENTED, NEXT, holder);
    a.load_byte(NET);
    a.and(0xf0);
    a.if_eq(0x60, NEXT, holder);
    a.ret(1);
    a.place(holder);
    a.ret(0);
    a.finish().expect("a short program with near, forward branches")
}
