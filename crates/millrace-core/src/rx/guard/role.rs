//! The part that each of the guard's sockets plays.

use super::fragments::is_reassembled;
use crate::rx::socket::control::Control;

/// Index of the port holder in the SO_REUSEPORT group of an endpoint. Its filter drops everything, it is never read, and
/// the selection program is attached to it.
pub(super) const PORT_HOLDER: u32 = 0;
/// Index of the socket for what the ring does not have: what came by other interfaces, and what the ring does not know.
pub(super) const OTHER_INTERFACES: u32 = 1;
/// Index of the socket for what may have been reassembled from fragments. Only groups that need it have it.
pub(super) const REASSEMBLED: u32 = 2;

/// Which of the datagrams that a socket reads are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// All of them: the fast path has none of these.
    AllDatagrams,
    /// Those at index [`OTHER_INTERFACES`].
    OtherInterfaces,
    /// Those at index [`REASSEMBLED`].
    Reassembled,
}

impl Role {
    /// Whether a datagram that a socket of this role read is delivered. `in_ring` says of a broadcast or multicast datagram
    /// whether it came by an interface whose frames the ring has and for a destination that the ring accepts; it is false
    /// for unicast.
    ///
    /// The selection program has sent each *unicast* datagram to one socket. Broadcast and multicast reach every socket of
    /// the group past the program, so that each socket's reader has to decide: what the ring's interface brought whole the
    /// ring has delivered, what it brought in fragments falls to the REASSEMBLED socket, and what another interface
    /// brought falls to the OTHER_INTERFACES socket. Unicast is not asked for its interface again, because for a local
    /// sender that is bound to a device the kernel names that device and not loopback.
    pub(super) fn delivers(self, control: &Control, payload_bytes: usize, in_ring: bool) -> bool {
        let from_everywhere = control.broadcast_or_multicast;
        match self {
            Role::AllDatagrams => true,
            Role::OtherInterfaces => !(from_everywhere && in_ring),
            Role::Reassembled => is_reassembled(control, payload_bytes) && (!from_everywhere || in_ring),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_and_multicast_are_told_by_their_interface() {
        let whole = |to_all| Control { broadcast_or_multicast: to_all, ..Control::default() };
        let pieces = |to_all| Control { fragment_size_v4: Some(1500), ..whole(to_all) };
        for (role, control, in_ring, expected) in [
            (Role::OtherInterfaces, whole(false), true, true),
            (Role::OtherInterfaces, whole(true), true, false),
            (Role::OtherInterfaces, pieces(true), false, true),
            (Role::Reassembled, whole(false), true, false),
            (Role::Reassembled, pieces(false), false, true),
            (Role::Reassembled, pieces(true), true, true),
            (Role::Reassembled, pieces(true), false, false),
        ] {
            assert_eq!(role.delivers(&control, 4000, in_ring), expected, "{role:?} {control:?} {in_ring}");
        }
    }
}
