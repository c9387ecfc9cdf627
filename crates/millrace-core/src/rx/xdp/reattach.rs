//! Attaching to an interface that was removed and is there again. The helper thread does it.

use super::{
    attached_interface::AttachedInterface,
    attachment::Attachment,
    describe,
    interface_state::{InterfaceState, Reattachment},
    napi_settings::NapiSettings,
};
use crate::{
    error::{Code, Error, Result},
    net::Interface,
    rx::local,
};

/// Attaches the program to the interface of the state's name, and puts the attachment in force. Receivers then claim it and
/// open their rx queues.
///
/// # Errors
/// [`Code::Interface`] while there is no interface of that name, [`Code::State`] when stopped, and those of attaching.
pub(super) fn reattach(state: &InterfaceState) -> Result<()> {
    let config = state.config();
    let interface = Interface::by_name(state.name())?;
    let mut listen = state.listen_at_start().to_vec();
    for l in local::listen_here(&config.listen, &config.multicast, &interface.name)? {
        if !listen.contains(&l) {
            listen.push(l);
        }
    }
    // Attaching may bounce the link, so it is not done for nothing.
    state.require_running()?;
    let mut degraded = Vec::new();
    let attachment = state
        .live_program()
        .attach(&mut degraded, |degraded| Attachment::new(&interface, &listen, config.xdp_mode, degraded))?;
    let generation = state.next_generation();
    let old_settings = state.take_settings();
    let attached = AttachedInterface::new(attachment, interface, &listen, generation);
    let removed_again = || Error::new(Code::Interface, "it came back and was removed again".to_owned());
    let rx_queues = attached.interface.rx_queues_if_present().ok_or_else(removed_again)?;
    let mut info = describe::describe(config, &attached, rx_queues)?;
    info.degraded.splice(0..0, degraded);
    if state.queue_options().busy_poll {
        let value = "set again, see the note busy_poll_napi_id";
        info.granted.push(("preferred busy-poll".into(), value.into()));
    }
    // The old settings are restored first: an interface that was only moved to another namespace and back still has them.
    drop(old_settings);
    let settings = NapiSettings::set(config, &attached.interface, &mut info);
    let link_down = describe::link_down(&attached.interface);
    state.install(Reattachment { attached, rx_queues, info, settings, link_down })
}
