//! The guard for `packet`, whose ring has a copy of everything that arrives on its interface. Most of what the stack
//! gives the guard is therefore dropped; delivered is what the ring cannot have:
//!
//! - datagrams that came by another interface (loopback, a second NIC, a tunnel), as with `xdp`, or in frames for the
//!   address of something that stands on the ring's interface (a bridge or macvlan with a MAC of its own), which are
//!   another host's to the ring;
//! - datagrams for an address that the stack takes for the host's and the ring does not: one that came after the start, or
//!   a local route;
//! - datagrams that the kernel put together from fragments: IPv6, and IPv4 unless the fanout group does that.
//!
//! Each place has a SO_REUSEPORT group of up to three sockets, and a program that picks one for each datagram. One socket
//! with a filter would do, but the kernel counts what a filter drops in the same counter as a full buffer, and then nobody
//! could say what was lost. Only broadcast and multicast go past the program, to all of them; there the reader looks at
//! interface and destination itself.

use std::{net::IpAddr, os::fd::OwnedFd, sync::Arc};

use super::{
    program::{ELSEWHERE, HOLDER, InRing, Lack, Look},
    xdp::{checked_places, options},
};
use crate::{
    bpf::classic,
    config::{EngineConfig, FanoutFlag, Listen, ListenSet, Multicast},
    datagram::Addr,
    error::{Code, Error, Result},
    net::{Interface, Stack, link_local_addresses, name_of},
    rx::socket::{
        SocketReceiver, bind, multicast,
        receiver::{Source, Wanted},
    },
    sys::socket,
};

/// Receive buffer of a socket that looks for fragments, bytes.
const FRAGMENTS_RCVBUF: u32 = 4 << 20;

/// Index of loopback in every network namespace. What this host sends to any of its addresses comes up by it.
const LOOPBACK: u32 = 1;

/// What decides where a datagram goes, kept up to date.
pub(crate) struct Sorting {
    stack: Stack,
    /// What the ring takes.
    listen: ListenSet,
    holders: Vec<Holder>,
    /// The host's link-local addresses, and the interface of each. The ring takes them all, while the stack takes only an
    /// interface's own by it: those of others need no room in a program.
    link_local: Vec<(IpAddr, u32)>,
    /// Times that a program had to leave out more than before, or could not be renewed.
    cut: u64,
}

/// The socket of a place that has the place's program.
struct Holder {
    fd: Arc<OwnedFd>,
    look: Look,
    /// See [`InRing::addresses`].
    addresses: Option<Vec<IpAddr>>,
    /// What its program leaves out.
    lack: Lack,
}

impl Holder {
    /// Attaches the longest program that the kernel has room for.
    /// `link_local`: see [`Sorting::link_local`].
    fn sort(&self, stack: &Stack, link_local: &[(IpAddr, u32)]) -> Result<Lack> {
        let (interfaces, own, macs) = (stack.members(), stack.base(), stack.macs());
        let by_members = |a: &&IpAddr| {
            let mut of =
                link_local.iter().filter(|(address, _)| address == *a).map(|(_, index)| index).peekable();
            own == LOOPBACK || of.peek().is_none() || of.any(|index| interfaces.contains(index))
        };
        let addresses = self.addresses.as_ref();
        let addresses = addresses.map(|all| all.iter().filter(by_members).copied().collect::<Vec<_>>());
        let in_ring = InRing { interfaces, own, macs, addresses: addresses.as_deref() };
        let mut refused = Error::new(Code::Kernel, "guard: no program fits");
        for (program, lack) in in_ring.programs(self.look) {
            match attach(&self.fd, libc::SO_ATTACH_REUSEPORT_CBPF, &program) {
                Ok(()) => return Ok(lack),
                Err(e) if e.errno() == Some(libc::ENOMEM) => refused = e,
                Err(e) => return Err(e),
            }
        }
        Err(refused)
    }
}

impl Sorting {
    /// True for a broadcast or multicast datagram that the ring has: by the interface it came by and its destination.
    pub(crate) fn in_ring(&self, ifindex: u32, dst: Addr, port: u16) -> bool {
        self.stack.members().contains(&ifindex) && self.listen.accepts(dst, port)
    }

    /// Readable when [`Sorting::refresh`] is due.
    pub(crate) fn fd(&self) -> &OwnedFd {
        self.stack.fd()
    }

    /// Follows the interfaces: one made on top of the ring's has frames that the ring has too.
    pub(crate) fn refresh(&mut self) {
        if self.stack.refresh() {
            for holder in &mut self.holders {
                // Fails only without memory; then the old program goes on.
                let lack = holder.sort(&self.stack, &self.link_local);
                let worse = lack.as_ref().map_or(true, |lack| *lack > holder.lack);
                self.cut += u64::from(worse);
                holder.lack = lack.unwrap_or(holder.lack);
            }
        }
    }

    /// Times since the start that a program had to leave out more than before, or could not be renewed.
    pub(crate) fn cut(&self) -> u64 {
        self.cut
    }
}

