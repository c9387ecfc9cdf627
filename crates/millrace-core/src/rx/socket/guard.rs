//! The guard: bound sockets that own our ports beside a backend that reads below the stack.
//!
//! It keeps the host from answering with ICMP port unreachable, makes a second owner of the port visible as an error,
//! and receives what the fast path cannot read.

use std::{net::IpAddr, os::fd::OwnedFd};

use super::{Options, SocketReceiver, bind, membership::Memberships, multicast, receiver::Wanted, sys};
use crate::{
    config::{EngineConfig, Timestamps},
    error::{Code, Error, Result},
    rx::cbpf::{self, Assembler, NEXT},
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
    let mut options = Options::new(rcvbuf, Timestamps::Pass);
    let (mut readers, mut holders, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    let places = bind::plan(&config.listen);
    if let Some(g) = config.multicast.iter().find(|g| g.source.is_some()) {
        let message = format!("multicast {g}: a source-specific group needs MILLRACE_BACKEND=socket");
        return Err(Error::new(Code::Config, message));
    }
    multicast::check(&config.multicast, &places)?;
    for place in places {
        let join = |fd: &OwnedFd| {
            multicast::only_own(fd, !matches!(place.0, bind::Target::AnyV4));
            multicast::join(&config.multicast, place, &[fd])
        };
        match (mode, place.0) {
            (GuardMode::DeliverAll, target) => {
                let exact = matches!(target, bind::Target::Exact(_));
                let group = bind::bind_group(place, 1, &mut |fd, v6| options.receive(fd, v6, !exact))?;
                group.iter().try_for_each(|bound| join(&bound.fd))?;
                targets.extend(group.iter().map(|_| target));
                readers.extend(group);
            }
            (GuardMode::Sink, bind::Target::Any) => {
                let v4 = (bind::Target::AnyV4, place.1);
                let holder = hold(v4, &mut options)?;
                multicast::join(&config.multicast, v4, &[&holder])?;
                holders.push(holder);
                if bind::has_ipv6() {
                    let v6 = (bind::Target::AnyV6, place.1);
                    let (holder, reader) = hold_and_read(v6, &mut options)?;
                    multicast::only_own(&reader.fd, true);
                    multicast::join(&config.multicast, v6, &[&reader.fd])?;
                    holders.push(holder);
                    readers.push(reader);
                }
            }
            (GuardMode::Sink, bind::Target::AnyV6 | bind::Target::Exact(IpAddr::V6(_))) => {
                let (holder, reader) = hold_and_read(place, &mut options)?;
                join(&reader.fd)?;
                holders.push(holder);
                readers.push(reader);
            }
            (GuardMode::Sink, bind::Target::AnyV4 | bind::Target::Exact(IpAddr::V4(_))) => {
                let holder = hold(place, &mut options)?;
                join(&holder)?;
                holders.push(holder);
            }
        }
    }
    let wanted = if mode == GuardMode::Sink { Wanted::Reassembled } else { Wanted::All };
    // Only xdp goes on when its interface was removed.
    let memberships = match mode {
        GuardMode::DeliverAll => Memberships::new(config, targets),
        GuardMode::Sink => None,
    };
    Ok(SocketReceiver::new(readers, 0).into_guard(wanted, holders, memberships))
}

/// An IPv4 place: one socket, whose filter drops all.
///
/// UDP_GRO is on, so that a super-packet meets the filter whole instead of being cut up only to be dropped, and so that
/// the driver's GRO may merge our flows before the ring sees them: the ring splits them again for much less.
fn hold(place: bind::Place, options: &mut Options) -> Result<OwnedFd> {
    let group = bind::bind_group(place, 1, &mut |fd, _| {
        options.fast_path(fd);
        attach(fd, libc::SO_ATTACH_FILTER, &cbpf::drop_all())
    })?;
    let bound = group.into_iter().next();
    bound.map(|b| b.fd).ok_or_else(|| Error::new(Code::State, "guard: a group of one is empty"))
}

/// An IPv6 place: a group of two and a program that picks one for each datagram: the holder, whose filter drops, and
/// the reader. One socket with a filter would do, but the kernel counts what a filter drops in the same counter as a
/// full buffer, and then nobody could say what was lost. No UDP_GRO: what it merges is large, and large datagrams are
/// the reader's.
fn hold_and_read(place: bind::Place, options: &mut Options) -> Result<(OwnedFd, bind::Bound)> {
    let exact = matches!(place.0, bind::Target::Exact(_));
    let mut first = true;
    let mut group = bind::bind_group(place, 2, &mut |fd, _| {
        if std::mem::take(&mut first) {
            return attach(fd, libc::SO_ATTACH_FILTER, &cbpf::drop_all());
        }
        sys::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVFRAGSIZE, 1)
            .map_err(|e| Error::os(Code::Kernel, "IPV6_RECVFRAGSIZE", e))?;
        options.receive(fd, true, !exact)
    })?;
    let (Some(reader), Some(holder)) = (group.pop(), group.pop()) else {
        return Err(Error::new(Code::State, "guard: a group of two is not"));
    };
    attach(&holder.fd, libc::SO_ATTACH_REUSEPORT_CBPF, &pick_member())?;
    Ok((holder.fd, reader))
}

fn attach(fd: &OwnedFd, option: libc::c_int, program: &[libc::sock_filter]) -> Result<()> {
    sys::attach_cbpf(fd, option, program).map_err(|e| Error::os(Code::Kernel, "guard: attach a filter", e))
}

/// SO_ATTACH_REUSEPORT_CBPF: member 1, the reader, for datagrams that may have been fragments, else member 0. The
/// program's offset 0 is the UDP payload, so its packet length is that of the payload (socket(7)).
fn pick_member() -> Vec<libc::sock_filter> {
    let mut a = Assembler::default();
    let holder = a.label();
    a.load_len();
    a.if_gt(NEVER_FRAGMENTED, NEXT, holder);
    a.ret(1);
    a.place(holder);
    a.ret(0);
    a.finish().expect("a short program with near, forward branches")
}
