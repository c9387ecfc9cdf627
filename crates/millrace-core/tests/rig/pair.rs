//! Two network namespaces joined by a veth pair.

use std::{
    fs::File,
    net::IpAddr,
    os::fd::AsRawFd,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use millrace_core::packet::build::Frame;

use super::{
    TIMEOUT,
    shell::{self, run},
};

/// MAC address of `va`, the sending end.
pub const MAC_A: [u8; 6] = [2, 0, 0, 0, 0x0a, 1];
/// MAC address of `vb`, the receiving end.
pub const MAC_B: [u8; 6] = [2, 0, 0, 0, 0x0b, 1];
/// IPv4 addresses of `va` and `vb`, with 24 bits of network.
pub const V4: (&str, &str) = ("192.0.2.1", "192.0.2.2");
/// IPv6 addresses of `va` and `vb`, with 64 bits of network.
pub const V6: (&str, &str) = ("2001:db8::1", "2001:db8::2");

/// Two network namespaces and one veth pair: `va` in `a`, which sends, and `vb` in `b`, which receives.
///
/// There is no duplicate address detection and no router solicitation for IPv6, and the neighbours are fixed: the only
/// frames on the wire are the test's own, what the kernel answers, and its multicast listener reports for IPv6. Dropping
/// the pair deletes both namespaces.
pub struct Pair {
    /// Name of the sending namespace.
    pub a: String,
    /// Name of the receiving namespace.
    pub b: String,
}

impl Pair {
    /// Makes the namespaces and the pair, with `queues` rx and tx queues on both ends.
    pub fn new(queues: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("mr{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let pair = Pair { a: format!("{id}a"), b: format!("{id}b") };
        run(&format!("ip netns add {}", pair.a));
        run(&format!("ip netns add {}", pair.b));
        pair.create_link(queues, MAC_B);
        pair
    }

    /// Deletes the veth pair; to `b` this is a NIC that is pulled out, or a driver that is unloaded.
    pub fn delete_link(&self) {
        run(&format!("ip -n {} link del vb", self.b));
    }

    /// Creates the veth pair, with the addresses above and `mac_b` for `vb`. Created again, it has new interface indices.
    pub fn create_link(&self, queues: u32, mac_b: [u8; 6]) {
        let (a, b) = (&self.a, &self.b);
        run(&format!(
            "ip link add va netns {a} address {} numtxqueues {queues} numrxqueues {queues} type veth \
             peer name vb netns {b} address {} numtxqueues {queues} numrxqueues {queues}",
            mac(MAC_A),
            mac(mac_b)
        ));
        for (ns, dev, v4, v6) in [(a, "va", V4.0, V6.0), (b, "vb", V4.1, V6.1)] {
            let settings = ["accept_dad=0", "router_solicitations=0", "addr_gen_mode=1"]
                .map(|setting| format!("net.ipv6.conf.{dev}.{setting}"));
            run(&format!("ip netns exec {ns} sysctl -qw {}", settings.join(" ")));
            run(&format!("ip -n {ns} addr add {v4}/24 dev {dev}"));
            run(&format!("ip -n {ns} addr add {v6}/64 dev {dev} nodad"));
            run(&format!("ip -n {ns} link set lo up"));
            run(&format!("ip -n {ns} link set {dev} up"));
        }
        for (ns, dev, mac, v4, v6) in [(a, "va", mac(mac_b), V4.1, V6.1), (b, "vb", mac(MAC_A), V4.0, V6.0)] {
            run(&format!("ip -n {ns} neigh replace {v4} lladdr {mac} dev {dev}"));
            run(&format!("ip -n {ns} neigh replace {v6} lladdr {mac} dev {dev}"));
        }
        self.wait_until_up();
        await_local_route(a, V6.0);
        await_local_route(b, V6.1);
    }

    /// Takes the receiving end's link up and waits until both ends carry traffic.
    pub fn link_up(&self) {
        run(&format!("ip -n {} link set vb up", self.b));
        self.wait_until_up();
    }

    /// Waits until both ends carry traffic: the kernel activates a sender's queueing discipline a moment after the link is
    /// set up, and drops without an error what is sent before.
    fn wait_until_up(&self) {
        let start = Instant::now();
        while ![(&self.a, "va"), (&self.b, "vb")]
            .iter()
            .all(|(ns, dev)| run(&format!("ip -n {ns} link show dev {dev}")).contains("state UP"))
        {
            assert!(start.elapsed() < TIMEOUT, "the link does not come up");
            thread::sleep(Duration::from_millis(2));
        }
        thread::sleep(Duration::from_millis(5));
    }

    /// Runs `f` on a thread inside the sending namespace. The threads that `f` spawns stay there.
    pub fn in_a<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.a, f)
    }

    /// Runs `f` on a thread inside the receiving namespace. The threads that `f` spawns stay there.
    pub fn in_b<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.b, f)
    }

    /// The headers of an IPv4 frame from `a` to `b`.
    pub fn v4(src_port: u16, dst_port: u16) -> Frame {
        Self::frame(V4, src_port, dst_port)
    }

    /// The headers of an IPv6 frame from `a` to `b`.
    pub fn v6(src_port: u16, dst_port: u16) -> Frame {
        Self::frame(V6, src_port, dst_port)
    }

    fn frame(addresses: (&str, &str), src_port: u16, dst_port: u16) -> Frame {
        let ip = |a: &str| a.parse::<IpAddr>().unwrap();
        Frame {
            src_mac: MAC_A,
            dst_mac: MAC_B,
            ..Frame::new((ip(addresses.0), src_port), (ip(addresses.1), dst_port))
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for ns in [&self.a, &self.b] {
            shell::try_run(&["ip", "netns", "del", ns]);
        }
    }
}