/// Opens the guard beside rings on `ring` that take `here`, the listen list with every address written out. Its receiver
/// puts [`crate::datagram::flags::SLOW_PATH`] on every datagram and has rx queue 0.
///
/// `guard_rcvbuf` counts what was lost of the datagrams that came by other interfaces. What did not fit the buffer of a
/// socket that looks for fragments is in the note `guard_rcvbuf_unsure` and in no loss: nothing about a datagram that
/// was never read says whether it was put together from fragments, or whole and in the ring as well.
///
/// Where net.core.optmem_max has no room for the whole program it is shortened: `degraded` says so, and for what happens
/// later the note `guard_program_cut`, the times that a program had to leave out more than before, or could not be renewed.
///
/// # Errors
/// As [`super::open`]; [`Code::Config`] for a source-specific multicast group; [`Code::Interface`] on a port of Open vSwitch or a VRF.
pub fn open_for_packet(
    config: &EngineConfig,
    ring: &Interface,
    here: &[Listen],
    degraded: &mut Vec<String>,
) -> Result<SocketReceiver> {
    let stack = Stack::on(ring.index)
        .map_err(|e| Error::os(Code::Kernel, format!("asking rtnetlink what stands on {}", ring.name), e))?;
    if stack.is_switched() {
        let message = format!(
            "{} is a port of Open vSwitch, or of a bond that is: the host's datagrams come up by an internal port, and would come twice: \
             expected MILLRACE_INTERFACE to name the internal port that has the address, such as br-ex",
            ring.name
        );
        return Err(Error::new(Code::Interface, message));
    }
    if stack.is_vrf() {
        let message = format!(
            "{} is a VRF, which shows rings nothing that arrives: expected MILLRACE_INTERFACE to name its port, or \
             MILLRACE_BACKEND=socket",
            ring.name
        );
        return Err(Error::new(Code::Interface, message));
    }
    if let Some(master) = stack.master().and_then(|index| name_of(index).ok()) {
        let cure = if stack.is_port_of_vrf() {
            "MILLRACE_BACKEND=socket".into()
        } else {
            format!("MILLRACE_INTERFACE={master}")
        };
        degraded.push(format!(
            "{} is a port of {master}: what reaches {master} by other ports is not received; set {cure} to have it",
            ring.name
        ));
    }
    // What an IPv4 fragment becomes is the group's business, or ours.
    let mut fragments_v4 = !config.fanout_flags.contains(&FanoutFlag::Defrag);
    if fragments_v4 {
        let reports = reports_fragments();
        fragments_v4 = reports.is_ok();
        degraded.push(match reports {
            Ok(()) => "fanout flag defrag is off: the guard reads a second copy of every IPv4 datagram, to find those \
                       that were fragments"
                .into(),
            Err(e) => format!(
                "fanout flag defrag is off and IP_RECVFRAGSIZE (Linux 4.10) is refused ({e}): IPv4 fragments are lost"
            ),
        });
    }
    let groups = multicast::on(&config.multicast, Some(&ring.name));
    let places = checked_places(config, &groups, Some(&ring.name))?;
    // The groups that the ring hears, and those joined on other interfaces. A name that does not exist is reported by
    // whoever joins.
    let in_ring = |g: &Multicast| {
        let interface = g.interface.as_deref().map(Interface::by_name);
        !matches!(interface, Some(Ok(i)) if !stack.members().contains(&i.index))
    };
    let groups = groups.into_iter().partition(in_ring);
    let mut sink = Sink {
        config,
        ring: ring.index,
        here,
        groups,
        stack,
        fragments_v4,
        sources: Vec::new(),
        holders: Vec::new(),
        link_local: link_local_addresses().map_err(|e| Error::os(Code::Kernel, "getifaddrs", e))?,
    };
    for (target, port) in places {
        match target {
            bind::Target::Any => {
                sink.hold((bind::Target::AnyV4, port))?;
                if socket::kernel_has_ipv6() {
                    sink.hold((bind::Target::AnyV6, port))?;
                }
            }
            target => sink.hold((target, port))?,
        }
    }
    let lack = sink.holders.iter().map(|h| h.lack).max();
    degraded.extend(lack.and_then(|lack| says(lack, ring)));
    let Sink { stack, sources, holders, link_local, .. } = sink;
    let sorting = Sorting { stack, listen: ListenSet::new(here), holders, link_local, cut: 0 };
    Ok(SocketReceiver::of_sink(sources, sorting))
}

/// The guard being opened.
struct Sink<'a> {
    config: &'a EngineConfig,
    /// Index of the ring's interface.
    ring: u32,
    here: &'a [Listen],
    /// Multicast groups joined where the ring hears them, and elsewhere.
    groups: (Vec<Multicast>, Vec<Multicast>),
    stack: Stack,
    fragments_v4: bool,
    sources: Vec<Source>,
    holders: Vec<Holder>,
    /// See [`Sorting::link_local`].
    link_local: Vec<(IpAddr, u32)>,
}

