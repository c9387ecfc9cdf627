//! From the text of a plan to addresses, an interface and MACs.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use millrace_core::error::{Code, Error, Result};

use crate::{
    plan::{Plan, Via},
    sys::netlink::{Link, Netlink},
};

/// UDP header bytes.
const UDP: usize = 8;

/// Where the datagrams go.
pub(crate) struct Way {
    pub(crate) target: IpAddr,
    pub(crate) ports: Vec<u16>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) link: Link,
    /// Raw paths only, zero otherwise.
    pub(crate) src_mac: [u8; 6],
    pub(crate) dst_mac: [u8; 6],
    netlink: Netlink,
}

impl Way {
    /// Resolves a plan in the calling thread's network namespace.
    pub(crate) fn find(plan: &Plan) -> Result<Self> {
        let (target, ports) = target(plan)?;
        if plan.src_ip.is_some_and(|s| s.is_ipv4() != target.is_ipv4()) {
            return Err(Error::new(
                Code::Config,
                format!("source address {:?} and target {target}: expected the same family", plan.src_ip),
            ));
        }
        let kernel = |e| Error::os(Code::Kernel, "rtnetlink socket", e);
        let netlink = Netlink::open().map_err(kernel)?;
        let named = plan.interface.as_deref().map(|name| by_name(&netlink, name)).transpose()?;
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
        let mut way =
            Way { target, ports, source: plan.src_ip, link, src_mac: [0; 6], dst_mac: [0; 6], netlink };
        if plan.via != Via::Socket {
            let route = route.ok();
            let hop = route.and_then(|r| r.gateway).unwrap_or(target);
            way.source = plan.src_ip.or(route.and_then(|r| r.source)).or_else(|| source_for(target));
            way.prepare_raw(plan, hop)?;
        }
        Ok(way)
    }

    fn prepare_raw(&mut self, plan: &Plan, hop: IpAddr) -> Result<()> {
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
        let largest = usize::from(plan.effective_sizes().last);
        let headers = UDP + if self.target.is_ipv4() { 20 } else { 40 };
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
                    plan.via
                ),
            ));
        }
        self.src_mac = plan.src_mac.map(|m| m.0).or(link.mac).unwrap_or_default();
        self.dst_mac = match plan.dst_mac {
            Some(mac) => mac.0,
            // Loopback has no addresses; the kernel's own frames on it carry zeros.
            None if link.loopback => [0; 6],
            None => self.neighbour(hop)?,
        };
        Ok(())
    }

    /// The next hop's MAC: from the table, else the kernel is asked to find it and given a second.
    fn neighbour(&self, hop: IpAddr) -> Result<[u8; 6]> {
        let (index, name) = (self.link.index, &self.link.name);
        let look = || {
            self.netlink
                .neighbour(index, hop)
                .map_err(|e| Error::os(Code::Kernel, format!("neighbour table, {hop} on {name}"), e))
        };
        if let Some(mac) = look()? {
            return Ok(mac);
        }
        // Without CAP_NET_ADMIN this fails; then only what is known already can be used.
        let asked = self.netlink.resolve(index, hop).is_ok();
        let end = Instant::now() + Duration::from_secs(1);
        while asked && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
            if let Some(mac) = look()? {
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

    /// tx_dropped of the interface now.
    pub(crate) fn tx_dropped(&self) -> u64 {
        self.netlink.link_by_index(self.link.index).map_or(self.link.tx_dropped, |l| l.tx_dropped)
    }
}

fn by_name(netlink: &Netlink, name: &str) -> Result<Link> {
    netlink.link_by_name(name).map_err(|e| {
        Error::os(Code::Interface, format!("interface {name:?}: expected the name of an interface here"), e)
    })
}

fn target(plan: &Plan) -> Result<(IpAddr, Vec<u16>)> {
    let text = plan.target.as_str();
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
        if at.port() == 0 && plan.ports.is_empty() {
            return Err(bad("port 0".into()));
        }
        return Ok((at.ip(), if plan.ports.is_empty() { vec![at.port()] } else { plan.ports.clone() }));
    }
    if plan.ports.is_empty() {
        return Err(bad("no port".into()));
    }
    let host = text.trim_start_matches('[').trim_end_matches(']');
    Ok((first((host, 0).to_socket_addrs())?.ip(), plan.ports.clone()))
}

/// The source address the kernel would choose: connect(2) on UDP sends nothing.
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
            let mut plan = Plan::to(text);
            plan.ports = ports.to_vec();
            target(&plan).map(|(ip, ports)| (ip.to_string(), ports)).map_err(|e| e.to_string())
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
