//! AF_XDP: frames from the driver straight into our memory, one socket and packet memory per rx queue, one receive thread
//! for each rx queue of the start.
//!
//! One file per kernel concept: [`umem`] (packet memory), [`ring`] (fill and rx rings), [`socket`], `attachment`
//! (program, map, link), `queue` (the pass that joins them). [`receiver`] is a thread's share of the queues, [`host`] what
//! the threads share while the interface changes.
//!
//! Frames the program does not take, and all frames while a queue has no socket, go up the stack as if we were not
//! there; see [`crate::bpf::xdp_program`].

use std::sync::Arc;

use crate::{
    bpf::link::AttachMode,
    config::{EngineConfig, ListenSet, ZeroCopy},
    error::{Code, Error, Result},
    net::Interface,
    rx::{BackendInfo, Opened, Steering, local, socket::multicast},
};

mod attachment;
mod busy;
#[cfg(feature = "bench")]
pub mod count;
pub mod host;
pub(crate) mod knobs;
mod live_program;
mod multi_buffer;
mod numa;
mod overflow;
mod queue;
pub mod receiver;
pub mod ring;
pub mod socket;
pub mod umem;
mod watch;
pub mod zerocopy;

use attachment::Attachment;
use host::{Attached, Beginning, Host, Sockets};
use knobs::Knobs;
use live_program::LiveProgram;
use queue::RxQueue;
pub use receiver::XdpReceiver;
use umem::FRAME_BYTES;
use watch::Watch;

/// Ethernet header and two VLAN tags.
const LINK_HEADER: u32 = 14 + 2 * 4;

/// Opens the backend on `config.interface`, or on the interface of the default route: the program is attached, every rx
/// queue has a socket, frames arrive from now on. The order (load, attach, then per queue fill, bind, map) suits drivers
/// that rebuild their rings on attach and those that want a filled fill ring at bind.
///
/// # Errors
/// [`Code::Interface`], [`Code::Busy`] (a foreign program or socket, left untouched), [`Code::Permission`],
/// [`Code::Unsupported`], [`Code::Kernel`]. On an error nothing stays behind.
#[cfg(any(test, feature = "testing"))]
pub fn open(config: &EngineConfig) -> Result<Opened<XdpReceiver>> {
    open_steered(config, &Steering::default())
}

/// As [`open`], with the leading `drop` rules in the program.
///
/// # Errors
/// As [`open`].
pub fn open_steered(config: &EngineConfig, steering: &Steering) -> Result<Opened<XdpReceiver>> {
    let interface = match &config.interface {
        Some(name) => Interface::by_name(name)?,
        None => Interface::of_default_route()?,
    };
    let mut degraded = Vec::new();
    let here = local::listen_here(&config.listen, &config.multicast, &interface.name)?;
    let live = LiveProgram::new(steering.early.clone());
    let attachment =
        live.attach(&mut degraded, |degraded| Attachment::new(&interface, &here, config.xdp_mode, degraded))?;
    // Counted after attaching: some drivers give XDP fewer queues than they had before.
    let rx_queues = interface.rx_queues();
    if rx_queues > attachment.map.entries() || u16::try_from(rx_queues).is_err() {
        return Err(Error::new(
            Code::Interface,
            format!("{} now has {rx_queues} rx queues, more than it could have a moment ago", interface.name),
        ));
    }
    let attached = Attached {
        attachment,
        listen: Arc::new(ListenSet::new(&here)),
        node: numa::node_of(&interface),
        interface,
        generation: 1,
    };
    let (plan, _) = plan(config, &attached.interface);
    let open_all = |zero_copy| {
        (0..rx_queues)
            .map(|number| {
                RxQueue::open(&attached, number, config.xdp_frames, zero_copy, socket::BIND_PATIENCE)
            })
            .collect::<Result<Vec<_>>>()
    };
    let (mut queues, zero_copy) = match open_all(plan.try_it) {
        Err(e) if plan.try_it && plan.may_copy && e.code == Code::Unsupported => {
            degraded.push(format!("zero-copy was refused: {}", e.message));
            (open_all(false)?, false)
        }
        result => (result?, plan.try_it),
    };
    let mut sockets = Sockets::default();
    queues.iter().try_for_each(|queue| sockets.add(queue))?;
    let mut info = describe(config, &attached, rx_queues)?;
    let busy_poll = config.xdp_prefer_busy_poll && prefer_busy_poll(&mut queues, &mut info);
    let knobs = Knobs::set(config, &attached.interface, &mut info);
    info.degraded.splice(0..0, degraded);
    let begun = Beginning { here, rx_queues, zero_copy, busy_poll, sockets, info, knobs };
    let host = Host::new(config, &live, &attached, begun);
    let watch = Watch::start(&host)?;
    let receivers =
        (0..).zip(queues).map(|(i, queue)| XdpReceiver::new((&host, &watch), &attached, i, queue)).collect();
    // The guard socket is opened and put here by whoever opens a backend in earnest (see `rx::Opened::guard`); fragments,
    // IP options, extension headers and frames longer than a UMEM frame reach it by XDP_PASS.
    let steer = Some(Box::new(live_program::Handle(live)) as Box<dyn crate::rx::Steer>);
    Ok(Opened { receivers, guard: None, steer, info: host.info() })
}

