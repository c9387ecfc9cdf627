//! Counting the rx queues of the interface, which `ethtool -L` changes while it is up. The helper thread does it.

use super::{attached_interface::AttachedInterface, describe, interface_state::InterfaceState};
use crate::{error::Result, net};

/// Counts the rx queues and records whether the link is up. Rx queues that were added get the program first.
pub(super) fn recount_rx_queues(state: &InterfaceState, attached: &AttachedInterface) {
    let interface = &attached.interface;
    let Some(found) = interface.rx_queues_if_present() else {
        // The sockets report a removed interface, but a thread may have none. One that was only renamed still exists.
        if !net::interface_exists(interface.index) {
            state.record_removed(attached);
        }
        return;
    };
    let Some(before) = state.rx_queues(attached) else { return };
    // veth gives a program to the rx queues there are when it is installed, and to no later ones
    // (`veth_enable_range_safe`). Other drivers rebuild all rings with it.
    let install = || match interface.driver().as_deref() {
        Some("veth") => attached.attachment.reinstall(),
        _ => Ok(()),
    };
    let (rx_queues, program_missing) = usable_rx_queues(before, found, install);
    let link_down = describe::link_down(interface);
    state.record_rx_queues(attached, rx_queues, link_down, program_missing);
}

/// How many of the rx queues `found` can be served. Added ones can when `install` gave them the program; otherwise the
/// sentence explains why not.
fn usable_rx_queues(before: u32, found: u32, install: impl FnOnce() -> Result<()>) -> (u32, Option<String>) {
    if found <= before {
        return (found, None);
    }
    match install() {
        Ok(()) => (found, None),
        Err(e) => (before, Some(format!("new rx queues have no program: {}", e.message))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Error};

    #[test]
    fn new_rx_queues_wait_until_they_have_the_program() {
        let refused = || Err(Error::new(Code::Kernel, "no memory".to_owned()));
        for _ in 0..2 {
            let (queues, why) = usable_rx_queues(2, 4, refused);
            assert_eq!((queues, why.as_deref()), (2, Some("new rx queues have no program: no memory")));
        }
        assert_eq!(usable_rx_queues(2, 4, || Ok(())), (4, None));
        // Nothing is installed when rx queues were removed, or stayed.
        assert_eq!(usable_rx_queues(4, 1, refused), (1, None));
        assert_eq!(usable_rx_queues(4, 4, refused), (4, None));
    }
}
