//! The guard: bound sockets that own our ports beside a backend that reads below the stack.
//!
//! It keeps the host from answering with ICMP port unreachable, makes a second owner of the port visible as an error,
//! and receives what the fast path cannot read. This is the one for `xdp`, where the stack only gets what the program
//! passed on, so that all of it is to be delivered; for `packet` see [`super::packet`].

use crate::{
    config::{EngineConfig, Multicast, Timestamps},
    error::{Code, Error, Result},
    rx::socket::{Options, SocketReceiver, bind, membership::Memberships, multicast},
};

/// Opens the guard for `config.listen`. Its receiver delivers everything, puts [`crate::datagram::flags::SLOW_PATH`] on
/// every datagram, has rx queue 0, and counts losses as `guard_rcvbuf`.
///
/// # Errors
/// As [`super::open`]; [`Code::Config`] for a source-specific multicast group.
pub fn open_for_xdp(config: &EngineConfig) -> Result<SocketReceiver> {
    let mut options = options(config.socket_rcvbuf);
    let interface = config.interface.as_deref();
    let groups = multicast::on(&config.multicast, interface);
    let places = checked_places(config, &groups, interface)?;
    let (mut readers, mut targets) = (Vec::new(), Vec::new());
    for place in places {
        let exact = place.0.is_exact();
        let group = bind::bind_group(place, 1, &mut |fd, v6| options.receive(fd, v6, !exact))?;
        for bound in &group {
            crate::sys::multicast::own_groups_only(&bound.fd, !matches!(place.0, bind::Target::AnyV4));
            multicast::join(&groups, place, &[&bound.fd])?;
            targets.push(place.0);
        }
        readers.extend(group);
    }
    // Only xdp goes on when its interface was removed.
    let memberships = Memberships::new(&groups, config, targets);
    Ok(SocketReceiver::new(readers, 0).into_guard().with_memberships(memberships))
}

/// Kernel times on any one socket make the stack stamp every packet of the host: not worth it for the slow path.
pub(crate) fn options(rcvbuf: u32) -> Options {
    Options::new(rcvbuf, Timestamps::Pass)
}

/// The places to hold, when the multicast groups can be had beside a fast path.
pub(crate) fn checked_places(
    config: &EngineConfig,
    groups: &[Multicast],
    interface: Option<&str>,
) -> Result<Vec<bind::Place>> {
    if let Some(g) = groups.iter().find(|g| g.source.is_some()) {
        let message = format!("multicast {g}: a source-specific group needs MILLRACE_BACKEND=socket");
        return Err(Error::new(Code::Config, message));
    }
    let places = bind::plan(&config.listen, interface)?;
    multicast::check(groups, &places)?;
    Ok(places)
}
