//! AF_XDP: packets from the driver straight into memory of this process. Each rx queue has a socket with its own packet
//! memory, and at the start a receive thread. Packets that the program does not redirect, and all packets of an rx queue
//! without a socket, go up the stack as if no program were there; see [`crate::bpf::xdp_program`].
//!
//! The words are those of af_xdp.rst, napi.rst and bpf_link in the kernel's documentation. One file for each concept, and
//! each imports only files named before it:
//!
//! - The socket: `ring` (fill ring and rx ring), `umem` (packet memory, frames and who owns them), `socket`,
//!   `busy_poll`, `zero_copy` (when it is tried), `numa` (where packet memory lies).
//! - The program: `attachment` (XSKMAP, program, bpf_link), `attached_interface` (with the interface it is on),
//!   `live_program` (early drops that a reload replaces), `grace_period` (when no program runs any more), `napi_settings`.
//! - The receive path: `deliver` (packet to sink), `multi_buffer` (packets of several descriptors), `rx_ring_full`
//!   (whether their ends may be lost), `queue` (an rx queue and its receive pass).
//! - The interface that changes: `describe`, `interface_report` (what was granted), `published_rx_queues`,
//!   `stop_signal`, `interface_state` (what all threads share), `recount` and `reattach` (what the helper thread does),
//!   `interface_monitor` (the helper thread), `added_queue`.
//! - The whole: `receiver` (one thread's share of the rx queues), `open`; `counting` (for benches).

mod added_queue;
mod attached_interface;
mod attachment;
mod busy_poll;
#[cfg(feature = "bench")]
mod counting;
mod deliver;
mod describe;
mod grace_period;
mod interface_monitor;
mod interface_report;
mod interface_state;
mod live_program;
mod multi_buffer;
pub(crate) mod napi_settings;
mod numa;
mod open;
mod published_rx_queues;
mod queue;
mod reattach;
mod receiver;
mod recount;
mod ring;
mod rx_ring_full;
pub mod socket;
mod stop_signal;
pub mod umem;
mod zero_copy;

#[cfg(feature = "bench")]
pub use counting::XdpCounter;
pub use interface_state::InterfaceState;
pub use open::open;
pub use receiver::XdpReceiver;
pub use socket::probe_socket;
pub(crate) use zero_copy::zero_copy_trusted;
