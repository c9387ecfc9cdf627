//! Multicast groups of the guard beside xdp, joined again when their interface was removed and made anew: a membership
//! belongs to an interface's index, and stays with the old one.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use super::{bind::Target, multicast::fits};
use crate::{
    config::{EngineConfig, Multicast},
    net::Interface,
    sys,
};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the guard's sockets joined.
pub(crate) struct Memberships {
    groups: Vec<Watched>,
    /// What each socket is bound to, in the order of the sockets.
    targets: Vec<Target>,
    looked: Instant,
}

struct Watched {
    group: Multicast,
    /// Interface it is on, as it was when it was joined there. Of groups without one: that which xdp receives from, which
    /// the routes may have meant.
    on: Interface,
}

impl Memberships {
    /// After joining, with one target for each socket. None when there is nothing to look after.
    pub(crate) fn new(groups: &[Multicast], config: &EngineConfig, targets: Vec<Target>) -> Option<Self> {
        let watch = |group: &Multicast| {
            let name = group.interface.as_ref().or(config.interface.as_ref());
            let on = name.map_or_else(Interface::of_default_route, |name| Interface::by_name(name)).ok()?;
            Some(Watched { group: group.clone(), on })
        };
        let groups: Vec<Watched> = groups.iter().filter_map(watch).collect();
        (!groups.is_empty()).then(|| Memberships { groups, targets, looked: Instant::now() })
    }

    /// About once a second: joins what is no longer where it was joined. Returns how many groups were joined again.
    pub(crate) fn look<'a>(&mut self, sockets: impl Iterator<Item = &'a OwnedFd> + Clone) -> u64 {
        if self.looked.elapsed() < LOOK_EVERY {
            return 0;
        }
        self.looked = Instant::now();
        let mut again = 0;
        for Watched { group, on } in &mut self.groups {
            let Some(now) = Interface::by_name(&on.name).ok().filter(|now| now.index != on.index) else {
                continue;
            };
            let index = if group.interface.is_some() { now.index } else { 0 };
            let mut joined = true;
            for (fd, target) in sockets.clone().zip(&self.targets) {
                if fits(*target, group.group) {
                    // The old one would stay in the socket's list, which has a limit (igmp_max_memberships).
                    let _ = sys::multicast::leave_group(fd, group.group, on.index);
                    let result = sys::multicast::join_group(fd, group.group, index, None);
                    // It may have been joined a moment ago, before another socket's turn failed.
                    joined &= result.err().is_none_or(|e| e.raw_os_error() == Some(libc::EADDRINUSE));
                }
            }
            if joined {
                *on = now;
                again += 1;
            }
        }
        again
    }
}
