//! Resolves the target of a run: from its text to addresses, an interface and MAC addresses.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use millrace_core::error::{Code, Error, Result};

use crate::{
    config::{RunConfig, Via},
    sys::netlink::{Link, Netlink},
};

/// Length of the UDP header, in bytes.
const UDP_HEADER: usize = 8;

/// The destination of the datagrams, and the interface they leave by.
pub(crate) struct Destination {
    pub(crate) target: IpAddr,
    /// Destination ports; the flows take them in turn.
    pub(crate) ports: Vec<u16>,
    /// Source address, if it is given or the raw paths need it.
    pub(crate) source: Option<IpAddr>,
    pub(crate) link: Link,
    /// The MAC addresses that the raw paths write; zero with sockets.
    pub(crate) src_mac: [u8; 6],
    pub(crate) dst_mac: [u8; 6],
    netlink: Netlink,
}

impl Destination {
    /// Resolves the target of a run, in the network namespace of the calling thread.
    pub(crate) fn resolve(config: &RunConfig) -> Result<Self> {
        let (target, ports) = target(config)?;
        if config.src_ip.is_some_and(|s| s.is_ipv4() != target.is_ipv4()) {
            return Err(Error::new(
                Code::Config,
                format!("source address {:?} and target {target}: expected the same family", config.src_ip),
            ));
        }
        let kernel = |e| Error::os(Code::Kernel, "rtnetlink socket", e);
        let netlink = Netlink::open().map_err(kernel)?;
        let named = config.interface.as_deref().map(|name| link_by_name(&netlink, name)).transpose()?;
        let route = netlink.route(target, named.as_ref().map(|l| l.index));
        let link = match (named, &route) {
            (Some(link), _) => link,
            (None, Ok(r)) => netlink
                .link_by_index(r.ifindex)
                .map_err(|e| Error::os(Code::Interface, format!("interface of the route to {target}"), e))?,
            (None, Err(e)) => {
                let e = e.raw_os_error().map_or_else(|| e.kind().into(), std::io::Error::from_raw_os_error);
                return Err(Error::os(Code::Interface, format!("no route to {target}"), e));
            }
        };
        if !link.up {
            return Err(Error::new(
                Code::Interface,
                format!("interface {}: is down; expected it up", link.name),
            ));
        }
        let mut destination = Destination {
            target,
            ports,
            source: config.src_ip,
            link,
            src_mac: [0; 6],
            dst_mac: [0; 6],
            netlink,
        };
        if config.via != Via::Socket {
            let route = route.ok();
            let hop = route.and_then(|r| r.gateway).unwrap_or(target);
            destination.source =
                config.src_ip.or(route.and_then(|r| r.source)).or_else(|| source_for(target));
            destination.prepare_raw(config, hop)?;
        }
        Ok(destination)
    }

    /// Finds what the raw paths need in addition: a packet size that fits, and MAC addresses.
    fn prepare_raw(&mut self, config: &RunConfig, hop: IpAddr) -> Result<()> {
        let link = &self.link;
        if matches!(self.target, IpAddr::V4(a) if a.is_loopback()) {
            return Err(Error::new(
                Code::Unsupported,
                format!(
                    "target {}: Linux drops raw frames to 127.0.0.0/8 as martians; expected --via socket or [::1]",
                    self.target
                ),
            ));
        }
        if self.source.is_none() {
            return Err(Error::new(
                Code::Interface,
                format!("no source address for {} on {}; expected --src-ip", self.target, link.name),
            ));
        }
        let largest = usize::from(config.effective_sizes().last);
        let headers = UDP_HEADER + if self.target.is_ipv4() { 20 } else { 40 };
        if largest + headers > link.mtu as usize {
            return Err(Error::new(
                Code::Config,
                format!(
                    "size {largest}: the packet would have {} bytes, the MTU of {} is {}; expected at most {} with --via {} \
                     (frames are not fragmented)",
                    largest + headers,
                    link.name,
                    link.mtu,
                    (link.mtu as usize).saturating_sub(headers),
                    config.via
                ),
            ));
        }
        self.src_mac = config.src_mac.map(|m| m.0).or(link.mac).unwrap_or_default();
        self.dst_mac = match config.dst_mac {
            Some(mac) => mac.0,
            // Loopback has no addresses; the kernel's own frames on it carry zeros.
            None if link.loopback => [0; 6],
            None => self.neighbour(hop)?,
        };
        Ok(())
    }

