//! AF_PACKET: a TPACKET_V3 (or V2) ring for each receive thread, all members of one fanout group (packet(7),
//! Documentation/networking/packet_mmap.rst).
//!
//! Order of setting up, each step for a reason:
//! 1. the guard's UDP sockets, so that a taken port is found before anything else and no ICMP is ever sent;
//! 2. for each member: socket with protocol 0 (receives nothing), version and vnet header, ring (a ring made after
//!    joining permutes the members), a filter that drops everything, bind;
//! 3. join the group in index order. A bound socket outside the group sees every frame: without the dropping filter
//!    there would be duplicates from the moment between bind and join;
//! 4. the real filter for all members.

#[cfg(feature = "bench")]
pub mod count;
mod cut;
mod fanout;
mod filter;
mod frame;
mod group;
mod receiver;
mod ring_v2;
mod ring_v3;

use std::{io, os::fd::OwnedFd, sync::Arc};

use receiver::Ours;
pub use receiver::PacketReceiver;

use crate::{
    bpf::classic,
    config::{EngineConfig, Listen, ListenSet, Tpacket},
    error::{Code, Error, Result},
    net::Interface,
    rx::{BackendInfo, Opened, Steering, guard::open_for_packet, local, socket::multicast},
    sys::socket,
};
use group::Shared;
use ring_v2::RingV2;
use ring_v3::RingV3;

/// The ring of one member.
enum Rings {
    V3(RingV3),
    V2(RingV2),
}

impl Rings {
    fn new(fd: &OwnedFd, config: &EngineConfig) -> io::Result<Self> {
        let (bytes, blocks) = (config.packet_block_bytes, config.packet_blocks);
        match config.tpacket {
            Tpacket::V3 => RingV3::new(fd, bytes, blocks).map(Rings::V3),
            Tpacket::V2 => RingV2::new(fd, bytes, blocks, config.packet_slot_bytes).map(Rings::V2),
        }
    }

    /// Blocks or slots.
    fn units(&self) -> usize {
        match self {
            Rings::V3(ring) => ring.blocks(),
            Rings::V2(ring) => ring.slots(),
        }
    }

    /// See [`Ring::settle`].
    fn settle(&self) {
        match self {
            Rings::V3(ring) => ring.settle(),
            Rings::V2(ring) => ring.settle(),
        }
    }
}

/// What [`Rings::units`] is when all the memory asked for was there, the name of a unit, and its bytes.
fn full_ring(config: &EngineConfig) -> (usize, &'static str, u32) {
    let blocks = config.packet_blocks as usize;
    match config.tpacket {
        Tpacket::V3 => (blocks, "blocks", config.packet_block_bytes),
        Tpacket::V2 => {
            let in_block = (config.packet_block_bytes / config.packet_slot_bytes) as usize;
            (blocks * in_block, "slots", config.packet_slot_bytes)
        }
    }
}

/// Opens `config.rx_threads` members on `config.interface` (absent: that of the default route), and the guard.
///
/// # Errors
/// [`Code::Permission`] without CAP_NET_RAW; [`Code::Interface`] when it does not exist or cannot be used;
/// [`Code::Port`] when a port is taken, by a second Millrace too.
#[cfg(any(test, feature = "testing"))]
pub fn open(config: &EngineConfig) -> Result<Opened<PacketReceiver>> {
    open_steered(config, &Steering::default())
}

/// As [`open`], with the program of fanout `rules`.
///
/// # Errors
/// As [`open`].
pub fn open_steered(config: &EngineConfig, steering: &Steering) -> Result<Opened<PacketReceiver>> {
    let interface = match &config.interface {
        Some(name) => Interface::by_name(name)?,
        None => Interface::of_default_route()?,
    };
    // Before the guard: the reason why this backend cannot be had should be the first one reported.
    let sockets =
        (0..config.rx_threads).map(|_| packet_socket(config.tpacket)).collect::<Result<Vec<OwnedFd>>>()?;
    let mut info =
        BackendInfo { backend: "packet", interface: Some(interface.name.clone()), ..BackendInfo::default() };
    let here = local::listen_here(&config.listen, &config.multicast, &interface.name)?;
    let guard = open_for_packet(config, &interface, &here, &mut info.degraded)?;
    info.granted.extend(multicast::granted(&config.multicast, Some(&interface.name)));
    let Interface { name, index: ifindex } = interface;

    let wanted = fanout::Wanted::new(config, steering, &mut info.degraded);
    let made = make(config, (&wanted, 0), sockets, (&name, ifindex), &mut info.degraded)?;
    info.mode = format!("{} fanout {}", config.tpacket.as_str(), made.group.mode.as_str());
    let ports: Vec<u16> = config.listen.iter().map(|l| l.port).collect();
    let (program, by_port) = filter::ours(&ports);
    report(&mut info, config, &made.rings, made.group, by_port);
    if let Some(said) = wanted.says() {
        info.grant(fanout::GRANTED, said);
    }

    let ours = Ours { listen: ListenSet::new(&here), untagged: ListenSet::new(&link_local(&config.listen)) };
    let shared = Arc::new(Shared::new(config, wanted, (&name, ifindex), program, &made));
    let rolls_over = made.group.rolls_over();
    let receivers: Vec<PacketReceiver> = made
        .sockets
        .into_iter()
        .zip(made.rings)
        .zip(0..)
        .map(|((fd, ring), index)| {
            PacketReceiver::new(fd, ring, ours.clone(), index, Arc::clone(&shared), rolls_over)
        })
        .collect();
    for receiver in &receivers {
        attach(receiver.fd(), &shared.filter)?;
    }
    let steer = Some(Box::new(group::Handle(Arc::downgrade(&shared))) as Box<dyn crate::rx::Steer>);
    Ok(Opened { receivers, guard: Some(guard), steer, info })
}

