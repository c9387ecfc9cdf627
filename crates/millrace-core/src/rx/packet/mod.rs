//! AF_PACKET: a TPACKET_V3 or TPACKET_V2 ring for each receive thread. The rings' sockets are the members of one fanout group
//! (packet(7), Documentation/networking/packet_mmap.rst).
//!
//! `open` sets up in this order, each step for a reason:
//! 1. For each member it opens a socket with protocol 0, which receives nothing, and sets its TPACKET version and
//!    PACKET_VNET_HDR. Where this backend cannot be had, for want of a capability for example, that is the first error
//!    reported.
//! 2. It opens the guard's UDP sockets, so that a taken port is found before any ring is made, and the kernel sends no ICMP
//!    error for what a ring receives.
//! 3. For each member it makes the ring, because a ring made after joining permutes the members, attaches a filter that drops
//!    everything, and binds.
//! 4. The members join the fanout group in index order. A bound socket outside the group sees every frame: without the
//!    dropping filter there would be duplicates from the moment between bind and join.
//! 5. All members get the real filter.
//!
//! When a member dies, the others move to a new group (`regroup`), and the cutover decides which of the two groups
//! delivers a frame that both have.
//!
//! | file | what it has |
//! | --- | --- |
//! | `open` | steps 1 to 5, and what is said about what was granted |
//! | `member` | steps 1, 3 and 4: the members' sockets |
//! | `ring_memory`, `ring_v3`, `ring_v2`, `rings` | the memory shared with the kernel, and the two ways to read it |
//! | `frame`, `deliver` | a frame's header, and from a frame to its datagrams |
//! | `listen_filter`, `ring_listen` | which frames enter the ring, and which datagrams of the ring are ours |
//! | `fanout`, `fanout_program` | the group, and the program that selects a member |
//! | `receiver`, `statistics` | one member, read by one thread, and the kernel's counters for it |
//! | `regroup`, `cutover`, `stack_timestamps` | the move to a new group |

mod cutover;
mod deliver;
mod fanout;
mod fanout_program;
mod frame;
#[cfg(feature = "bench")]
pub mod frame_counter;
mod listen_filter;
mod member;
mod open;
mod receiver;
mod regroup;
mod ring_listen;
mod ring_memory;
mod ring_v2;
mod ring_v3;
mod rings;
mod stack_timestamps;
mod statistics;

pub use open::open;
pub use receiver::PacketReceiver;
