//! UDP load generator whose every datagram can be accounted for.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use millrace_blast::{RunConfig, Via, run};
//!
//! let config = RunConfig { via: Via::Packet, rate: 200_000, count: Some(1_000_000), ..RunConfig::to("192.0.2.2:9000") };
//! let report = run(&config, &AtomicBool::new(false), |progress| eprintln!("{progress}"))?;
//! assert_eq!(report.next - report.first, report.sent);
//! # Ok::<(), millrace_blast::Error>(())
//! ```
//!
//! # Numbers
//! Every datagram has a number; the run sends `first .. next` without a gap ([`RunReport`]), whatever ends it. Threads
//! draw blocks of numbers from one shared counter; a thread sends all it drew. Within a flow numbers rise, except that
//! a frame the device dropped on the XDP path comes again after those already on the ring. The payload of
//! number `n` is [`payload()`]`(n, size)`: a receiver can check every byte. Datagrams of 0 to 3 bytes hold a truncated
//! counter: they can be counted, not told apart.
//!
//! # What counts as sent, and how the books close
//! A datagram is sent when the kernel took it and did not say that the device dropped it. Refusals are counted
//! ([`Retries`]) and tried again. Always: **`sent = arrived at the peer's stack + interface_tx_dropped`** (one exception
//! under GSO below). What follows was found by overloading a veth pair on Linux 6.18, each path, with a native XDP
//! program on the peer (its NAPI in a slow thread, ring of 256) and without (RPS to another CPU, backlog of 1000):
//!
//! - veth drops when the peer's ring or backlog is full, counts it in the **sending** interface's `tx_dropped`, and
//!   reports it to a caller that can see it: AF_PACKET gets ENOBUFS. AF_XDP's sendto gets EBUSY, with the frame
//!   consumed *and* completed: it is the last one the kernel took from the tx ring, so we put that one on the ring
//!   again. A UDP socket gets ENOBUFS only with IP_RECVERR set; without, the drop is silent (SndbufErrors still counts
//!   it when the whole send was dropped). So all three paths know of every drop and send the datagram again: `sent = arrived`, to
//!   the datagram. Drops provoked in one run: with XDP at the peer 350,000 (socket), 556,000 (packet), 29,000 (xdp);
//!   without, 22,000 (packet), 15 (xdp), none (socket without GSO).
//! - sendmmsg(2) hides the errno when it stops early. Then `partial` counts, and the next call carries on.
//! - poll(2) on an AF_XDP socket in copy mode transmits, and swallows EBUSY: 10 % of the drops were lost that way. We
//!   never poll it.
//! - [`RunReport::interface_tx_dropped_raw`] is what the counter grew by, [`RunReport::interface_tx_dropped`] the same less
//!   the drops that were reported to us. Senders that share the interface blur it. A NIC behind a queueing discipline refuses
//!   with ENOBUFS without counting it as `tx_dropped`; then the difference is too small, never below 0 (not tested: no NIC here).
//! - The same drop shows up to three times: without NAPI at the peer (no XDP, no GRO) in `tx_dropped` here, in
//!   `/proc/net/softnet_stat` (column 2), and in the peer's `rx_dropped`. Do not add them. With NAPI only `tx_dropped`
//!   has it.
//! - **GSO** ([`Gso`]): a drop is not reported, because ENOBUFS could mean a part of the segments, and sending all again
//!   would make duplicates. With XDP at the peer the stack segments before the device, so `tx_dropped` counts
//!   datagrams and the equation holds. Otherwise one count stands for one GSO frame, up to `gso` datagrams. This is why
//!   the default segments on loopback only.
//! - Loopback has no `tx_dropped`; its transmit side counts as `rx_dropped` what the backlog has no room for, so that
//!   is what we report there (from memory of the kernel, not provoked here).
//! - Past the interface the receiver's own counters go on: `RcvbufErrors` (`nstat`) for a socket that reads too slowly,
//!   which was the only other place where datagrams ended in these experiments.
//!
//! # Paths
//! - **socket**: connected UDP sockets, one a flow, sendmmsg; UDP GSO by the UDP_SEGMENT option.
//! - **packet**: AF_PACKET, protocol 0, PACKET_QDISC_BYPASS, sendmmsg of frames. See the README for the comparison with
//!   a TPACKET tx ring.
//! - **xdp**: AF_XDP in copy mode, one socket, UMEM and queue a thread; no XDP program involved.
//!
//! The raw paths write right UDP checksums for both families, send from 49152 upwards unless told otherwise, do not
//! fragment, and refuse 127.0.0.0/8 (Linux treats it as martian when it does not come from its own stack).

mod config;
mod destination;
mod pace;
pub mod payload;
mod report;
mod run;
mod send;
mod sequence;
mod sys;

use std::sync::atomic::AtomicBool;

pub use config::{Gso, MAX_SEGMENTS, Mac, RunConfig, Sizes, Via, parse_ports};
pub use millrace_core::error::{Code, Error, Result};
pub use pace::parse_rate;
pub use payload::{Payload, number, payload};
pub use report::{Gap, Progress, Retries, RunReport};
pub use run::run;

/// A flag that SIGINT and SIGTERM set, for the `stop` of [`run()`]. A second signal ends the process at once.
pub fn stop_on_signals() -> &'static AtomicBool {
    sys::stop_on_signals()
}
