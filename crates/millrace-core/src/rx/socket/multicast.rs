//! Joining multicast groups (RFC 3678 protocol-independent interface, ip(7)).
//!
//! The kernel gives a multicast datagram to *every* socket that matches, not to one of a SO_REUSEPORT group. So each
//! socket gets only groups it joined itself (IP_MULTICAST_ALL off), and each group is joined by one socket a place, for
//! all its interfaces and sources: groups spread over the receivers, one group stays at one receiver.

use std::{net::IpAddr, os::fd::OwnedFd};

use super::bind::{Place, Target};
use crate::{
    config::Multicast,
    error::{Code, Error, Result},
    net::Interface,
    sys,
};

/// True when a socket of this place can get datagrams of the group.
pub(crate) fn fits(target: Target, group: IpAddr) -> bool {
    match target {
        Target::Any => true,
        Target::AnyV4 => group.is_ipv4(),
        Target::AnyV6 => group.is_ipv6(),
        Target::Exact(address, _) => address == group,
    }
}

/// Joins every group that fits `place`, each on one of `sockets`, in turn. One group on two sockets would come twice,
/// because a membership on one interface lets in what another's brought to the host.
pub(crate) fn join(groups: &[Multicast], place: Place, sockets: &[&OwnedFd]) -> Result<()> {
    for g in groups.iter().filter(|g| fits(place.0, g.group)) {
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

/// The groups with an interface for each that has none: `default`, where there is one.
pub(crate) fn on(groups: &[Multicast], default: Option<&str>) -> Vec<Multicast> {
    let mut groups = groups.to_vec();
    for g in &mut groups {
        g.interface = g.interface.take().or_else(|| default.map(Into::into));
    }
    groups
}

/// What was joined, and on which interfaces, for the list of what was granted.
pub(crate) fn granted(groups: &[Multicast], default: Option<&str>) -> Option<(String, String)> {
    let of = |g: &Multicast| match g.interface {
        Some(_) => g.to_string(),
        None => format!("{g} (interface by the kernel's routes)"),
    };
    let all: Vec<String> = on(groups, default).iter().map(of).collect();
    (!all.is_empty()).then(|| ("multicast".into(), all.join(", ")))
}

/// A group that no listen entry can receive is a mistake; so is one from a source and from any, of which the kernel would
/// keep the narrower.
pub(crate) fn check(groups: &[Multicast], places: &[Place]) -> Result<()> {
    let from_any = |g: &Multicast| {
        let same = |o: &Option<String>| o.is_none() || g.interface.is_none() || *o == g.interface;
        groups.iter().any(|o| o.group == g.group && o.source.is_none() && same(&o.interface))
    };
    if let Some(g) = groups.iter().find(|g| g.source.is_some() && from_any(g)) {
        let message = format!("multicast {g}: the same group is listed without a source, which includes it");
        return Err(Error::new(Code::Config, message));
    }
    match groups.iter().find(|g| !places.iter().any(|p| fits(p.0, g.group))) {
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
