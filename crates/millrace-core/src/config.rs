//! Configuration of the data plane, as the TypeScript side hands it over (JSON, camelCase). Names and defaults of the
//! environment variables are in `src/config`; here are only types, ranges and what they mean.

use std::net::IpAddr;

use serde::Deserialize;

use crate::{
    datagram::Addr,
    error::{Code, Error, Result},
};

/// Which backend to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// xdp, then packet, then socket; each refusal is logged. Without an interface, socket.
    Auto,
    /// AF_XDP or an error.
    Xdp,
    /// AF_PACKET or an error.
    Packet,
    /// UDP sockets or an error.
    Socket,
}

/// How a receive thread waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum BusyPoll {
    /// While traffic flows, read at a steady pace and sleep in between; without traffic block in poll(2). Spinning would
    /// buy latency that the workers' moderated wake-up gives away again.
    Adaptive,
    /// Receive threads never sleep: each receive thread takes a whole core.
    Always,
    /// Block in poll(2) whenever there is nothing to read, which costs one wake-up per frame at low rates.
    Off,
}

/// XDP attach mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native, then generic.
    Auto,
    /// The program runs in the driver; otherwise opening fails.
    Native,
    /// The program runs in the stack, after the skb was allocated; otherwise opening fails.
    Generic,
}

/// Layout of the packet rings (packet_mmap.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Tpacket {
    /// Blocks of frames, handed over when full or after 1 ms: least work per frame.
    #[default]
    V3,
    /// One slot per frame, handed over at once: least latency for a lone frame.
    V2,
}

impl Tpacket {
    /// The name that `BackendInfo::mode` has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Tpacket::V3 => "tpacket_v3",
            Tpacket::V2 => "tpacket_v2",
        }
    }
}

/// Which time a datagram of the socket backend carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Timestamps {
    /// One for the whole receive pass, read by the receive thread.
    #[default]
    Pass,
    /// Its own, taken by the kernel on arrival (SO_TIMESTAMPNS, socket(7)). One such socket makes the stack stamp every
    /// packet of the machine; measured: 75 ns more on the 550 ns that receiving a datagram of 100 bytes costs (median,
    /// Linux 6.18 in a VM).
    Kernel,
}

/// How the kernel spreads frames over the members of a fanout group (`PACKET_FANOUT_*`, packet(7)). All results are
/// taken modulo the number of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum FanoutMode {
    /// The rules, as a BPF program: a datagram goes to the member with the number of its queue.
    Rules,
    /// The kernel's flow hash selects the member, so that one flow stays with one member.
    #[default]
    Hash,
    /// Round robin, frame by frame.
    Lb,
    /// The CPU that the frame arrived on selects the member.
    Cpu,
    /// The first member, until its ring is full; then the next.
    Rollover,
    /// The member is selected at random.
    Rnd,
    /// The rx queue that the driver recorded selects the member.
    Qm,
    /// A classic BPF program selects the member: a hash of the two addresses, the same on every machine and after every
    /// restart.
    Cbpf,
    /// The same hash by an eBPF program (needs CAP_BPF).
    Ebpf,
}

impl FanoutMode {
    /// The name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            FanoutMode::Rules => "rules",
            FanoutMode::Hash => "hash",
            FanoutMode::Lb => "lb",
            FanoutMode::Cpu => "cpu",
            FanoutMode::Rollover => "rollover",
            FanoutMode::Rnd => "rnd",
            FanoutMode::Qm => "qm",
            FanoutMode::Cbpf => "cbpf",
            FanoutMode::Ebpf => "ebpf",
        }
    }
}

/// A flag of a fanout group, beside its mode (`PACKET_FANOUT_FLAG_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum FanoutFlag {
    /// A frame whose member is full goes to another one, possibly out of order.
    Rollover,
    /// IPv4 fragments are reassembled before the mode decides. Without the flag they come by the guard, as IPv6 ones do.
    Defrag,
    /// The kernel selects a group id that is not in use (Linux 4.12).
    Uniqueid,
    /// Outgoing frames do not enter the group (Linux 6.2); without it the members' filters drop them.
    IgnoreOutgoing,
}

fn default_slot_bytes() -> u32 {
    66 * 1024
}

fn default_fanout_flags() -> Vec<FanoutFlag> {
    vec![FanoutFlag::Defrag, FanoutFlag::Uniqueid, FanoutFlag::IgnoreOutgoing]
}

/// Whether the driver writes frames straight into the packet memory of AF_XDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum ZeroCopy {
    /// Copy mode.
    #[default]
    Off,
    /// Zero-copy or an error.
    On,
    /// Zero-copy with drivers and kernels of a documented list, copy mode otherwise.
    Auto,
}