impl Sink<'_> {
    fn hold(&mut self, place: bind::Place) -> Result<()> {
        // A link-local address of another interface, be it one that hands up the ring's frames: the ring leaves it to us.
        if matches!(place.0, bind::Target::Exact(_, scope) if scope != 0 && scope != self.ring) {
            let mut options = options(self.config.socket_rcvbuf);
            for bound in bind::bind_group(place, 1, &mut |fd, v6| {
                crate::sys::multicast::own_groups_only(fd, v6);
                options.receive(fd, v6, false)
            })? {
                multicast::join(&self.groups.0, place, &[&bound.fd])?;
                multicast::join(&self.groups.1, place, &[&bound.fd])?;
                self.sources.push(Source::new(bound, Wanted::All));
            }
            return Ok(());
        }
        let v4 = matches!(place.0, bind::Target::AnyV4 | bind::Target::Exact(IpAddr::V4(_), _));
        let look = match (v4, self.fragments_v4) {
            (true, true) => Look::V4,
            (true, false) => Look::Never,
            (false, _) => Look::V6,
        };
        let mut number = HOLDER;
        let members = if look == Look::Never { 2 } else { 3 };
        let rcvbuf = self.config.socket_rcvbuf;
        let (mut full, mut small) = (options(rcvbuf), options(FRAGMENTS_RCVBUF.min(rcvbuf)));
        let group = bind::bind_group(place, members, &mut |fd, v6| {
            crate::sys::multicast::own_groups_only(fd, v6);
            // UDP_GRO, so that a super-packet comes whole instead of being cut up only to be dropped, and so that the
            // driver's GRO may merge our flows before the ring sees them: the ring splits them again for much less. Not
            // for IPv6: what it merges is large, and large datagrams are looked at for fragments. All members are alike in
            // this, because the driver's GRO asks the one that the kernel's hash picks, not the program's.
            if v4 {
                full.fast_path(fd);
            }
            number += 1;
            match number - 1 {
                HOLDER => attach(fd, libc::SO_ATTACH_FILTER, &classic::drop_all()),
                ELSEWHERE => full.receive(fd, v6, true),
                _ => {
                    report_fragments(fd, v6)
                        .map_err(|e| Error::os(Code::Kernel, "IPV6_RECVFRAGSIZE, IP_RECVFRAGSIZE", e))?;
                    small.receive(fd, v6, true)
                }
            }
        })?;
        let mut group = group.into_iter();
        let (Some(holder), Some(elsewhere)) = (group.next(), group.next()) else {
            return Err(Error::new(Code::State, "guard: a group has fewer sockets than were bound"));
        };
        let fragments = group.next();
        let (here, away) = &self.groups;
        multicast::join(here, place, &[&fragments.as_ref().unwrap_or(&holder).fd])?;
        multicast::join(away, place, &[&elsewhere.fd])?;
        let mut holder =
            Holder { fd: holder.fd, look, addresses: self.addresses(place), lack: Lack::Nothing };
        holder.lack = holder.sort(&self.stack, &self.link_local)?;
        self.sources.push(Source::new(elsewhere, Wanted::Elsewhere));
        self.sources.extend(fragments.map(|f| Source::new(f, Wanted::Reassembled)));
        self.holders.push(holder);
        Ok(())
    }

    /// See [`InRing::addresses`]. The program does not see what goes to many.
    fn addresses(&self, (target, port): bind::Place) -> Option<Vec<IpAddr>> {
        let v4 = match target {
            bind::Target::Exact(..) => return None,
            target => target == bind::Target::AnyV4,
        };
        let here = self.here.iter().filter(|l| l.port == port).filter_map(|l| l.address);
        let mut of_family: Vec<IpAddr> = here
            .map(|address| address.to_canonical())
            .filter(|address| address.is_ipv4() == v4 && !address.is_multicast())
            .collect();
        of_family.sort_unstable();
        of_family.dedup();
        Some(of_family)
    }
}

/// What it means that a program leaves something out.
fn says(lack: Lack, ring: &Interface) -> Option<String> {
    let lost = "datagrams for local routes and for addresses that come later are lost";
    let what = match lack {
        Lack::Nothing => return None,
        Lack::Destinations => lost.to_owned(),
        Lack::Interfaces => {
            format!(
                "{lost}, and some of those by what stands on {0}, or for what {0} stands on, come twice",
                ring.name
            )
        }
    };
    Some(format!(
        "the program that sorts for the guard does not fit net.core.optmem_max (or classic BPF): {what}; raise \
         net.core.optmem_max in this network namespace to 131072 or more, or name addresses in MILLRACE_LISTEN"
    ))
}

/// Whether the kernel says of an IPv4 datagram that it was fragments (ip(7), IP_RECVFRAGSIZE).
fn reports_fragments() -> std::io::Result<()> {
    report_fragments(&socket::open_udp_v4()?, false)
}

fn report_fragments(fd: &OwnedFd, v6: bool) -> std::io::Result<()> {
    if v6 {
        socket::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVFRAGSIZE, 1)
    } else {
        socket::set_int(fd, libc::IPPROTO_IP, libc::IP_RECVFRAGSIZE, 1)
    }
}

fn attach(fd: &OwnedFd, option: libc::c_int, program: &[libc::sock_filter]) -> Result<()> {
    socket::attach_cbpf(fd, option, program).map_err(|e| Error::os(Code::Kernel, "guard: attach a filter", e))
}
