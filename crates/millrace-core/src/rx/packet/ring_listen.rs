//! Which datagrams of the ring are ours.

use crate::{
    config::{Listen, ListenSet},
    packet::Udp,
};

/// The listen list as the ring applies it.
#[derive(Clone)]
pub(super) struct RingListen {
    /// The listen list with every address written out.
    all: ListenSet,
    /// The link-local entries of it. A link-local address means one interface, and on a VLAN of the interface the same address
    /// is another one, so these accept untagged frames only.
    untagged_only: ListenSet,
}

impl RingListen {
    /// `here` is the listen list with every address written out, `configured` the list as it was configured.
    pub(super) fn new(here: &[Listen], configured: &[Listen]) -> Self {
        RingListen { all: ListenSet::new(here), untagged_only: ListenSet::new(&link_local_only(configured)) }
    }

    /// Returns true for a datagram to receive. `vlan_tagged` says that its frame belongs to a VLAN.
    #[inline]
    pub(super) fn accepts(&self, udp: &Udp<'_>, vlan_tagged: bool) -> bool {
        self.all.accepts(udp.dst, udp.dst_port)
            && !(vlan_tagged && self.untagged_only.accepts(udp.dst, udp.dst_port))
    }
}

/// Returns the link-local entries, without those whose port is open on every address as well.
fn link_local_only(listen: &[Listen]) -> Vec<Listen> {
    let (scoped, others): (Vec<_>, Vec<_>) = listen.iter().cloned().partition(Listen::is_link_local);
    let others = ListenSet::new(&others);
    scoped.into_iter().filter(|l| !l.address.is_some_and(|a| others.accepts(a.into(), l.port))).collect()
}
