//! Splits one message of recvmmsg(2) into its datagrams.

use super::{batch::Message, bind::BoundSocket, control::Control};
use crate::{
    datagram::{Addr, Datagram, Timestamp, flags},
    rx::Sink,
};

/// The time of datagrams without a kernel time stamp: that of the receive pass, read when the first of them needs it.
#[derive(Default)]
pub(crate) struct PassTime(Option<Timestamp>);

/// The origin of a message, for all datagrams in it.
pub(crate) struct Origin<'a> {
    pub(crate) socket: &'a BoundSocket,
    /// Destination address.
    pub(crate) dst: Addr,
    /// Index of the receiver.
    pub(crate) rx_queue: u16,
    /// [`flags`] of the receiver.
    pub(crate) flags: u16,
}

/// Hands a message to `sink` as its datagrams. A message that UDP_GRO merged holds datagrams of `gso_size` bytes, of which
/// the last may be shorter (Documentation/networking/segmentation-offloads.rst).
#[inline]
pub(crate) fn deliver<S: Sink>(
    sink: &mut S,
    origin: &Origin<'_>,
    message: &Message<'_>,
    control: &Control,
    pass: &mut PassTime,
) {
    let (time, time_flag) = match control.time {
        Some(time) => (time, flags::KERNEL_TIME),
        None => (*pass.0.get_or_insert_with(Timestamp::now), 0),
    };
    let datagram = Datagram {
        payload: message.payload,
        src: message.src,
        dst: origin.dst,
        src_port: message.src_port,
        dst_port: origin.socket.port,
        time,
        rx_queue: origin.rx_queue,
        flags: origin.flags | time_flag,
    };
    if control.gso_size == 0 || message.payload.len() <= control.gso_size {
        return sink.datagram(&datagram);
    }
    for payload in message.payload.chunks(control.gso_size) {
        sink.datagram(&Datagram { payload, flags: datagram.flags | flags::SPLIT, ..datagram });
    }
}