/// One address and port to receive on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listen {
    /// The address; absent: every address of both families.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// Name or number of the interface that a link-local address is on (RFC 4007). Absent: [`EngineConfig::interface`].
    #[serde(default)]
    #[cfg_attr(test, ts(optional = nullable))]
    pub scope: Option<String>,
    /// UDP port, 1..=65535.
    pub port: u16,
}

impl Listen {
    /// True for an address that is ambiguous without an interface: fe80::/10, and multicast of interface-local or
    /// link-local scope (RFC 4291 §2.7).
    pub fn is_link_local(&self) -> bool {
        match self.address {
            Some(IpAddr::V6(a)) => {
                a.is_unicast_link_local() || (a.is_multicast() && matches!(a.octets()[1] & 15, 1 | 2))
            }
            _ => false,
        }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scope = self.scope.as_ref().map_or(String::new(), |s| format!("%{s}"));
        match self.address {
            None => write!(f, "{}", self.port),
            Some(IpAddr::V4(a)) => write!(f, "{a}:{}", self.port),
            Some(IpAddr::V6(a)) => write!(f, "[{a}{scope}]:{}", self.port),
        }
    }
}

/// A multicast group to join, on every port that can receive it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Multicast {
    /// The group.
    pub group: IpAddr,
    /// Interface to join on. Absent: that of the rings, else [`EngineConfig::interface`], else the one the kernel's routes
    /// name.
    #[serde(default)]
    pub interface: Option<String>,
    /// Only datagrams from this source (source-specific multicast); socket backend only.
    #[serde(default)]
    pub source: Option<IpAddr>,
}

impl std::fmt::Display for Multicast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(source) = self.source {
            write!(f, "{source}@")?;
        }
        write!(f, "{}", self.group)?;
        self.interface.as_ref().map_or(Ok(()), |name| write!(f, "%{name}"))
    }
}

/// Everything the engine needs to know.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EngineConfig {
    /// Backend to open.
    pub backend: BackendChoice,
    /// Interface for xdp and packet; absent: that of the default route, but `auto` then opens sockets. For every backend
    /// it is also the interface of multicast groups and link-local addresses that name none.
    #[serde(default)]
    pub interface: Option<String>,
    /// Addresses and ports, at least one.
    pub listen: Vec<Listen>,
    /// Multicast groups to join.
    #[serde(default)]
    pub multicast: Vec<Multicast>,
    /// Queues, each with one worker, 1..=256.
    pub queues: u16,
    /// Receive threads of packet and socket, 1..=256; xdp has one per rx queue instead.
    pub rx_threads: u16,
    /// CPUs for receive threads, in thread order, repeated when short; empty: not pinned.
    #[serde(default)]
    pub rx_cpus: Vec<usize>,
    /// SCHED_FIFO priority of receive threads, 1..=99 (sched(7)); absent: they are scheduled as the process is.
    #[serde(default)]
    pub rx_priority: Option<u8>,
    /// Text of the rule set; `docs/rules.md` describes the language.
    pub rules: String,
    /// How receive threads wait.
    pub busy_poll: BusyPoll,
    /// Sleep between two passes with `adaptive` while traffic flows, µs, 1..=1_000_000.
    pub busy_poll_us: u32,
    /// Descriptors per lane, a power of two, 64..=1_048_576.
    pub lane_slots: u32,
    /// Payload bytes per lane, a power of two, 65_536..=1 GiB.
    pub lane_bytes: u32,
    /// A sleeping worker is woken when this many datagrams are pending in a lane, 1..=1_048_576.
    pub wake_min: u32,
    /// A sleeping worker is woken when the oldest pending datagram has waited this long, µs, 1..=1_000_000.
    pub wake_max_us: u32,
    /// XDP attach mode.
    pub xdp_mode: XdpMode,
    /// UMEM frames per rx queue (2 KiB each), a power of two, 512..=1_048_576. The rings hold half of that.
    pub xdp_frames: u32,
    /// Zero-copy of AF_XDP.
    #[serde(default)]
    pub xdp_zerocopy: ZeroCopy,
    /// Whether to request preferred busy-polling of AF_XDP sockets (SO_PREFER_BUSY_POLL).
    #[serde(default)]
    pub xdp_prefer_busy_poll: bool,
    /// `napi_defer_hard_irqs` of the interface while xdp runs; absent: left alone.
    #[serde(default)]
    pub napi_defer_hard_irqs: Option<u32>,
    /// `gro_flush_timeout` of the interface while xdp runs, ns; absent: left alone.
    #[serde(default)]
    pub gro_flush_timeout: Option<u32>,
    /// Ring block size in bytes, a power of two, 131_072..=4 MiB.
    pub packet_block_bytes: u32,
    /// Blocks per ring, 4..=4096.
    pub packet_blocks: u32,
    /// Whether xdp and packet drop datagrams with a wrong UDP checksum; with socket the stack always does.
    #[serde(default)]
    pub verify_checksum: bool,
    /// Layout of the packet rings.
    #[serde(default)]
    pub tpacket: Tpacket,
    /// Bytes of a TPACKET_V2 slot, headers included, a multiple of 16, 2048..=131_072. The default of 66 KiB holds any
    /// datagram and any super-packet; what is longer than a slot is counted as truncated.
    #[serde(default = "default_slot_bytes")]
    pub packet_slot_bytes: u32,
    /// Fanout mode of the packet rings. `rules` also steers between the sockets of a SO_REUSEPORT group.
    #[serde(default)]
    pub fanout: FanoutMode,
    /// Fanout flags; those the kernel does not know are left out and reported.
    #[serde(default = "default_fanout_flags")]
    pub fanout_flags: Vec<FanoutFlag>,
    /// Times of the socket backend; packet always has the kernel's, and xdp that of the receive pass.
    #[serde(default)]
    pub socket_timestamps: Timestamps,
    /// SO_RCVBUF to request, per socket and of the guard's sockets too, bytes, 4096..=1 GiB.
    pub socket_rcvbuf: u32,
}

