//! The two targets to which a classic BPF program is attached.

/// The target to which the program is attached, which decides what it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CbpfTarget {
    /// `PACKET_FANOUT_DATA` of a `PACKET_FANOUT_CBPF` group. Offset 0 is the network header of an incoming packet.
    ///
    /// Outgoing frames have their link header there: keep them out of the group (`PACKET_FANOUT_FLAG_IGNORE_OUTGOING`, a
    /// binding to an EtherType, or a filter). Loads count from offset 0 and not from `SKF_NET_OFF`, although that would
    /// be right in both directions: before Linux 6.16 the latter cannot read what lies in a packet's fragments, which is
    /// where many drivers put the payload.
    ///
    /// The program returns 0 for what is not a whole UDP datagram, and for one behind IPv6 extension headers, which a program
    /// without loops cannot skip.
    Fanout,
    /// `SO_ATTACH_REUSEPORT_CBPF`. Offset 0 is the UDP payload. The kernel does not reduce the result, so the program
    /// does: it returns the queue modulo `sockets`.
    ///
    /// For a datagram that a rule drops it returns an index beyond every group, for which the kernel falls back to its own hash
    /// (`reuseport_select_sock()` in net/core/sock_reuseport.c). So it does where IPv6 extension headers hide the ports from a
    /// rule set that reads them.
    Reuseport {
        /// Sockets in the group, at least 1.
        sockets: u16,
    },
}

/// The result of a [`CbpfTarget::Reuseport`] program for no socket in particular: an index that no group has.
pub(super) const NO_MEMBER: u32 = u32::MAX;
