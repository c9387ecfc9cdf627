//! The kernel interface: the only room of this crate with `unsafe`.

mod clock;
pub(crate) mod mmsg;
pub(crate) mod netlink;
mod signal;
mod socket;
pub(crate) mod xsk;

pub(crate) use clock::{minimize_timer_slack, now_ns, sleep_until_ns};
pub(crate) use signal::stop_on_signals;
pub(crate) use socket::{bind_to_device, packet_socket, set_option, wait_writable};