impl EngineConfig {
    /// Parses the JSON form and validates ranges.
    ///
    /// # Errors
    /// [`Code::Config`] naming the field, the value and the range.
    pub fn from_json(json: &str) -> Result<Self> {
        let config: EngineConfig = serde_json::from_str(json)
            .map_err(|e| Error::new(Code::Config, format!("engine configuration: {e}")))?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        if self.listen.is_empty() {
            return Err(Error::new(Code::Config, "listen is empty: expected at least one port"));
        }
        if let Some(l) = self.listen.iter().find(|l| l.port == 0) {
            return Err(Error::new(Code::Config, format!("listen port {}: expected 1..=65535", l.port)));
        }
        if let Some(l) = self.listen.iter().find(|l| l.is_link_local() && l.scope.is_none())
            && self.interface.is_none()
        {
            let message = format!(
                "listen address {l}: a link-local address says nothing without its interface: expected %interface \
                 behind the address, as in [fe80::1%eth0]:{}, or MILLRACE_INTERFACE set",
                l.port
            );
            return Err(Error::new(Code::Config, message));
        }
        if let Some(l) = self.listen.iter().find(|l| l.scope.is_some() && !l.is_link_local()) {
            let message = format!(
                "listen address {}, %{}: expected %interface behind a link-local IPv6 address only",
                Listen { scope: None, ..l.clone() },
                l.scope.as_deref().unwrap_or_default()
            );
            return Err(Error::new(Code::Config, message));
        }
        let unfit = |m: &&Multicast| {
            !m.group.is_multicast()
                || m.source.is_some_and(|s| s.is_multicast() || s.is_ipv4() != m.group.is_ipv4())
        };
        if let Some(m) = self.multicast.iter().find(unfit) {
            let message =
                format!("multicast {m}: expected a multicast group, and a unicast source of the same family");
            return Err(Error::new(Code::Config, message));
        }
        if self.fanout == FanoutMode::Rollover && self.fanout_flags.contains(&FanoutFlag::Rollover) {
            // fanout_add() in net/packet/af_packet.c answers EINVAL.
            let message = "fanoutFlags holds rollover: expected only with a mode other than rollover";
            return Err(Error::new(Code::Config, message));
        }
        range("queues", self.queues.into(), 1, 256)?;
        range("rxThreads", self.rx_threads.into(), 1, 256)?;
        if let Some(priority) = self.rx_priority {
            range("rxPriority", priority.into(), 1, 99)?;
        }
        // The kernel refuses napi_defer_hard_irqs above INT_MAX (net/core/net-sysfs.c, change_napi_defer_hard_irqs).
        range("napiDeferHardIrqs", self.napi_defer_hard_irqs.unwrap_or(0), 0, i32::MAX as u32)?;
        range("groFlushTimeout", self.gro_flush_timeout.unwrap_or(0), 0, i32::MAX as u32)?;
        range("wakeMin", self.wake_min, 1, 1 << 20)?;
        range("wakeMaxUs", self.wake_max_us, 1, 1_000_000)?;
        range("busyPollUs", self.busy_poll_us, 1, 1_000_000)?;
        range("socketRcvbuf", self.socket_rcvbuf, 4096, 1 << 30)?;
        range("packetSlotBytes", self.packet_slot_bytes, 2048, 131_072)?;
        if !self.packet_slot_bytes.is_multiple_of(16) {
            let message = format!("packetSlotBytes = {}: expected a multiple of 16", self.packet_slot_bytes);
            return Err(Error::new(Code::Config, message));
        }
        range("packetBlocks", self.packet_blocks, 4, 4096)?;
        power_of_two("laneSlots", self.lane_slots, 64, 1 << 20)?;
        power_of_two("laneBytes", self.lane_bytes, 1 << 16, 1 << 30)?;
        power_of_two("xdpFrames", self.xdp_frames, 512, 1 << 20)?;
        power_of_two("packetBlockBytes", self.packet_block_bytes, 1 << 17, 1 << 22)
    }
}

