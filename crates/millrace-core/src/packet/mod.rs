//! Frames: from their bytes to a UDP datagram, and for tests and the load generator the other way.
//!
//! The parser accepts Ethernet with up to two VLAN tags (802.1Q, 802.1ad), IPv4 with options, and IPv6 with extension
//! headers. Its length rules follow the Linux UDP stack (net/ipv4/udp.c, net/ipv6/udp.c), so that a datagram is the same bytes
//! whichever backend delivered it.
//!
//! | file | what it has |
//! | --- | --- |
//! | `parse` | frame → datagram |
//! | `frame_drop` | the reasons why a frame is not delivered |
//! | `checksum` | the UDP checksum of a parsed datagram |
//! | `build` | datagram → frame |

pub mod build;
pub mod checksum;
mod frame_drop;
mod parse;
#[cfg(test)]
mod parse_tests;

pub use frame_drop::FrameDrop;
pub(crate) use parse::{EXTENSION_HEADERS, FRAGMENT_HEADER, MAX_EXTENSION_HEADERS};
pub use parse::{Udp, parse_ethernet, parse_network};