/// The link-local entries that mean one interface: not where the same port is open on every address.
fn link_local(listen: &[Listen]) -> Vec<Listen> {
    let (scoped, others): (Vec<_>, Vec<_>) = listen.iter().cloned().partition(Listen::is_link_local);
    let others = ListenSet::new(&others);
    scoped.into_iter().filter(|l| !l.address.is_some_and(|a| others.accepts(a.into(), l.port))).collect()
}

/// Members of a group: bound, joined in order, with a filter that drops everything.
struct Made {
    sockets: Vec<Arc<OwnedFd>>,
    rings: Vec<Rings>,
    group: fanout::Group,
}

/// Steps 2 (but the sockets) and 3 of setting up, for the first group (generation 0) or one that follows it.
fn make(
    config: &EngineConfig,
    (wanted, generation): (&fanout::Wanted, u32),
    sockets: Vec<OwnedFd>,
    (name, ifindex): (&str, u32),
    degraded: &mut Vec<String>,
) -> Result<Made> {
    let mut rings = Vec::with_capacity(sockets.len());
    for fd in &sockets {
        let ring = Rings::new(fd, config).map_err(|e| {
            let size = format!("{} blocks of {} bytes", config.packet_blocks, config.packet_block_bytes);
            Error::os(Code::Kernel, format!("PACKET_RX_RING on {name}, {size}, and down to 2 blocks"), e)
        })?;
        attach(fd, &classic::drop_all())?;
        socket::bind_packet(fd, ifindex).map_err(|e| bind_refused(e, name))?;
        rings.push(ring);
    }
    let group = wanted.join(generation, &sockets, name, ifindex, degraded)?;
    Ok(Made { sockets: sockets.into_iter().map(Arc::new).collect(), rings, group })
}

/// A packet socket that receives nothing yet, switched to the version with vnet headers.
fn packet_socket(version: Tpacket) -> Result<OwnedFd> {
    let fd = socket::open(libc::AF_PACKET, libc::SOCK_RAW, 0).map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            Error::os(Code::Permission, "AF_PACKET socket: needs the capability CAP_NET_RAW", e)
        }
        Some(libc::EAFNOSUPPORT) => {
            Error::os(Code::Unsupported, "AF_PACKET socket: this kernel was built without CONFIG_PACKET", e)
        }
        _ => Error::os(Code::Kernel, "AF_PACKET socket", e),
    })?;
    let number = match version {
        Tpacket::V3 => libc::tpacket_versions::TPACKET_V3,
        Tpacket::V2 => libc::tpacket_versions::TPACKET_V2,
    };
    socket::set_int(&fd, libc::SOL_PACKET, libc::PACKET_VERSION, number as libc::c_int)
        .map_err(|e| Error::os(Code::Unsupported, version.as_str().to_uppercase(), e))?;
    // Not optional: without it a UDP super-packet would be taken for one datagram.
    socket::set_int(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)
        .map_err(|e| Error::os(Code::Unsupported, "PACKET_VNET_HDR", e))?;
    Ok(fd)
}

fn attach(fd: &OwnedFd, program: &[libc::sock_filter]) -> Result<()> {
    socket::attach_cbpf(fd, libc::SO_ATTACH_FILTER, program)
        .map_err(|e| Error::os(Code::Kernel, format!("SO_ATTACH_FILTER, {} instructions", program.len()), e))
}

fn bind_refused(e: io::Error, interface: &str) -> Error {
    match e.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => {
            Error::os(Code::Interface, format!("interface {interface} went away"), e)
        }
        _ => Error::os(Code::Kernel, format!("bind a packet socket to {interface}"), e),
    }
}

fn report(
    info: &mut BackendInfo,
    config: &EngineConfig,
    rings: &[Rings],
    group: fanout::Group,
    by_port: bool,
) {
    let granted = rings.iter().map(Rings::units).min().unwrap_or(0);
    let (asked, unit, bytes) = full_ring(config);
    let outgoing = if group.ignores_outgoing() { "fanout flag" } else { "filter" };
    info.granted.extend([
        ("members".to_owned(), rings.len().to_string()),
        ("fanout group".to_owned(), group.id.to_string()),
        ("fanout flags".to_owned(), group.flag_names()),
        ("ring".to_owned(), format!("{granted} {unit} of {bytes} bytes each member")),
        ("outgoing frames skipped by".to_owned(), outgoing.to_owned()),
    ]);
    if granted < asked {
        info.degraded.push(format!(
            "ring: asked for {asked} {unit} of {bytes} bytes each member, memory for {granted}"
        ));
    }
    if group.rolls_over() {
        info.degraded.push("rollover breaks the order within a flow whenever a ring is full".into());
    }
    if !by_port {
        info.degraded.push("too many ports for a socket filter: all UDP of the host enters the rings".into());
    }
}
