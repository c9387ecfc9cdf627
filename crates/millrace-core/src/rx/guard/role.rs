//! The part that each of the guard's sockets plays.

use super::fragments::is_reassembled;
use crate::rx::socket::control::Control;

/// Index of the port holder in the reuseport group (SO_REUSEPORT) of an endpoint. Its filter drops everything, it is never
/// read, and the selection program is attached to it.
pub(super) const PORT_HOLDER: u32 = 0;
/// Index of the socket for what the ring does not have: what came by other interfaces, and what the ring does not know.
pub(super) const OTHER_INTERFACES: u32 = 1;
/// Index of the socket for what may have been reassembled from fragments. Only the reuseport
/// groups that need it have it.
pub(super) const REASSEMBLED: u32 = 2;

/// Which of the datagrams that a socket reads are delivered. The program decides what unicast a socket of a reuseport group
/// reads; see [`Role::delivers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// All: the fast path has none of what this socket reads.
    AllDatagrams,
    /// The socket at index [`OTHER_INTERFACES`]: all unicast, and those broadcast and multicast datagrams that the ring does
    /// not have.
    OtherInterfaces,
    /// The socket at index [`REASSEMBLED`]: what the kernel reassembled from fragments; of broadcast and multicast only what
    /// came by an interface whose frames the ring has, for a destination that the ring accepts.
    Reassembled,
}

impl Role {
    /// Whether a datagram that a socket of this role read is delivered. `in_ring` says of a broadcast or multicast datagram
    /// whether it came by an interface whose frames the ring has and for a destination that the ring accepts; it is false
    /// for unicast.
    ///
    /// The selection program has sent each *unicast* datagram to one socket. Broadcast and multicast reach every socket of
    /// the reuseport group past the program, so that each socket's reader has to decide: what the ring's interface brought
    /// whole the ring has delivered, what it brought in fragments falls to the REASSEMBLED socket, and what another interface
    /// brought falls to the OTHER_INTERFACES socket. The interface of unicast is not checked again, because for a local
    /// sender that is bound to a device the kernel names that device and not loopback.
    pub(super) fn delivers(self, control: &Control, payload_bytes: usize, in_ring: bool) -> bool {
        let to_many = control.broadcast_or_multicast;
        match self {
            Role::AllDatagrams => true,
            Role::OtherInterfaces => !(to_many && in_ring),
            Role::Reassembled => is_reassembled(control, payload_bytes) && (!to_many || in_ring),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_and_multicast_are_told_by_their_interface() {
        let whole = |to_many| Control { broadcast_or_multicast: to_many, ..Control::default() };
        let pieces = |to_many| Control { fragment_size_v4: Some(1500), ..whole(to_many) };
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
