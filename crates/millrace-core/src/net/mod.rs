//! Facts about network interfaces, read only: which exist, their addresses, queues and counters, and how they are stacked.
//!
//! Every answer is about the network namespace of the *calling thread*. rtnetlink(7) and ioctl(2) answer for it by nature,
//! and `/proc/thread-self/net` is read instead of `/proc/net`, which links to the main thread's view. `/sys/class/net`
//! belongs to the namespace in which sysfs was mounted, so it is only a fall-back, and only when it shows the same interface.
//!
//! | file | what it answers |
//! | --- | --- |
//! | `interface` | name ↔ index, and which interfaces exist |
//! | `default_route` | the interface of the default route |
//! | `addresses` | the addresses of the host |
//! | `ethtool` | what the driver reports: its name, channels, the hash of UDP |
//! | `link` | what rtnetlink reports about one interface: state, MTU, counters, XDP program |
//! | `rx_queues` | how many rx queues there are |
//! | `topology`, `topology_monitor` | the devices above and below an interface, now and while running |
//! | `netlink` | the socket and the messages of rtnetlink |

mod addresses;
mod default_route;
mod ethtool;
mod interface;
mod link;
mod netlink;
mod rx_queues;
mod topology;
mod topology_monitor;

pub(crate) use addresses::link_local_addresses;
pub use addresses::{broadcast_addresses, local_addresses};
pub use ethtool::UdpHash;
pub(crate) use interface::interface_name;
pub use interface::{Interface, interface_exists};
pub use link::Statistics;
pub(crate) use topology_monitor::TopologyMonitor;
