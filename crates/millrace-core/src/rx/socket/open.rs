//! Opens the socket backend.

use std::sync::Arc;

use super::{
    bind::{BoundSocket, bind_reuseport_group},
    endpoints, multicast,
    options::SocketOptions,
    receiver::SocketReceiver,
    reuseport_groups::ReuseportGroups,
};
use crate::{
    config::{EngineConfig, FanoutMode},
    datagram::Addr,
    error::{Code, Error, Result},
    net,
    rx::{BackendInfo, Opened, ReplacePrograms, RulePrograms},
    sys,
};

/// Opens `config.rx_threads` receivers, each with one socket for each endpoint of the listen list. With a fanout mode that
/// follows the rules, the program in `programs` selects the socket, and so the receiver, of each datagram. The kernel runs
/// it with the UDP payload at offset 0, and spreads by its hash what the program sends beyond the last socket.
///
/// # Errors
/// [`Code::Port`] when a port is taken, by a second Millrace too; [`Code::Permission`] for a privileged port;
/// [`Code::Config`] for an address this host does not have; [`Code::Interface`] for an interface it does not have.
pub fn open(config: &EngineConfig, programs: &RulePrograms) -> Result<Opened<SocketReceiver>> {
    let threads = usize::from(config.rx_threads);
    let interface = config.interface.as_deref();
    let endpoints = endpoints::of_listen_list(&config.listen, interface)?;
    let groups = multicast::with_default_interface(&config.multicast, interface);
    multicast::validate(&groups, &endpoints)?;
    let mut options = SocketOptions::new(config.socket_rcvbuf, config.socket_timestamps);
    let mut reuseport = ReuseportGroups::default();
    let mut by_thread: Vec<Vec<BoundSocket>> =
        (0..threads).map(|_| Vec::with_capacity(endpoints.len())).collect();
    for &endpoint in &endpoints {
        let sockets = bind_reuseport_group(endpoint, threads, &mut |_, fd, ipv6| {
            options.set(fd, ipv6, !endpoint.address.is_exact())?;
            options.enable_gro(fd);
            sys::multicast::own_groups_only(fd, ipv6);
            Ok(())
        })?;
        multicast::join(&groups, endpoint, &sockets.iter().map(|bound| &*bound.fd).collect::<Vec<_>>())?;
        reuseport.push(sockets.iter().map(|bound| Arc::downgrade(&bound.fd)).collect());
        for (of_thread, bound) in by_thread.iter_mut().zip(sockets) {
            of_thread.push(bound);
        }
    }
    let mut info = BackendInfo {
        backend: "socket",
        mode: if threads > 1 { "reuseport" } else { "single" }.into(),
        interface: None,
        granted: vec![(
            "sockets".into(),
            format!("{threads} threads x {} listen addresses", endpoints.len()),
        )],
        degraded: Vec::new(),
    };
    let by_rules = matches!(config.fanout, FanoutMode::Rules | FanoutMode::Cbpf | FanoutMode::Ebpf);
    let replacer: Option<Box<dyn ReplacePrograms>> = if by_rules && threads > 1 {
        let (what, granted) = reuseport.replace(programs)?;
        info.grant(what, granted);
        Some(Box::new(reuseport))
    } else {
        None
    };
    info.granted.extend(multicast::granted(&config.multicast, interface));
    options.describe(&mut info);
    Ok(Opened { receivers: receivers(by_thread)?, guard: None, programs: replacer, info })
}

/// One receiver for each thread's sockets, in index order. The first delivers broadcast and reports checksum errors: each
/// is the same for all of them.
fn receivers(by_thread: Vec<Vec<BoundSocket>>) -> Result<Vec<SocketReceiver>> {
    let mut receivers: Vec<SocketReceiver> =
        by_thread.into_iter().zip(0..).map(|(sockets, index)| SocketReceiver::new(sockets, index)).collect();
    let broadcast_addresses: Vec<Addr> = net::broadcast_addresses()
        .map_err(|e| Error::os(Code::Kernel, "getifaddrs", e))?
        .into_iter()
        .map(Addr::from)
        .collect();
    for receiver in receivers.iter_mut().skip(1) {
        receiver.leave_broadcast(&broadcast_addresses);
    }
    if let Some(first) = receivers.first_mut() {
        first.note_checksum_errors();
    }
    Ok(receivers)
}