fn range(name: &str, value: u32, low: u32, high: u32) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::new(Code::Config, format!("{name} = {value}: expected {low}..={high}")))
}

fn power_of_two(name: &str, value: u32, low: u32, high: u32) -> Result<()> {
    range(name, value, low, high)?;
    if value.is_power_of_two() {
        return Ok(());
    }
    Err(Error::new(Code::Config, format!("{name} = {value}: expected a power of two in {low}..={high}")))
}

/// The listen list in a form that tells in a few nanoseconds whether a datagram is for it.
#[derive(Debug, Clone)]
pub struct ListenSet {
    /// One bit per port, set when some entry has this port.
    ports: Box<[u64; 1024]>,
    /// Entries with an address, sorted.
    exact: Vec<(Addr, u16)>,
    /// Ports open to every address.
    any: Vec<u16>,
    /// Ports open to every IPv4 address (`0.0.0.0:port`).
    any_v4: Vec<u16>,
}

impl ListenSet {
    /// Builds the set. An entry without address or with `::` stands for both families, one with `0.0.0.0` for IPv4 only.
    pub fn new(listen: &[Listen]) -> Self {
        let mut ports = Box::new([0u64; 1024]);
        let (mut exact, mut any, mut any_v4) = (Vec::new(), Vec::new(), Vec::new());
        for l in listen {
            ports[usize::from(l.port >> 6)] |= 1 << (l.port & 63);
            match l.address {
                None => any.push(l.port),
                Some(IpAddr::V6(a)) if a.is_unspecified() => any.push(l.port),
                Some(IpAddr::V4(a)) if a.is_unspecified() => any_v4.push(l.port),
                Some(a) => exact.push((Addr::from(a), l.port)),
            }
        }
        exact.sort_unstable();
        ListenSet { ports, exact, any, any_v4 }
    }

    /// True when the list has an entry for a datagram to `dst`:`port` (host byte order).
    #[inline]
    pub fn accepts(&self, dst: Addr, port: u16) -> bool {
        if self.ports[usize::from(port >> 6)] & (1 << (port & 63)) == 0 {
            return false;
        }
        if self.exact.is_empty() && self.any_v4.is_empty() {
            return true;
        }
        self.any.contains(&port)
            || (dst.is_v4() && self.any_v4.contains(&port))
            || self.exact.binary_search(&(dst, port)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(entries: &[&str]) -> ListenSet {
        let listen: Vec<Listen> = entries
            .iter()
            .map(|e| {
                let (a, p) = e.rsplit_once('|').unwrap();
                Listen {
                    address: (!a.is_empty()).then(|| a.parse().unwrap()),
                    scope: None,
                    port: p.parse().unwrap(),
                }
            })
            .collect();
        ListenSet::new(&listen)
    }

    fn addr(a: &str) -> Addr {
        Addr::from(a.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn any_address_takes_both_families() {
        let s = set(&["|9000"]);
        assert!(s.accepts(addr("10.0.0.1"), 9000) && s.accepts(addr("fd00::1"), 9000));
        assert!(!s.accepts(addr("10.0.0.1"), 9001) && !s.accepts(addr("10.0.0.1"), 9000 + 64));
    }

    #[test]
    fn unspecified_v4_takes_only_v4() {
        let s = set(&["0.0.0.0|9000"]);
        assert!(s.accepts(addr("10.0.0.1"), 9000) && !s.accepts(addr("fd00::1"), 9000));
    }

    #[test]
    fn exact_addresses_do_not_open_each_others_ports() {
        let s = set(&["10.0.0.1|1", "10.0.0.2|2", "|3"]);
        assert!(
            s.accepts(addr("10.0.0.1"), 1) && s.accepts(addr("10.0.0.2"), 2) && s.accepts(addr("::1"), 3)
        );
        assert!(!s.accepts(addr("10.0.0.1"), 2) && !s.accepts(addr("10.0.0.2"), 1));
    }
}
