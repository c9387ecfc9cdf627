//! Describes for the user what the kernel granted when the program was attached.

use super::{
    attached_interface::AttachedInterface, attachment::LINK_HEADER, numa, umem::FRAME_BYTES, zero_copy,
};
use crate::{
    bpf::link::AttachMode,
    config::EngineConfig,
    error::Result,
    net::Interface,
    rx::{BackendInfo, socket::multicast},
};

/// Describes an attachment. The mode is that of attaching; [`super::interface_report`] adds that of the sockets.
///
/// # Errors
/// Those of [`Interface::link`].
pub(super) fn describe(
    config: &EngineConfig,
    attached: &AttachedInterface,
    rx_queues: u32,
) -> Result<BackendInfo> {
    let AttachedInterface { attachment, interface, .. } = attached;
    let link = interface.link()?;
    let driver = interface.driver().unwrap_or_else(|| "unknown".into());
    let mut degraded = Vec::new();
    if link.mtu.saturating_add(LINK_HEADER) > attachment.max_frame {
        degraded.push(format!(
            "{} has an MTU of {} bytes: frames longer than {} bytes take the slow path through the kernel",
            interface.name, link.mtu, attachment.max_frame
        ));
    }
    if attachment.mode == AttachMode::Generic && ["veth", "tun"].contains(&driver.as_str()) {
        degraded.push(format!(
            "generic XDP on a virtual interface ({driver}): datagrams that a sender on this host sends with UDP_SEGMENT \
             and that fit one MTU together arrive as one"
        ));
    }
    let ring = config.xdp_frames / 2;
    let granted = [
        ("driver", driver),
        ("mtu", link.mtu.to_string()),
        ("rx queues", rx_queues.to_string()),
        ("frames per rx queue", config.xdp_frames.to_string()),
        ("frame bytes", FRAME_BYTES.to_string()),
        ("longest frame", attachment.max_frame.to_string()),
        ("frames in several buffers", if attachment.multi_buffer { "on" } else { "off" }.into()),
        ("rx ring", ring.to_string()),
        ("fill ring", ring.to_string()),
        ("need_wakeup", "on".into()),
        ("program id", attachment.program_id().to_string()),
        ("zero-copy asked for", zero_copy::decide(config, interface).1),
    ];
    let mut info = BackendInfo {
        backend: "xdp",
        mode: attachment.mode.to_string(),
        interface: Some(interface.name.clone()),
        granted: granted.map(|(k, v)| (k.to_string(), v)).to_vec(),
        degraded,
    };
    info.granted.extend(multicast::granted(&config.multicast, config.interface.as_deref()));
    if let Some(node) = attached.node {
        describe_node(node, &config.rx_cpus, &mut info);
    }
    Ok(info)
}

/// Describes whether packet memory and receive threads are on the NIC's NUMA node, where that node is known and there is
/// more than one.
fn describe_node(node: u32, rx_cpus: &[usize], info: &mut BackendInfo) {
    match numa::placement_refusal(node) {
        None => info.granted.push(("packet memory on node".into(), format!("{node}, the NIC's"))),
        Some(sentence) => info.degraded.push(sentence),
    }
    let remote = numa::remote_cpus(node, rx_cpus);
    if !remote.is_empty() {
        info.degraded.push(format!(
            "receive CPUs {remote:?} are not on the NIC's NUMA node {node}: name CPUs of that node in MILLRACE_RX_CPUS"
        ));
    }
}

/// The sentence that says that the interface exists and carries nothing.
pub(super) fn link_down(interface: &Interface) -> Option<String> {
    let state = interface.link().ok()?.operstate;
    let down = matches!(state, "down" | "lowerlayerdown");
    down.then(|| format!("{} is down: nothing arrives until it is up", interface.name))
}
