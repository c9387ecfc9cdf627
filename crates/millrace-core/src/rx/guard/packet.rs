//! The guard for `packet`, whose ring has a copy of everything that arrives on its interface.

use super::{
    endpoint_sockets::EndpointSockets, endpoints, fragments, receiver::GuardReceiver, ring_interface,
    selection::Selection,
};
use crate::{
    config::{EngineConfig, FanoutFlag, Listen, ListenSet, Multicast},
    error::{Code, Error, Result},
    net::{Interface, TopologyMonitor, link_local_addresses},
    rx::socket::multicast,
};

/// Opens the guard beside rings on `ring` that take `ring_listen`, the listen list with every address written out. Its
/// receiver puts [`crate::datagram::flags::SLOW_PATH`] on every datagram and has rx queue 0. What is not granted is added
/// to `degraded`, one sentence each.
///
/// # Errors
/// [`Code::Port`] when a port is taken, by a second Millrace too; [`Code::Permission`] for a privileged port;
/// [`Code::Config`] for an address this host does not have and for a source-specific multicast group;
/// [`Code::Interface`] on a port of Open vSwitch or a VRF; [`Code::Kernel`] for any other refusal, also when even the shortest
/// selection program of an endpoint does not fit net.core.optmem_max.
pub fn open_for_packet(
    config: &EngineConfig,
    ring: &Interface,
    ring_listen: &[Listen],
    degraded: &mut Vec<String>,
) -> Result<GuardReceiver> {
    let topology = TopologyMonitor::open(ring.index)
        .map_err(|e| Error::os(Code::Kernel, format!("asking rtnetlink what stands on {}", ring.name), e))?;
    ring_interface::validate(ring, &topology)?;
    degraded.extend(ring_interface::describe_master(ring, &topology));
    let inspect_ipv4 = inspects_ipv4(config, degraded);
    let multicast_groups = multicast::with_default_interface(&config.multicast, Some(&ring.name));
    let endpoints = endpoints::of_config(config, &multicast_groups, Some(&ring.name))?;
    let (multicast_groups_in_ring, multicast_groups_elsewhere): (Vec<_>, Vec<_>) = multicast_groups
        .into_iter()
        .partition(|multicast_group| is_heard_by_ring(multicast_group, &topology));
    let link_local = link_local_addresses().map_err(|e| Error::os(Code::Kernel, "getifaddrs", e))?;
    let opener = EndpointSockets {
        config,
        topology: &topology,
        ring_listen,
        multicast_groups_in_ring: &multicast_groups_in_ring,
        multicast_groups_elsewhere: &multicast_groups_elsewhere,
        link_local: &link_local,
        inspect_ipv4,
    };
    let (mut sockets, mut holders) = (Vec::new(), Vec::new());
    for endpoint in endpoints.into_iter().flat_map(endpoints::by_family) {
        if endpoints::is_link_local_elsewhere(endpoint, ring) {
            sockets.push(opener.bind_one(endpoint)?);
        } else {
            let (holder, readers) = opener.bind_reuseport_group(endpoint)?;
            holders.push(holder);
            sockets.extend(readers);
        }
    }
    let selection = Selection::new(topology, ListenSet::new(ring_listen), holders, link_local);
    degraded.extend(selection.omitted().and_then(|omitted| omitted.describe(ring)));
    Ok(GuardReceiver::beside_ring(sockets, selection))
}

/// Whether the guard has to find reassembled IPv4 datagrams: where the fanout group does not reassemble them for the ring,
/// and the kernel can tell which they are.
fn inspects_ipv4(config: &EngineConfig, degraded: &mut Vec<String>) -> bool {
    if config.fanout_flags.contains(&FanoutFlag::Defrag) {
        return false;
    }
    let supported = fragments::try_fragment_sizes_ipv4();
    let inspects = supported.is_ok();
    degraded.push(match supported {
        Ok(()) => "fanout flag defrag is off: the guard reads a second copy of every IPv4 datagram, to find those \
                   that were fragments"
            .into(),
        Err(e) => format!(
            "fanout flag defrag is off and IP_RECVFRAGSIZE (Linux 4.10) is refused ({e}): IPv4 fragments are lost"
        ),
    });
    inspects
}

/// True for a multicast group on an interface whose frames the ring has. A name that no interface has counts as one: joining
/// the multicast group reports it.
fn is_heard_by_ring(multicast_group: &Multicast, topology: &TopologyMonitor) -> bool {
    match multicast_group.interface.as_deref().map(Interface::by_name) {
        Some(Ok(interface)) => topology.with_upper_devices().contains(&interface.index),
        Some(Err(_)) | None => true,
    }
}
