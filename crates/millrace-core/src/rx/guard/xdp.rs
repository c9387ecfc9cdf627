//! The guard for `xdp`, whose program takes frames away from the stack, so that all that still reaches the stack is to be
//! delivered.

use super::{
    endpoints,
    memberships::Memberships,
    receiver::{GuardReceiver, GuardSocket},
    role::Role,
};
use crate::{
    config::EngineConfig,
    error::Result,
    rx::socket::{bind::bind_one, multicast, options::SocketOptions},
    sys,
};

/// Opens the guard for `config.listen`, with one socket for each endpoint. Its receiver delivers everything, puts
/// [`crate::datagram::flags::SLOW_PATH`] on every datagram, has rx queue 0, and counts losses as `guard_rcvbuf`.
///
/// # Errors
/// [`crate::error::Code::Port`] when a port is taken, by a second Millrace too; [`crate::error::Code::Permission`] for a
/// privileged port; [`crate::error::Code::Config`] for an address this host does not have and for a source-specific
/// multicast group; [`crate::error::Code::Interface`]; [`crate::error::Code::Kernel`].
pub fn open_for_xdp(config: &EngineConfig) -> Result<GuardReceiver> {
    let interface = config.interface.as_deref();
    let multicast_groups = multicast::with_default_interface(&config.multicast, interface);
    let mut options = SocketOptions::without_timestamps(config.socket_rcvbuf);
    let (mut sockets, mut addresses) = (Vec::new(), Vec::new());
    for endpoint in endpoints::of_config(config, &multicast_groups, interface)? {
        let bound = bind_one(endpoint, &mut |_, fd, ipv6| {
            sys::multicast::own_groups_only(fd, ipv6);
            options.set(fd, ipv6, !endpoint.address.is_exact())
        })?;
        multicast::join(&multicast_groups, endpoint, &[&bound.fd])?;
        addresses.push(endpoint.address);
        sockets.push(GuardSocket::new(bound, Role::AllDatagrams));
    }
    // Only xdp goes on when its interface was removed, so only its guard has to join the multicast groups again.
    let memberships = Memberships::new(&multicast_groups, config, addresses);
    Ok(GuardReceiver::beside_xdp(sockets, memberships))
}
