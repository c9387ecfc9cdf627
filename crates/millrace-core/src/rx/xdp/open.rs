//! Opening the backend. The order (load, attach, then for each rx queue fill ring, bind, XSKMAP) suits drivers that rebuild
//! their rings when a program is attached, and drivers that need frames on the fill ring at bind(2).

use super::{
    attached_interface::AttachedInterface,
    attachment::Attachment,
    describe,
    interface_monitor::InterfaceMonitor,
    interface_report::SocketModes,
    interface_state::{InterfaceState, Opening, QueueOptions},
    live_program::{EarlyDropsHandle, LiveProgram},
    napi_settings::NapiSettings,
    queue::RxQueue,
    receiver::XdpReceiver,
    socket::BIND_TIMEOUT,
    zero_copy,
};
use crate::{
    config::EngineConfig,
    error::{Code, Error, Result},
    net::Interface,
    rx::{BackendInfo, Opened, ReplacePrograms, RulePrograms, local},
};

/// Opens the backend on `config.interface`, or on the interface of the default route. When it returns, the program is
/// attached, every rx queue has a socket, and packets arrive. `programs` has the leading `drop` rules for the program.
///
/// # Errors
/// [`Code::Interface`], [`Code::Busy`] (a foreign program or socket, left untouched), [`Code::Permission`],
/// [`Code::Unsupported`], [`Code::Kernel`]. After an error nothing stays attached or bound.
pub fn open(config: &EngineConfig, programs: &RulePrograms) -> Result<Opened<XdpReceiver>> {
    let interface = match &config.interface {
        Some(name) => Interface::by_name(name)?,
        None => Interface::of_default_route()?,
    };
    let mut degraded = Vec::new();
    let listen = local::listen_here(&config.listen, &config.multicast, &interface.name)?;
    let live = LiveProgram::new(programs.early.clone());
    let attachment = live
        .attach(&mut degraded, |degraded| Attachment::new(&interface, &listen, config.xdp_mode, degraded))?;
    // Counted after attaching, because some drivers give XDP fewer rx queues than they had before.
    let rx_queues = interface.rx_queues();
    if rx_queues > attachment.map.entries() || u16::try_from(rx_queues).is_err() {
        return Err(Error::new(
            Code::Interface,
            format!("{} now has {rx_queues} rx queues, more than it could have a moment ago", interface.name),
        ));
    }
    let attached = AttachedInterface::new(attachment, interface, &listen, 1);
    let (mut queues, zero_copy) = open_queues(config, &attached, rx_queues, &mut degraded)?;
    let mut sockets = SocketModes::default();
    for queue in &queues {
        sockets.add(queue.socket().zero_copy()?, queue.is_on_huge_pages());
    }
    let mut info = describe::describe(config, &attached, rx_queues)?;
    let busy_poll = config.xdp_prefer_busy_poll && prefer_busy_poll(&mut queues, &mut info);
    let settings = NapiSettings::set(config, &attached.interface, &mut info);
    info.degraded.splice(0..0, degraded);
    let options = QueueOptions { zero_copy, busy_poll };
    let link_down = describe::link_down(&attached.interface);
    let opening = Opening { listen, rx_queues, options, sockets, info, settings, link_down };
    let state = InterfaceState::new(config, &live, &attached, opening);
    let monitor = InterfaceMonitor::start(&state)?;
    let receivers = (0..)
        .zip(queues)
        .map(|(i, queue)| XdpReceiver::new((&state, &monitor), &attached, i, queue))
        .collect();
    // `rx::ladder` opens the guard and puts it here. By XDP_PASS it gets IP fragments, IP options, extension headers, and
    // packets longer than the attachment takes.
    let replacer = Some(Box::new(EarlyDropsHandle(live)) as Box<dyn ReplacePrograms>);
    Ok(Opened { receivers, guard: None, programs: replacer, info: state.info() })
}

/// Opens all rx queues in the same mode. Returns whether that is zero-copy.
fn open_queues(
    config: &EngineConfig,
    attached: &AttachedInterface,
    rx_queues: u32,
    degraded: &mut Vec<String>,
) -> Result<(Vec<RxQueue>, bool)> {
    let open_all = |zero_copy| {
        (0..rx_queues)
            .map(|number| RxQueue::open(attached, number, config.xdp_frames, zero_copy, BIND_TIMEOUT))
            .collect::<Result<Vec<_>>>()
    };
    let (decision, _) = zero_copy::decide(config, &attached.interface);
    match open_all(decision.try_zero_copy) {
        Err(e) if decision.try_zero_copy && decision.allow_copy && e.code == Code::Unsupported => {
            degraded.push(format!("zero-copy was refused: {}", e.message));
            Ok((open_all(false)?, false))
        }
        queues => Ok((queues?, decision.try_zero_copy)),
    }
}

/// Sets preferred busy-polling on every socket, and enters in `info` that it is active only when SO_INCOMING_NAPI_ID says so.
/// Returns false when it was refused.
fn prefer_busy_poll(queues: &mut [RxQueue], info: &mut BackendInfo) -> bool {
    if let Err(refusal) = queues.iter_mut().try_for_each(RxQueue::enable_busy_poll) {
        // It is on for all rx queues or for none: those of one interface that behave differently would be hard to explain.
        queues.iter_mut().for_each(RxQueue::disable_busy_poll);
        info.granted.push(("preferred busy-poll".into(), "refused".into()));
        info.degraded.push(format!("{refusal}; it is off on every rx queue"));
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
