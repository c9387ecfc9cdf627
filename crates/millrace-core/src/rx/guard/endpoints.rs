//! The endpoints whose ports the guard holds.

use crate::{
    config::{EngineConfig, Multicast},
    error::{Code, Error, Result},
    net::Interface,
    rx::socket::{
        endpoints::{self, BindAddress, Endpoint},
        multicast,
    },
    sys::socket,
};

/// The endpoints of the listen list. Link-local addresses without an interface are on `interface`.
///
/// # Errors
/// [`Code::Config`] for a source-specific multicast group, whose source nothing below the stack checks, and for multicast
/// groups that no endpoint can receive; [`Code::Interface`] when an interface does not exist.
pub(super) fn of_config(
    config: &EngineConfig,
    multicast_groups: &[Multicast],
    interface: Option<&str>,
) -> Result<Vec<Endpoint>> {
    if let Some(g) = multicast_groups.iter().find(|g| g.source.is_some()) {
        let message = format!("multicast {g}: a source-specific group needs MILLRACE_BACKEND=socket");
        return Err(Error::new(Code::Config, message));
    }
    let endpoints = endpoints::of_listen_list(&config.listen, interface)?;
    multicast::validate(multicast_groups, &endpoints)?;
    Ok(endpoints)
}

/// The endpoint as endpoints of one address family each, for a selection program must know which IP header it reads.
pub(super) fn by_family(endpoint: Endpoint) -> Vec<Endpoint> {
    let with = |address| Endpoint { address, ..endpoint };
    match endpoint.address {
        BindAddress::Any if socket::kernel_has_ipv6() => {
            vec![with(BindAddress::AnyV4), with(BindAddress::AnyV6)]
        }
        BindAddress::Any => vec![with(BindAddress::AnyV4)],
        _ => vec![endpoint],
    }
}

/// True for a link-local address of another interface than the ring's, be it one that hands up the ring's frames: on the
/// ring's interface it is another address, so that the ring leaves all its datagrams to the guard.
pub(super) fn is_link_local_elsewhere(endpoint: Endpoint, ring: &Interface) -> bool {
    matches!(endpoint.address, BindAddress::Exact(_, scope) if scope != 0 && scope != ring.index)
}