/// Adds an address (`2001:db8::7/64`) to an interface that is up, and waits until datagrams for it are received.
pub fn add_address(namespace: &str, address: &str, dev: &str) {
    let ip = address.split('/').next().unwrap_or_default();
    if ip.contains(':') {
        run(&format!("ip -n {namespace} addr add {address} dev {dev} nodad"));
        await_local_route(namespace, ip);
    } else {
        run(&format!("ip -n {namespace} addr add {address} dev {dev}"));
    }
}

/// Waits until the stack takes datagrams for this IPv6 address. The kernel makes the route to a new one in a work queue
/// (`addrconf_dad_work` in net/ipv6/addrconf.c), also without duplicate address detection, and on a busy machine that takes
/// a while.
pub fn await_local_route(namespace: &str, ip: &str) {
    let start = Instant::now();
    let local = format!("local {ip} dev");
    while !run(&format!("ip -n {namespace} -6 route show table local")).contains(&local) {
        assert!(start.elapsed() < TIMEOUT, "{namespace} has no route to its address {ip}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn mac(m: [u8; 6]) -> String {
    m.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// Runs `f` on a thread inside the network namespace with this name (ip-netns(8)).
pub fn in_namespace<T: Send>(name: &str, f: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{name}")).expect("namespace");
    thread::scope(|s| {
        let handle = s.spawn(move || {
            // SAFETY: setns takes an open namespace fd and changes only this thread, which ends with `f`.
            let rc = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(rc, 0, "setns: {}", std::io::Error::last_os_error());
            f()
        });
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Gives the calling thread, and the threads and processes it starts, a /sys that shows its network namespace: called
/// inside [`Pair::in_b`]. `flags` are mount(2)'s.
pub fn mount_own_sysfs(flags: libc::c_ulong) {
    let check = |rc: i32, what: &str| assert_eq!(rc, 0, "{what}: {}", std::io::Error::last_os_error());
    // SAFETY: only this thread leaves the shared mount namespace (unshare(2)).
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }, "unshare");
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the paths and the type are NUL-terminated; null where the call takes none.
    unsafe {
        check(
            libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null()),
            "private mounts",
        );
        let sysfs = c"sysfs".as_ptr();
        check(libc::mount(sysfs, c"/sys".as_ptr(), sysfs, flags, std::ptr::null()), "mounting sysfs");
    }
}