    /// Returns the MAC address of the next hop. When the neighbour table does not have it, this makes the kernel resolve it,
    /// and waits up to a second for that.
    fn neighbour(&self, hop: IpAddr) -> Result<[u8; 6]> {
        let (index, name) = (self.link.index, &self.link.name);
        let query = || {
            self.netlink
                .neighbour(index, hop)
                .map_err(|e| Error::os(Code::Kernel, format!("neighbour table, {hop} on {name}"), e))
        };
        if let Some(mac) = query()? {
            return Ok(mac);
        }
        // This fails without CAP_NET_ADMIN; then only what the table has can be used.
        let requested = self.netlink.resolve(index, hop).is_ok();
        let end = Instant::now() + Duration::from_secs(1);
        while requested && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
            if let Some(mac) = query()? {
                return Ok(mac);
            }
        }
        Err(Error::new(
            Code::Interface,
            format!(
                "the MAC of {hop} on {name} is unknown; expected it in the neighbour table, or --dst-mac"
            ),
        ))
    }

    /// The destination port of a flow.
    pub(crate) fn port(&self, flow: u32) -> u16 {
        self.ports[flow as usize % self.ports.len()]
    }

    /// The interface's `tx_dropped` counter now.
    pub(crate) fn tx_dropped(&self) -> u64 {
        self.netlink.link_by_index(self.link.index).map_or(self.link.tx_dropped, |l| l.tx_dropped)
    }
}

fn link_by_name(netlink: &Netlink, name: &str) -> Result<Link> {
    netlink.link_by_name(name).map_err(|e| {
        Error::os(Code::Interface, format!("interface {name:?}: expected the name of an interface here"), e)
    })
}

fn target(config: &RunConfig) -> Result<(IpAddr, Vec<u16>)> {
    let text = config.target.as_str();
    let bad = |why: String| {
        Error::new(
            Code::Config,
            format!("target {text:?}: {why}; expected HOST:PORT or [IPV6]:PORT (or HOST with --ports)"),
        )
    };
    let first = |found: std::io::Result<std::vec::IntoIter<SocketAddr>>| {
        found
            .map_err(|e| bad(format!("not resolvable ({e})")))?
            .next()
            .ok_or_else(|| bad("resolves to no address".into()))
    };
    let has_port = text.parse::<IpAddr>().is_err()
        && text.rsplit_once(':').is_some_and(|(h, p)| !h.is_empty() && p.parse::<u16>().is_ok());
    if has_port {
        let at = first(text.to_socket_addrs())?;
        if at.port() == 0 && config.ports.is_empty() {
            return Err(bad("port 0".into()));
        }
        return Ok((at.ip(), if config.ports.is_empty() { vec![at.port()] } else { config.ports.clone() }));
    }
    if config.ports.is_empty() {
        return Err(bad("no port".into()));
    }
    let host = text.trim_start_matches('[').trim_end_matches(']');
    Ok((first((host, 0).to_socket_addrs())?.ip(), config.ports.clone()))
}

/// The source address that the kernel would choose. connect(2) on a UDP socket makes it choose, and sends nothing.
fn source_for(target: IpAddr) -> Option<IpAddr> {
    let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let probe = UdpSocket::bind(any).ok()?;
    probe.connect((target, 9)).ok()?;
    probe.local_addr().ok().map(|a| a.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let get = |text: &str, ports: &[u16]| {
            let mut config = RunConfig::to(text);
            config.ports = ports.to_vec();
            target(&config).map(|(ip, ports)| (ip.to_string(), ports)).map_err(|e| e.to_string())
        };
        assert_eq!(get("127.0.0.1:9", &[]).unwrap(), ("127.0.0.1".into(), vec![9]));
        assert_eq!(get("[::1]:9", &[]).unwrap(), ("::1".into(), vec![9]));
        assert_eq!(get("::1", &[7, 8]).unwrap(), ("::1".into(), vec![7, 8]));
        assert_eq!(get("127.0.0.1:9", &[7]).unwrap(), ("127.0.0.1".into(), vec![7]));
        for bad in ["127.0.0.1", "", ":9", "127.0.0.1:0", "127.0.0.1:99999", "no such host:9"] {
            let e = get(bad, &[]).unwrap_err();
            assert!(
                e.starts_with("MILLRACE_E_CONFIG: ") && e.contains("expected") && !e.contains('\n'),
                "{e}"
            );
        }
    }
}
