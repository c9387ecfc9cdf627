//! The facts about a datagram that a rule may read.

use crate::datagram::Datagram;

/// The facts that a rule may read: one datagram, and how it was received.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// UDP payload.
    pub payload: &'a [u8],
    /// Source address, 16 bytes in network order; an IPv4 address is mapped (`::ffff:a.b.c.d`).
    pub src: [u8; 16],
    /// Destination address, in the same form.
    pub dst: [u8; 16],
    /// Source port, host order.
    pub src_port: u16,
    /// Destination port, host order.
    pub dst_port: u16,
    /// Rx queue of the interface, or index of the ring member or socket that received the datagram.
    pub rx_queue: u16,
    /// CPU of the receive thread.
    pub cpu: u16,
}

impl<'a> Facts<'a> {
    /// The facts of a datagram that a receive thread on this CPU got.
    #[inline(always)]
    pub fn of(d: &Datagram<'a>, cpu: u16) -> Self {
        Facts {
            payload: d.payload,
            src: d.src.0,
            dst: d.dst.0,
            src_port: d.src_port,
            dst_port: d.dst_port,
            rx_queue: d.rx_queue,
            cpu,
        }
    }
}
