//! AF_XDP: frames from the driver straight into our memory, one socket, packet memory and receive thread per rx queue.
//!
//! One file per kernel concept: [`umem`] (packet memory), [`ring`] (fill and rx rings), [`socket`], `attachment`
//! (program, map, link), [`receiver`] (the pass that joins them).
//!
//! Frames the program does not take, and all frames while a queue has no socket, go up the stack as if we were not
//! there; see [`crate::bpf::xdp_program`].

use std::sync::Arc;

use crate::{
    bpf::link::AttachMode,
    config::{EngineConfig, ListenSet},
    error::{Code, Error, Result},
    net::Interface,
    rx::{BackendInfo, Opened, local},
};

mod attachment;
mod busy;
#[cfg(feature = "bench")]
pub mod count;
mod joined;
pub mod mapping;
mod numa;
pub mod receiver;
pub mod ring;
pub mod socket;
pub mod umem;
pub mod zerocopy;

use attachment::Attachment;
pub use receiver::XdpReceiver;
use umem::FRAME_BYTES;

/// Ethernet header and two VLAN tags.
const LINK_HEADER: u32 = 14 + 2 * 4;

/// Opens the backend on `config.interface`, or on the interface of the default route: the program is attached, every rx
/// queue has a socket, frames arrive from now on. The order (load, attach, then per queue fill, bind, map) suits drivers
/// that rebuild their rings on attach and those that want a filled fill ring at bind.
///
/// # Errors
/// [`Code::Interface`], [`Code::Busy`] (a foreign program or socket, left untouched), [`Code::Permission`],
/// [`Code::Unsupported`], [`Code::Kernel`]. On an error nothing stays behind.
pub fn open(config: &EngineConfig) -> Result<Opened<XdpReceiver>> {
    let interface = match &config.interface {
        Some(name) => Interface::by_name(name)?,
        None => Interface::of_default_route()?,
    };
    let mut degraded = Vec::new();
    let here = local::listen_here(&config.listen, &config.multicast)?;
    let attachment = Arc::new(Attachment::new(&interface, &here, config.xdp_mode, &mut degraded)?);
    // Counted after attaching: some drivers give XDP fewer queues than they had before.
    let queues = interface.rx_queues();
    if queues > attachment.map.entries() || u16::try_from(queues).is_err() {
        return Err(Error::new(
            Code::Interface,
            format!("{} now has {queues} rx queues, more than it could have a moment ago", interface.name),
        ));
    }
    let listen = Arc::new(ListenSet::new(&here));
    let driver = interface.driver().unwrap_or_else(|| "unknown".into());
    let (plan, why) = zerocopy::plan(config.xdp_zerocopy, &driver, zerocopy::kernel());
    let node = numa::node_of(&interface);
    let open_all = |zero_copy| {
        (0..queues)
            .map(|queue| XdpReceiver::open(&attachment, &interface, &listen, queue, config, zero_copy, node))
            .collect::<Result<Vec<_>>>()
    };
    let mut receivers = match open_all(plan.try_it) {
        Err(e) if plan.try_it && plan.may_copy && e.code == Code::Unsupported => {
            degraded.push(format!("zero-copy was refused: {}", e.message));
            open_all(false)?
        }
        result => result?,
    };
    // Not what we asked for, but what the kernel says we have.
    let zero_copy = receivers.iter().map(XdpReceiver::zero_copy).collect::<Result<Vec<_>>>()?;
    let mut info = describe(config, &interface, &attachment, queues)?;
    if zero_copy.iter().all(|z| *z) {
        info.mode = format!("{} zero-copy", attachment.mode);
    } else if zero_copy.contains(&true) {
        info.mode = format!("{} copy and zero-copy", attachment.mode);
    }
    info.granted.push(("zero-copy asked for".into(), why));
    let huge = receivers.iter().all(XdpReceiver::huge_pages);
    info.granted.push(("packet memory".into(), if huge { "2 MiB pages" } else { "ordinary pages" }.into()));
    if let Some(node) = node {
        describe_node(node, &config.rx_cpus, &mut info);
    }
    if config.xdp_prefer_busy_poll {
        prefer_busy_poll(&mut receivers, &mut info);
    }
    info.degraded.splice(0..0, degraded);
    // The guard socket is opened and put here by whoever opens a backend in earnest (see `rx::Opened::guard`); fragments,
    // IP options, extension headers and frames longer than a UMEM frame reach it by XDP_PASS.
    Ok(Opened { receivers, guard: None, info })
}

