//! Makes the endpoints that sockets are bound to from the listen list.

use std::net::IpAddr;

use crate::{config::Listen, error::Result, net::Interface};

/// The address that a socket, or all sockets of one SO_REUSEPORT group, are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BindAddress {
    /// Every address of both families, by one dual-stack socket (ipv6(7), IPV6_V6ONLY off).
    Any,
    /// Every IPv4 address.
    AnyV4,
    /// Every IPv6 address and none of IPv4. The listen list has no such entry; the guard beside a packet ring splits
    /// [`BindAddress::Any`] into this and [`BindAddress::AnyV4`].
    AnyV6,
    /// One address, with the index of its interface when it is link-local, else 0.
    Exact(IpAddr, u32),
}

impl BindAddress {
    /// True for a single address, which is then the destination of every datagram.
    pub(crate) fn is_exact(self) -> bool {
        matches!(self, BindAddress::Exact(..))
    }

    /// True when only IPv4 datagrams reach it.
    pub(crate) fn is_v4_only(self) -> bool {
        matches!(self, BindAddress::AnyV4 | BindAddress::Exact(IpAddr::V4(_), _))
    }
}

/// The address and port that one socket, or all sockets of one SO_REUSEPORT group, are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: BindAddress,
    /// UDP port, host order.
    pub(crate) port: u16,
}

/// The endpoints of a listen list. An entry that another entry of the same port covers is left out: its datagrams arrive
/// there, and a second socket would be refused as a conflict with the first. Link-local addresses without an interface are
/// on `interface`.
///
/// # Errors
/// [`crate::error::Code::Interface`] when such an interface does not exist.
pub(crate) fn of_listen_list(listen: &[Listen], interface: Option<&str>) -> Result<Vec<Endpoint>> {
    let all: Vec<Endpoint> =
        listen.iter().map(|entry| of_entry(entry, interface)).collect::<Result<Vec<_>>>()?;
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for endpoint in &all {
        if !is_covered(*endpoint, &all) && !endpoints.contains(endpoint) {
            endpoints.push(*endpoint);
        }
    }
    Ok(endpoints)
}

fn of_entry(entry: &Listen, interface: Option<&str>) -> Result<Endpoint> {
    let scope = match entry.scope.as_deref().or(interface) {
        Some(scope) if entry.is_link_local() => Interface::of_scope(scope)?.index,
        _ => 0,
    };
    let address = match entry.address.map(|a| a.to_canonical()) {
        None => BindAddress::Any,
        Some(IpAddr::V6(a)) if a.is_unspecified() => BindAddress::Any,
        Some(IpAddr::V4(a)) if a.is_unspecified() => BindAddress::AnyV4,
        Some(a) => BindAddress::Exact(a, scope),
    };
    Ok(Endpoint { address, port: entry.port })
}

/// True when a wider endpoint of the same port is in the list.
fn is_covered(endpoint: Endpoint, all: &[Endpoint]) -> bool {
    let has = |address| all.contains(&Endpoint { address, ..endpoint });
    match endpoint.address {
        BindAddress::Any | BindAddress::AnyV6 => false,
        BindAddress::AnyV4 => has(BindAddress::Any),
        BindAddress::Exact(a, _) => has(BindAddress::Any) || (a.is_ipv4() && has(BindAddress::AnyV4)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn covered_and_repeated_entries_are_left_out() {
        let entry = |a: &str, port| {
            let (a, scope) = a.split_once('%').map_or((a, None), |(a, s)| (a, Some(s.to_owned())));
            Listen { address: (!a.is_empty()).then(|| a.parse().unwrap()), scope, port }
        };
        let exact = |a: &str| BindAddress::Exact(a.parse().unwrap(), 0);
        let endpoint = |(address, port)| Endpoint { address, port };
        let listen = [
            entry("10.0.0.1", 1),
            entry("", 1),
            entry("::", 1),
            entry("0.0.0.0", 1),
            entry("0.0.0.0", 2),
            entry("10.0.0.1", 2),
            entry("fd00::1", 2),
            entry("::ffff:10.0.0.1", 3),
            entry("10.0.0.1", 3),
        ];
        let expected =
            [(BindAddress::Any, 1), (BindAddress::AnyV4, 2), (exact("fd00::1"), 2), (exact("10.0.0.1"), 3)];
        assert_eq!(of_listen_list(&listen, None).unwrap(), expected.map(endpoint));
        // The same link-local address on another interface is another address.
        let lo = "fe80::1".parse().unwrap();
        let listen =
            [entry("fe80::1%lo", 1), entry("fe80::1%1", 1), entry("fe80::1", 1), entry("fd00::1", 1)];
        let expected = [(BindAddress::Exact(lo, 1), 1), (exact("fd00::1"), 1)];
        assert_eq!(of_listen_list(&listen, Some("lo")).unwrap(), expected.map(endpoint));
        assert_eq!(of_listen_list(&listen[..1], Some("nosuch0")).unwrap().len(), 1);
        assert_eq!(of_listen_list(&listen[2..], Some("nosuch0")).unwrap_err().code, Code::Interface);
    }
}
