//! Multicast groups of the guard beside xdp. They are joined again when their interface was removed and made anew, because
//! a membership belongs to an interface's index and stays with the old one.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use crate::{
    config::{EngineConfig, Multicast},
    net::Interface,
    rx::socket::{endpoints::BindAddress, multicast::can_receive},
    sys,
};

/// How often interfaces are compared. More often costs system calls for each multicast group; less often, it is longer
/// until datagrams of a multicast group are received again after its interface came back.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// The multicast groups that the guard's sockets joined.
pub(super) struct Memberships {
    memberships: Vec<Membership>,
    /// The address that each socket is bound to, in the order of the sockets.
    addresses: Vec<BindAddress>,
    renewed: Instant,
}

struct Membership {
    multicast_group: Multicast,
    /// The interface as it was when the multicast group was joined there. For a group without one it is the interface that
    /// xdp receives from, which the routes may have meant.
    joined_on: Interface,
}

impl Memberships {
    /// Call it after joining, with the address that each socket is bound to. Returns `None` when there is nothing to renew.
    pub(super) fn new(
        multicast_groups: &[Multicast],
        config: &EngineConfig,
        addresses: Vec<BindAddress>,
    ) -> Option<Self> {
        let membership = |group: &Multicast| {
            let name = group.interface.as_ref().or(config.interface.as_ref());
            let joined_on =
                name.map_or_else(Interface::of_default_route, |name| Interface::by_name(name)).ok()?;
            Some(Membership { multicast_group: group.clone(), joined_on })
        };
        let memberships: Vec<Membership> = multicast_groups.iter().filter_map(membership).collect();
        (!memberships.is_empty()).then(|| Memberships { memberships, addresses, renewed: Instant::now() })
    }

    /// Joins the multicast groups whose interface has another index than when they were joined; at most every [`RENEW_EVERY`].
    /// `sockets` are in the order of `new`. Returns how many multicast groups were joined again.
    pub(super) fn renew<'a>(&mut self, sockets: impl Iterator<Item = &'a OwnedFd> + Clone) -> u64 {
        if self.renewed.elapsed() < RENEW_EVERY {
            return 0;
        }
        self.renewed = Instant::now();
        let mut renewed = 0;
        for Membership { multicast_group, joined_on } in &mut self.memberships {
            let there = Interface::by_name(&joined_on.name).ok();
            let Some(now) = there.filter(|now| now.index != joined_on.index) else { continue };
            let Multicast { group, interface, .. } = multicast_group;
            let index = if interface.is_some() { now.index } else { 0 };
            let mut joined = true;
            for (fd, address) in sockets.clone().zip(&self.addresses) {
                if can_receive(*address, *group) {
                    // The old membership would stay in the socket's list, which has a limit (igmp_max_memberships).
                    let _ = sys::multicast::leave_group(fd, *group, joined_on.index);
                    let result = sys::multicast::join_group(fd, *group, index, None);
                    // EADDRINUSE: an earlier attempt joined it before it failed at another socket.
                    joined &= result.err().is_none_or(|e| e.raw_os_error() == Some(libc::EADDRINUSE));
                }
            }
            if joined {
                *joined_on = now;
                renewed += 1;
            }
        }
        renewed
    }
}
