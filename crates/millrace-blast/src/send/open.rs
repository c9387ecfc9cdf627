//! Opens the senders of a run.

use millrace_core::error::Result;

use super::{packet::PacketSender, sender::Sender, socket::SocketSender, xdp::XdpSender};
use crate::{
    config::{RunConfig, Via},
    destination::Destination,
};

/// Opens the senders of all threads. Returns with them how many datagrams a GSO send carries, 1 without GSO.
pub(crate) fn open(config: &RunConfig, destination: &Destination) -> Result<(Vec<Box<dyn Sender>>, u32)> {
    let mut senders: Vec<Box<dyn Sender>> = Vec::new();
    let mut gso = 1;
    for thread in 0..config.threads {
        let flows: Vec<u32> = (thread..config.effective_flows()).step_by(config.threads as usize).collect();
        match config.via {
            Via::Socket => {
                let sender = SocketSender::open(config, destination, &flows)?;
                gso = sender.segments();
                senders.push(Box::new(sender));
            }
            Via::Packet => senders.push(Box::new(PacketSender::open(config, destination, &flows)?)),
            Via::Xdp => {
                senders.push(Box::new(XdpSender::open(config, destination, &flows, config.queue + thread)?));
            }
        }
    }
    Ok((senders, gso))
}
