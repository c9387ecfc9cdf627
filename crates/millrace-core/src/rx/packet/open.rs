//! Opens the backend: the guard, the members of the fanout group, and their filter.

use std::{os::fd::OwnedFd, sync::Arc};

use super::{
    fanout::{FanoutGroup, FanoutSpec},
    listen_filter,
    member::{Members, attach_filter, open_socket},
    receiver::PacketReceiver,
    regroup::{ProgramReplacer, SharedGroup},
    ring_listen::RingListen,
    rings::{RequestedSize, Rings},
};
use crate::{
    config::EngineConfig,
    error::Result,
    net::Interface,
    rx::{
        BackendInfo, Opened, ReplacePrograms, RulePrograms, STEERING, guard::open_for_packet, local,
        socket::multicast,
    },
};

/// Opens `config.rx_threads` members on `config.interface`, or on the interface of the default route where none is named, and
/// the guard. `programs` has the program for the fanout modes that run one.
///
/// # Errors
/// [`Code::Permission`](crate::error::Code::Permission) without CAP_NET_RAW;
/// [`Code::Interface`](crate::error::Code::Interface) when the interface does not exist or cannot be used;
/// [`Code::Port`](crate::error::Code::Port) when a port is taken, by a second Millrace too.
pub fn open(config: &EngineConfig, programs: &RulePrograms) -> Result<Opened<PacketReceiver>> {
    let interface = match &config.interface {
        Some(name) => Interface::by_name(name)?,
        None => Interface::of_default_route()?,
    };
    // These come before the guard: the reason why this backend cannot be had should be the first one reported.
    let sockets =
        (0..config.rx_threads).map(|_| open_socket(config.tpacket)).collect::<Result<Vec<OwnedFd>>>()?;
    let mut info =
        BackendInfo { backend: "packet", interface: Some(interface.name.clone()), ..BackendInfo::default() };
    let here = local::listen_here(&config.listen, &config.multicast, &interface.name)?;
    let guard = open_for_packet(config, &interface, &here, &mut info.degraded)?;
    info.granted.extend(multicast::granted(&config.multicast, Some(&interface.name)));
    let Interface { name, index: ifindex } = interface;

    let spec = FanoutSpec::new(config, programs, &mut info.degraded);
    let members = Members::new(config, (&spec, 0), sockets, (&name, ifindex), &mut info.degraded)?;
    info.mode = format!("{} fanout {}", config.tpacket.as_str(), members.group.mode.as_str());
    let ports: Vec<u16> = config.listen.iter().map(|l| l.port).collect();
    let (filter, by_port) = listen_filter::udp_to_ports(&ports);
    describe(&mut info, config, &members.rings, members.group, by_port);
    if let Some(description) = spec.description() {
        info.grant(STEERING, description);
    }

    let listen = RingListen::new(&here, &config.listen);
    let shared = Arc::new(SharedGroup::new(config, spec, (&name, ifindex), filter, &members));
    let rolls_over = members.group.rolls_over();
    let receivers: Vec<PacketReceiver> = members
        .sockets
        .into_iter()
        .zip(members.rings)
        .zip(0..)
        .map(|((fd, ring), index)| {
            PacketReceiver::new(fd, ring, listen.clone(), index, Arc::clone(&shared), rolls_over)
        })
        .collect();
    for receiver in &receivers {
        attach_filter(receiver.fd(), &shared.filter)?;
    }
    let replacer = Some(Box::new(ProgramReplacer::new(&shared)) as Box<dyn ReplacePrograms>);
    Ok(Opened { receivers, guard: Some(guard), programs: replacer, info })
}

/// Says what the kernel granted, and what it did not. `by_port` is false when the filter lets all UDP pass.
fn describe(
    info: &mut BackendInfo,
    config: &EngineConfig,
    rings: &[Rings],
    group: FanoutGroup,
    by_port: bool,
) {
    let granted = rings.iter().map(Rings::capacity).min().unwrap_or(0);
    let RequestedSize { capacity: asked, unit, unit_bytes: bytes } = RequestedSize::of(config);
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
