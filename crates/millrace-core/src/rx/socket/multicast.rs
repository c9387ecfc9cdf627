//! Joining multicast groups (RFC 3678 protocol-independent interface, ip(7)).
//!
//! The kernel gives a multicast datagram to *every* socket that matches, not to one of a SO_REUSEPORT group. So each
//! socket gets only the groups it joined itself ([`crate::sys::multicast::own_groups_only`]), and each group is joined by
//! one socket of an endpoint, for all its interfaces and sources. Different groups are spread over the receivers; one group
//! stays at one receiver.

use std::{net::IpAddr, os::fd::OwnedFd};

use super::endpoints::{BindAddress, Endpoint};
use crate::{
    config::Multicast,
    error::{Code, Error, Result},
    net::Interface,
    sys,
};

/// True when a socket bound to `address` can receive datagrams of the group.
pub(crate) fn can_receive(address: BindAddress, group: IpAddr) -> bool {
    match address {
        BindAddress::Any => true,
        BindAddress::AnyV4 => group.is_ipv4(),
        BindAddress::AnyV6 => group.is_ipv6(),
        BindAddress::Exact(address, _) => address == group,
    }
}

/// Joins every group that `endpoint` can receive. A group listed for several interfaces or sources is joined on one of
/// `sockets`, the next group on the next socket: one group on two sockets would be delivered twice, because a membership on
/// one interface also lets in what another interface brought to the host.
///
/// # Errors
/// [`Code::Interface`] when an interface does not exist or no route names one; [`Code::Config`] for a group listed twice,
/// or addresses that do not fit each other; [`Code::Kernel`].
pub(crate) fn join(groups: &[Multicast], endpoint: Endpoint, sockets: &[&OwnedFd]) -> Result<()> {
    for g in groups.iter().filter(|g| can_receive(endpoint.address, g.group)) {
        let first = groups.iter().position(|other| other.group == g.group).unwrap_or(0);
        let index = match &g.interface {
            Some(name) => Interface::by_name(name)?.index,
            None => 0,
        };
        sys::multicast::join_group(sockets[first % sockets.len()], g.group, index, g.source)
            .map_err(|e| refused(g, e))?;
    }
    Ok(())
}

/// Returns the groups, with `default` as the interface of each that names none; without `default` those stay without one.
pub(crate) fn with_default_interface(groups: &[Multicast], default: Option<&str>) -> Vec<Multicast> {
    let mut groups = groups.to_vec();
    for g in &mut groups {
        g.interface = g.interface.take().or_else(|| default.map(Into::into));
    }
    groups
}

/// The entry for [`crate::rx::BackendInfo::granted`]: which groups were joined, and on which interfaces. `None` without
/// groups.
pub(crate) fn granted(groups: &[Multicast], default: Option<&str>) -> Option<(String, String)> {
    let describe = |g: &Multicast| match g.interface {
        Some(_) => g.to_string(),
        None => format!("{g} (interface by the kernel's routes)"),
    };
    let all: Vec<String> = with_default_interface(groups, default).iter().map(describe).collect();
    (!all.is_empty()).then(|| ("multicast".into(), all.join(", ")))
}

/// Refuses groups that cannot mean what was intended: a group that no endpoint can receive, and a group listed both from
/// one source and from all, of which the kernel would keep the narrower.
///
/// # Errors
/// [`Code::Config`].
pub(crate) fn validate(groups: &[Multicast], endpoints: &[Endpoint]) -> Result<()> {
    let is_listed_from_all = |g: &Multicast| {
        let same = |o: &Option<String>| o.is_none() || g.interface.is_none() || *o == g.interface;
        groups.iter().any(|o| o.group == g.group && o.source.is_none() && same(&o.interface))
    };
    if let Some(g) = groups.iter().find(|g| g.source.is_some() && is_listed_from_all(g)) {
        let message = format!("multicast {g}: the same group is listed without a source, which includes it");
        return Err(Error::new(Code::Config, message));
    }
    match groups.iter().find(|g| !endpoints.iter().any(|e| can_receive(e.address, g.group))) {
        None => Ok(()),
        Some(g) => {
            let message = format!(
                "multicast {g}: no listen entry can receive it: listen on a port without an address, or on the \
                 group itself"
            );
            Err(Error::new(Code::Config, message))
        }
    }
}

fn refused(g: &Multicast, e: std::io::Error) -> Error {
    let (code, why) = match e.raw_os_error() {
        Some(libc::ENODEV) => (Code::Interface, "no route names an interface for it: add %interface"),
        Some(libc::EADDRINUSE) => (Code::Config, "it is listed twice"),
        Some(libc::ENOBUFS) => (Code::Kernel, "too many groups: raise net.ipv4.igmp_max_memberships"),
        Some(libc::EADDRNOTAVAIL | libc::EINVAL) => (Code::Config, "group, source and interface do not fit"),
        _ => (Code::Kernel, "unexpected"),
    };
    Error::os(code, format!("joining multicast {g}: {why}"), e)
}