/// Whether `auto` would try zero-copy on this interface, and why.
pub(crate) fn zero_copy_trusted(interface: &Interface) -> (bool, String) {
    let driver = interface.driver().unwrap_or_else(|| "unknown".into());
    let (major, minor) = zerocopy::kernel();
    let trusted = zerocopy::plan(ZeroCopy::Auto, &driver, (major, minor)).0.try_it;
    let verdict = if trusted { "is" } else { "is not" };
    (
        trusted,
        format!("driver {driver} on Linux {major}.{minor} {verdict} in the list of those known to be sound"),
    )
}

/// Whether zero-copy is tried, and a word on why.
fn plan(config: &EngineConfig, interface: &Interface) -> (zerocopy::Plan, String) {
    let driver = interface.driver().unwrap_or_else(|| "unknown".into());
    zerocopy::plan(config.xdp_zerocopy, &driver, zerocopy::kernel())
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

/// Sets the options on every socket, and says of it only what SO_INCOMING_NAPI_ID confirms. False when refused.
fn prefer_busy_poll(queues: &mut [RxQueue], info: &mut BackendInfo) -> bool {
    if let Err(why) = queues.iter_mut().try_for_each(RxQueue::busy_poll) {
        // All or none: queues of one interface that behave differently would be hard to explain.
        queues.iter_mut().for_each(RxQueue::no_busy_poll);
        info.granted.push(("preferred busy-poll".into(), "refused".into()));
        info.degraded.push(format!("{why}; it is off on every rx queue"));
        return false;
    }
    let ids: Vec<u32> = queues.iter().map(RxQueue::napi_id).collect();
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
    true
}

/// Of an interface that is there and carries nothing.
fn down(interface: &Interface) -> Option<String> {
    let state = interface.link().ok()?.operstate;
    let down = matches!(state, "down" | "lowerlayerdown");
    down.then(|| format!("{} is down: nothing arrives until it is up", interface.name))
}

/// What is known as soon as the program is attached. The mode is that of attaching; [`Host::info`] adds the sockets'.
fn describe(config: &EngineConfig, attached: &Attached, rx_queues: u32) -> Result<BackendInfo> {
    let Attached { attachment, interface, .. } = attached;
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
        ("frames in several buffers", if attachment.segments { "on" } else { "off" }.into()),
        ("rx ring", ring.to_string()),
        ("fill ring", ring.to_string()),
        ("need_wakeup", "on".into()),
        ("program id", attachment.program_id().to_string()),
        ("zero-copy asked for", plan(config, interface).1),
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