/// Makes a socket with rings and `frames` frames of packet memory, bound to nothing, and lets go of it again.
///
/// # Errors
/// [`Code::Permission`], [`Code::Unsupported`], [`Code::Kernel`].
pub fn trial(frames: u32) -> Result<()> {
    let umem = umem::Umem::new(frames, None)?;
    socket::XskSocket::new(&umem, frames / 2).map(drop)
}

/// Where the NIC's node is known and another could be meant: whether the memory is there, and the threads.
fn describe_node(node: u32, rx_cpus: &[usize], info: &mut BackendInfo) {
    match numa::refused(node) {
        None => info.granted.push(("packet memory on node".into(), format!("{node}, the NIC's"))),
        Some(why) => info.degraded.push(why),
    }
    let far = numa::far_away(node, rx_cpus);
    if !far.is_empty() {
        info.degraded.push(format!(
            "receive CPUs {far:?} are not on the NIC's NUMA node {node}: name CPUs of that node in MILLRACE_RX_CPUS"
        ));
    }
}

/// Sets the options on every socket, and says of it only what SO_INCOMING_NAPI_ID confirms.
fn prefer_busy_poll(receivers: &mut [XdpReceiver], info: &mut BackendInfo) {
    if let Err(why) = receivers.iter_mut().try_for_each(XdpReceiver::busy_poll) {
        // All or none: queues of one interface that behave differently would be hard to explain.
        receivers.iter_mut().for_each(XdpReceiver::no_busy_poll);
        info.granted.push(("preferred busy-poll".into(), "refused".into()));
        return info.degraded.push(format!("{why}; it is off on every rx queue"));
    }
    let ids: Vec<u32> = receivers.iter().map(XdpReceiver::napi_id).collect();
    if ids.contains(&0) {
        info.granted.push(("preferred busy-poll".into(), "not active".into()));
        info.degraded.push(
            "preferred busy-polling is set but not active: the kernel does not know the NAPI of the rx queue \
             (SO_INCOMING_NAPI_ID is 0), for which the driver must tell it; before Linux 6.13 it is known from the first \
             frame on, see the note busy_poll_napi_id"
                .into(),
        );
    } else {
        info.granted.push(("preferred busy-poll".into(), format!("active, NAPI {ids:?}")));
    }
}

fn describe(
    config: &EngineConfig,
    interface: &Interface,
    attachment: &Attachment,
    queues: u32,
) -> Result<BackendInfo> {
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
    if link.operstate == "down" || link.operstate == "lowerlayerdown" {
        degraded.push(format!("{} is down: nothing arrives until it is up", interface.name));
    }
    let ring = config.xdp_frames / 2;
    let granted = [
        ("driver", driver),
        ("mtu", link.mtu.to_string()),
        ("rx queues", queues.to_string()),
        ("frames per rx queue", config.xdp_frames.to_string()),
        ("frame bytes", FRAME_BYTES.to_string()),
        ("longest frame", attachment.max_frame.to_string()),
        ("frames in several buffers", if attachment.segments { "on" } else { "off" }.into()),
        ("rx ring", ring.to_string()),
        ("fill ring", ring.to_string()),
        ("need_wakeup", "on".into()),
        ("program id", attachment.program.id().to_string()),
    ];
    Ok(BackendInfo {
        backend: "xdp",
        mode: format!("{} copy", attachment.mode),
        interface: Some(interface.name.clone()),
        granted: granted.map(|(k, v)| (k.to_string(), v)).to_vec(),
        degraded,
    })
}
