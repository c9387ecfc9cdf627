//! Which datagrams are for this host when the listen list names no address.
//!
//! A UDP socket bound to "any address" gets what the IP stack delivers locally. XDP and AF_PACKET sit below that
//! decision and also see what this machine merely forwards, for example to pods that use the same port. So "any address"
//! becomes the addresses that this network namespace has now. The guard serves what is for an address added later, or
//! for a local route (ip-route(8)).

use std::net::IpAddr;

use crate::{
    config::{Listen, Multicast},
    error::{Code, Error, Result},
    net::{self, Interface},
};

/// The listen list as a backend on the interface `ring` sees it: every "any address" is replaced by this network
/// namespace's own addresses and the multicast groups, and entries with the link-local scope of another interface are
/// left out.
///
/// # Errors
/// [`Code::Kernel`] when the addresses cannot be read; [`Code::Interface`] when there is none to listen on, or a scope
/// names no interface; [`Code::Config`] when every entry is on another interface.
pub(super) fn listen_here(listen: &[Listen], multicast: &[Multicast], ring: &str) -> Result<Vec<Listen>> {
    let mut addresses = net::local_addresses().map_err(|e| Error::os(Code::Kernel, "getifaddrs", e))?;
    addresses.extend(multicast.iter().map(|m| m.group));
    let mut on_ring = Vec::with_capacity(listen.len());
    for l in listen {
        let elsewhere = match &l.scope {
            Some(scope) => Interface::of_scope(scope)?.name != ring,
            None => false,
        };
        if !elsewhere {
            on_ring.push(l);
        }
    }
    if let (true, Some(first)) = (on_ring.is_empty(), listen.first()) {
        let message =
            format!("listen address {first}: it is not on {ring}, where MILLRACE_INTERFACE says to receive");
        return Err(Error::new(Code::Config, message));
    }
    let here: Vec<Listen> = on_ring.into_iter().flat_map(|l| expand(l, &addresses)).collect();
    if here.is_empty() {
        return Err(Error::new(Code::Interface, "no interface has an address: nothing can be for this host"));
    }
    Ok(here)
}

fn expand(l: &Listen, addresses: &[IpAddr]) -> Vec<Listen> {
    let any = |family: fn(&IpAddr) -> bool| {
        let own = addresses.iter().copied().filter(family);
        own.map(|a| Listen { address: Some(a), scope: None, port: l.port }).collect()
    };
    match l.address {
        None => any(|_| true),
        Some(IpAddr::V6(a)) if a.is_unspecified() => any(|_| true),
        Some(IpAddr::V4(a)) if a.is_unspecified() => any(IpAddr::is_ipv4),
        Some(_) => vec![l.clone()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_becomes_the_hosts_own() {
        let own: Vec<IpAddr> = ["192.0.2.2", "192.0.2.255", "2001:db8::2"].map(|a| a.parse().unwrap()).into();
        let of = |address: Option<&str>| {
            let l = Listen { address: address.map(|a| a.parse().unwrap()), scope: None, port: 9 };
            expand(&l, &own).iter().map(|l| (l.address.unwrap().to_string(), l.port)).collect::<Vec<_>>()
        };
        let all = own.iter().map(|a| (a.to_string(), 9)).collect::<Vec<_>>();
        assert_eq!(of(None), all);
        assert_eq!(of(Some("::")), all);
        assert_eq!(of(Some("0.0.0.0")), all[..2]);
        assert_eq!(of(Some("198.51.100.7")), [("198.51.100.7".to_owned(), 9)]);
    }

    #[test]
    fn loopback_is_among_the_hosts_own() {
        let own = net::local_addresses().unwrap();
        assert!(own.contains(&"127.0.0.1".parse().unwrap()), "{own:?}");
        assert!(own.contains(&"255.255.255.255".parse().unwrap()), "limited broadcast is for every host");
    }
}
