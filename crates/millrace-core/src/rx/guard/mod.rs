//! The guard: bound UDP sockets beside a backend that reads below the kernel's stack.
//!
//! `xdp` and `packet` take frames before the IP stack does. Beside them, bound sockets are needed for three reasons:
//!
//! 1. *A port has one owner.* bind(2) refuses a port that another program holds, a second Millrace included, and from then
//!    on it refuses that port to others.
//! 2. *Senders receive no error.* For a port without a socket the stack answers with ICMP port unreachable, whether or not a
//!    fast path has delivered the datagram.
//! 3. *Some datagrams only the stack has whole*: reassembled fragments, what came by another interface, what the fast path
//!    cannot parse. They are read here, on a thread of their own, and marked
//!    [`SLOW_PATH`](crate::datagram::flags::SLOW_PATH).
//!
//! # Why xdp's guard delivers all it reads and packet's must select
//!
//! The XDP program *takes away* a frame: what it redirects the stack never sees, and what it passes the AF_XDP sockets
//! never see. So all that reaches a socket of xdp's guard was delivered by nothing else, and one plain socket for each
//! endpoint is enough (`xdp.rs`).
//!
//! A packet ring only *taps* (packet(7)): the stack still processes every frame that the ring has a copy of. Most of what
//! the stack gives the guard was therefore delivered by the ring already, and must not be delivered twice (`packet.rs`).
//!
//! # The sockets of one endpoint beside a packet ring
//!
//! An *endpoint* is an address and a port that sockets are bound to. "Any address" becomes one endpoint for IPv4 and one
//! for IPv6. Each has a *reuseport group* (SO_REUSEPORT, socket(7)), whose sockets are bound in the order of their index:
//!
//! ```text
//!                     the stack has a datagram for the endpoint
//!                                       |
//!             unicast                   |            broadcast or multicast
//!         +-----------------------------+----------------------------------+
//!         | the reuseport group's       | a copy for every socket of the reuseport group that
//!         | selection program           | matches (multicast: that joined the multicast group);
//!         | returns an index            | no program runs
//!         v                             v
//!    +--------------------+   +------------------------+   +-------------------------------+
//!    | 0  PORT_HOLDER     |   | 1  OTHER_INTERFACES    |   | 2  REASSEMBLED                |
//!    |                    |   |                        |   | only where the ring does not  |
//!    | carries the        |   | what the ring does     |   | get reassembled datagrams:    |
//!    | program; a filter  |   | not have               |   | IPv6; IPv4 without defrag     |
//!    | drops everything   |   |                        |   |                               |
//!    +--------------------+   +------------------------+   +-------------------------------+
//!         never read            read, and delivered but      read, and delivered where the
//!                               for broadcast and multicast  kernel says "reassembled"; the
//!                               that the ring has            rest the ring has
//! ```
//!
//! A link-local address of another interface than the ring's is an endpoint of which the ring has nothing: it has a single
//! socket, and all that it reads is delivered.
//!
//! One socket with a filter in place of the reuseport group would do for delivery. But the kernel counts what a filter drops
//! in the same counter as what did not fit the receive buffer, so that losses could not be told. With the reuseport group,
//! what overflows OTHER_INTERFACES is lost (`guard_rcvbuf`). What overflows REASSEMBLED is the note `guard_rcvbuf_unsure`,
//! because nothing about a datagram that was never read tells whether the ring had it; so is what overflows OTHER_INTERFACES
//! once it got broadcast or multicast that the ring has.
//!
//! The selection program (`selection_program.rs`) decides a unicast datagram in this order:
//!
//! 1. Did it come by another interface than the ring's and those that hand up the ring's frames (VLAN device, bridge, bond)?
//!    Then OTHER_INTERFACES.
//! 2. Did it come by one that hands up the ring's frames, in a frame whose MAC address is neither one for this host on
//!    the ring's interface nor broadcast or multicast? Then OTHER_INTERFACES.
//! 3. Is it for an address that the ring does not accept? Then OTHER_INTERFACES.
//! 4. May it have been reassembled from fragments? Then REASSEMBLED (`fragment_inspection.rs`).
//! 5. Has it IPv6 extension headers that the ring's parser does not walk? Then OTHER_INTERFACES.
//! 6. Otherwise the ring has it: PORT_HOLDER.
//!
//! # Broadcast and multicast
//!
//! The program does not decide them, because the kernel does not run it for them: it gives a broadcast or multicast datagram to
//! every socket that matches (net/ipv4/udp.c, `__udp4_lib_mcast_deliver`; net/ipv6/udp.c, `__udp6_lib_mcast_deliver`), and
//! selects in a reuseport group only for unicast (`udp4_lib_lookup2`). Three things prevent a second delivery:
//!
//! - the port holder's filter drops its copy;
//! - each multicast group is joined by one socket of an endpoint for the ring's interfaces (REASSEMBLED, or PORT_HOLDER
//!   where there is none) and by OTHER_INTERFACES for others, and a socket receives only what it joined
//!   (`sys::multicast::own_groups_only`);
//! - the reader decides by interface and destination (`role::Role::delivers`): OTHER_INTERFACES discards what the ring
//!   accepts, and REASSEMBLED delivers only what came in fragments by an interface whose frames the ring has.
//!
//! # Which datagram comes by which socket
//!
//! Where a row names no interface, the datagram came by the ring's; with xdp that is the one the program is attached to. "A
//! receiver" of the socket backend is the one that the kernel's hash or the rules' program selects. For each cell marked ✓
//! the last column names a test; the other cells were read from the code.
//!
//! | Datagram | `socket` | `packet`: the ring, or which socket of the guard | `xdp`: the program's redirect, or the guard | Tests |
//! |---|---|---|---|---|
//! | unicast to an address known at the start | a receiver ✓ | ring ✓ (copy: PORT_HOLDER, or where 4 applies REASSEMBLED, which discards it) | program ✓ | `twenty_thousand_datagrams_arrive_exactly` (of both), `new_rx_queues_are_taken_over_while_the_threads_run` |
//! | IPv4 fragments, fanout flag `defrag` on | a receiver ✓ | ring ✓ (copy: PORT_HOLDER) | guard ✓ | `fragments_are_one_datagram`, `the_delivering_guard_delivers_all`, `every_truncation_and_fragment_passes_or_is_malformed` |
//! | IPv4 fragments, `defrag` off | a receiver ✓ | REASSEMBLED ✓; lost before Linux 4.10, which `degraded` says | guard ✓ | `ipv4_fragments_come_by_the_guard_when_the_group_does_not_defragment`, `rings_beside_each_other_get_their_fragments` |
//! | IPv6 fragments | a receiver ✓ | REASSEMBLED ✓; lost at the PORT_HOLDER when a sender, against RFC 8200 §5, fragments a packet that has no extension headers and is no longer than 1280 bytes | guard ✓ | `fragments_are_one_datagram`, `fragments_with_extension_headers_arrive_once` |
//! | IPv6 atomic fragment (RFC 6946) | a receiver | ring ✓ (copy: PORT_HOLDER) | guard ✓ | `large_ipv6_datagrams_and_atomic_fragments_arrive_once`, `redirects_exactly_what_the_parser_takes_without_options` |
//! | IPv4 options | a receiver | ring ✓ | guard ✓ | `options_extension_headers_and_vlan_tags_are_read_by_the_ring`, `redirects_exactly_what_the_parser_takes_without_options` |
//! | IPv6 hop-by-hop, routing, destination options headers, up to 8 | a receiver | ring ✓ (copy: REASSEMBLED, which discards it) | guard ✓ | the same |
//! | other IPv6 extension headers, or more | a receiver | OTHER_INTERFACES | guard | |
//! | any, by loopback, a second interface or out of a tunnel | a receiver ✓ | OTHER_INTERFACES ✓; the ring when it is on loopback ✓ | guard | `datagrams_by_loopback_come_once_beside_those_of_the_ring`, `datagrams_by_a_second_interface_come_once`, `what_comes_out_of_a_tunnel_over_the_rings_interface_is_delivered`, `a_ring_on_loopback_leaves_nothing_to_the_guard` |
//! | any, by a bridge, bond, VLAN or macvlan device on the ring's interface | a receiver | ring ✓; OTHER_INTERFACES when the frame is for a MAC address of that device's own ✓ | program: it compares no MAC address | `what_stands_on_the_rings_interface_is_not_delivered_twice`, `what_is_for_the_mac_of_something_on_the_rings_interface_comes_once` |
//! | unicast to an address added after the start, or of a local route, when every address is listened on | a receiver | OTHER_INTERFACES ✓; lost when the program omits destinations ✓ | guard | `what_is_for_an_address_the_ring_does_not_know_comes_by_the_guard`, `a_host_with_many_addresses_is_served_with_little_optmem` |
//! | broadcast | the first receiver ✓ | ring ✓ | program | `a_broadcast_datagram_comes_once`, `datagrams_by_a_second_interface_come_once` |
//! | broadcast in IPv4 fragments | the first receiver | ring with `defrag`, else REASSEMBLED | guard | |
//! | broadcast of a subnet added after the start | the first receiver ✓ | OTHER_INTERFACES ✓ | guard | `a_broadcast_datagram_comes_once`, `what_is_for_an_address_the_ring_does_not_know_comes_by_the_guard` |
//! | broadcast by another interface | the first receiver | OTHER_INTERFACES ✓ | guard | `datagrams_by_a_second_interface_come_once` |
//! | multicast, its multicast group joined on the ring's interface | the receiver that joined the multicast group ✓ | ring ✓ | program ✓ | `sockets_get_joined_groups_once`, `rings_get_joined_groups_once`, `xdp_gets_joined_groups_once` |
//! | the same in fragments | the receiver that joined the multicast group | IPv4 ring with `defrag` ✓, else REASSEMBLED; IPv6 REASSEMBLED ✓ | guard ✓ | `rings_get_joined_groups_once`, `multicast_groups_are_joined_on_the_new_interface` |
//! | multicast, its multicast group joined on another interface | the receiver that joined the multicast group | OTHER_INTERFACES ✓ | guard | `groups_joined_on_a_second_interface_come_once` |
//! | multicast of one source | the receiver that joined the multicast group ✓ | refused at the start ✓ | refused at the start | `a_source_is_held_to` |
//! | to a link-local address of another interface, listed with it | a receiver ✓ | the endpoint's single socket ✓ | guard | `sockets_bind_to_it`, `one_of_what_stands_on_the_rings_interface_comes_by_the_guard` |
//! | in a frame longer than a UMEM frame | a receiver | ring | program natively where driver and kernel (6.6) pass a frame in several buffers ✓, else guard ✓ | `jumbo_frames_arrive_whole`, `generic_mode_passes_frames_longer_than_a_umem_frame` |
//! | by an rx queue that has no AF_XDP socket | a receiver | ring | guard | |
//!
//! With `packet` two kinds are never delivered. One is what a program on this host multicasts or broadcasts out of the
//! ring's interface: no ring is shown it, and the guard cannot tell it from what a ring has
//! (`multicast_of_a_local_sender_out_of_the_rings_interface_does_not_come_back`). The other is what the host rewrites
//! between ring and stack (DNAT): the ring has it for another port or address, and the stack has it by an interface whose
//! frames the ring has.
//!
//! # When the program does not fit
//!
//! Programs grow with the host's addresses and interfaces, and two limits bound them: a classic BPF program has at most 4,096
//! instructions, of which each part gets a share (`selection_program::MAX_INTERFACES` and `MAX_MACS`), and the kernel's
//! translation of it must fit net.core.optmem_max. A program beyond the first limit is not tried; where the kernel answers
//! ENOMEM, the next shorter one is (`selection_program::RingCoverage::programs`): first without the destinations, then with
//! ever fewer interfaces and MAC addresses (`omission::Omission`). At the start `degraded` says what is lost by it, and `open`
//! fails with [`Code::Kernel`](crate::error::Code::Kernel) when even the shortest program does not fit. Later, when
//! interfaces change (`selection::Selection::refresh`), the note `guard_program_cut` counts each program that omits more than
//! the one before, or that could not be replaced; each endpoint has a program, and counts for itself.

mod destination_match;
mod endpoint_sockets;
mod endpoints;
mod fragment_inspection;
mod fragments;
mod memberships;
mod omission;
mod packet;
mod port_holder;
mod receiver;
mod ring_interface;
mod role;
mod selection;
mod selection_program;
mod xdp;

pub use packet::open_for_packet;
pub use receiver::GuardReceiver;
pub use xdp::open_for_xdp;
