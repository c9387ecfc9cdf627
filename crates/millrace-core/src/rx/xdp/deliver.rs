//! Delivers a received packet to the sink: it is parsed and compared with the listen list, and its checksum is verified where
//! that is configured.

use std::sync::Arc;

use crate::{
    config::ListenSet,
    datagram::{Datagram, Timestamp},
    packet::{FrameDrop, checksum, parse_ethernet},
    rx::Sink,
};

/// Which packets are datagrams for this service.
pub(super) struct AcceptFilter {
    /// Addresses and ports of the interface's attachment.
    pub(super) listen: Arc<ListenSet>,
    /// Datagrams with a wrong UDP checksum are dropped.
    pub(super) verify_checksum: bool,
}

/// The facts that the datagrams of one receive pass have in common.
#[derive(Clone, Copy)]
pub(super) struct PassInfo {
    pub(super) time: Timestamp,
    pub(super) rx_queue: u16,
}

impl AcceptFilter {
    /// Gives the sink the datagram in an Ethernet frame, or the reason why there is none. The sink has copied what it needs
    /// when the call returns.
    #[inline]
    pub(super) fn deliver<S: Sink>(&self, frame: &[u8], info: PassInfo, sink: &mut S) {
        match parse_ethernet(frame) {
            // The kernel reports nothing to an AF_XDP socket about checksums. One that the sender left to its NIC
            // (CHECKSUM_PARTIAL) is known by its value, which is right for every frame of a sender on this host.
            Ok(udp)
                if self.verify_checksum
                    && self.listen.accepts(udp.dst, udp.dst_port)
                    && checksum::verify(&udp) == checksum::ChecksumState::Invalid =>
            {
                sink.frame_dropped(FrameDrop::BadChecksum);
            }
            Ok(udp) if self.listen.accepts(udp.dst, udp.dst_port) => sink.datagram(&Datagram {
                payload: udp.payload,
                src: udp.src,
                dst: udp.dst,
                src_port: udp.src_port,
                dst_port: udp.dst_port,
                time: info.time,
                rx_queue: info.rx_queue,
                flags: 0,
            }),
            Ok(_) => sink.frame_dropped(FrameDrop::Foreign),
            Err(reason) => sink.frame_dropped(reason),
        }
    }
}
