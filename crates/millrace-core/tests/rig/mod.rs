//! Test rig: two network namespaces joined by a veth pair with N queues, and a sender of raw frames.
//!
//! `a` sends, `b` receives. No IPv6 duplicate-address detection, no router solicitation, neighbours fixed: the only
//! frames on the wire are the test's own (and what the kernel answers).
#![allow(dead_code, unreachable_pub)]

use std::{
    fs::{File, OpenOptions},
    io::Write,
    mem,
    net::IpAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use millrace_core::{packet::build::Frame, sys::scheduling};

pub mod errands;

/// MAC of the sending end.
pub const MAC_A: [u8; 6] = [2, 0, 0, 0, 0x0a, 1];
/// MAC of the receiving end.
pub const MAC_B: [u8; 6] = [2, 0, 0, 0, 0x0b, 1];
/// IPv4 addresses of the ends.
pub const V4: (&str, &str) = ("192.0.2.1", "192.0.2.2");
/// IPv6 addresses of the ends.
pub const V6: (&str, &str) = ("2001:db8::1", "2001:db8::2");

/// No test waits longer than this for something that should come. Setting up a ring waits for an RCU grace period, and on
/// this kind of machine, overloaded, one of those was seen to take more than four seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Prints why a test that is about to return is skipped, and adds a line to the file named by MILLRACE_SKIP_LOG so that the
/// summary counts it as skipped and not as passed.
pub fn skip(test: &str, why: &str) {
    let line = format!("SKIP {test}: {why}");
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("MILLRACE_SKIP_LOG") {
        let mut log = OpenOptions::new().append(true).create(true).open(path).expect("skip log");
        writeln!(log, "{line}").expect("skip log");
    }
}

/// True when the test may make namespaces; otherwise it is skipped.
pub fn privileged(test: &str) -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        errands::ready();
        return true;
    }
    skip(test, "needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN) to make network namespaces");
    false
}

/// True when threads of this process may have real-time priority; otherwise the test is skipped.
pub fn real_time(test: &str) -> bool {
    let tried = scheduling::probe_fifo(1);
    if let Err(e) = &tried {
        skip(test, &format!("not even root may have real-time priority here: {e}"));
    }
    tried.is_ok()
}

/// Runs a command of words without spaces, panics with its output when it fails.
pub fn run(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (done, said) = errands::run(&words);
    assert!(done, "{line}: {said}");
    said
}

/// Two namespaces, one veth pair: `va` in `a`, `vb` in `b`.
pub struct Pair {
    /// Name of the sending namespace.
    pub a: String,
    /// Name of the receiving namespace.
    pub b: String,
}

impl Pair {
    /// Makes the pair with `queues` rx and tx queues on both ends.
    pub fn new(queues: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("mr{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let pair = Pair { a: format!("{id}a"), b: format!("{id}b") };
        run(&format!("ip netns add {}", pair.a));
        run(&format!("ip netns add {}", pair.b));
        pair.plug(queues, MAC_B);
        pair
    }

    /// Takes the pair away, as a NIC that is pulled out.
    pub fn unplug(&self) {
        run(&format!("ip -n {} link del vb", self.b));
    }

    /// Makes the pair again, with the same addresses and a MAC of the receiving end; its indices are new.
    pub fn plug(&self, queues: u32, mac_b: [u8; 6]) {
        let (a, b) = (&self.a, &self.b);
        run(&format!(
            "ip link add va netns {a} address {} numtxqueues {queues} numrxqueues {queues} type veth \
             peer name vb netns {b} address {} numtxqueues {queues} numrxqueues {queues}",
            mac(MAC_A),
            mac(mac_b)
        ));
        for (ns, dev, v4, v6) in [(a, "va", V4.0, V6.0), (b, "vb", V4.1, V6.1)] {
            for knob in ["accept_dad=0", "router_solicitations=0", "addr_gen_mode=1"] {
                run(&format!("ip netns exec {ns} sysctl -qw net.ipv6.conf.{dev}.{knob}"));
            }
            run(&format!("ip -n {ns} addr add {v4}/24 dev {dev}"));
            run(&format!("ip -n {ns} addr add {v6}/64 dev {dev} nodad"));
            run(&format!("ip -n {ns} link set lo up"));
            run(&format!("ip -n {ns} link set {dev} up"));
        }
        for (ns, dev, mac, v4, v6) in [(a, "va", mac(mac_b), V4.1, V6.1), (b, "vb", mac(MAC_A), V4.0, V6.0)] {
            run(&format!("ip -n {ns} neigh replace {v4} lladdr {mac} dev {dev}"));
            run(&format!("ip -n {ns} neigh replace {v6} lladdr {mac} dev {dev}"));
        }
        self.until_up();
    }

    /// Takes the receiving end's link up and waits until both ends carry traffic.
    pub fn link_up(&self) {
        run(&format!("ip -n {} link set vb up", self.b));
        self.until_up();
    }

    /// The kernel activates the sender's queue a moment after a link is set up, and until then drops what is sent without
    /// a word.
    fn until_up(&self) {
        let start = std::time::Instant::now();
        while ![(&self.a, "va"), (&self.b, "vb")]
            .iter()
            .all(|(ns, dev)| run(&format!("ip -n {ns} link show dev {dev}")).contains("state UP"))
        {
            assert!(start.elapsed().as_secs() < 10, "the link does not come up");
            thread::sleep(std::time::Duration::from_millis(2));
        }
        thread::sleep(std::time::Duration::from_millis(5));
    }

    /// Runs `f` on a thread inside the sending namespace.
    pub fn in_a<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.a, f)
    }

    /// Runs `f` on a thread inside the receiving namespace. Threads it spawns stay there.
    pub fn in_b<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.b, f)
    }

    /// A frame header set from `a` to `b`, IPv4.
    pub fn v4(src_port: u16, dst_port: u16) -> Frame {
        Self::frame(V4, src_port, dst_port)
    }

    /// A frame header set from `a` to `b`, IPv6.
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
            errands::run(&["ip", "netns", "del", ns]);
        }
    }
}

fn mac(m: [u8; 6]) -> String {
    m.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

fn in_namespace<T: Send>(name: &str, f: impl FnOnce() -> T + Send) -> T {
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

/// Gives the calling thread, and what it starts, a /sys of its network namespace: inside [`Pair::in_b`]. `flags` as of mount(2).
pub fn own_sys(flags: libc::c_ulong) {
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

/// Sends any bytes as a frame out of one interface of the calling thread's namespace.
pub struct RawSender {
    fd: OwnedFd,
}

impl RawSender {
    /// Opens an AF_PACKET socket on `interface`; protocol 0, so it receives nothing.
    pub fn new(interface: &str) -> Self {
        let name = std::ffi::CString::new(interface).unwrap();
        // SAFETY: a NUL-terminated name; the call only reads it.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        assert_ne!(index, 0, "no interface {interface}");
        // SAFETY: plain socket(2); the result is checked before it is owned.
        let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(raw >= 0, "socket: {}", std::io::Error::last_os_error());
        // SAFETY: `raw` is a fresh descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: sockaddr_ll is plain old data; all zero is valid.
        let mut sll: libc::sockaddr_ll = unsafe { mem::zeroed() };
        sll.sll_family = libc::AF_PACKET as u16;
        sll.sll_ifindex = index as i32;
        // SAFETY: the pointer and the length describe `sll`, which outlives the call.
        let rc = unsafe {
            libc::bind(fd.as_raw_fd(), (&raw const sll).cast(), mem::size_of_val(&sll) as libc::socklen_t)
        };
        assert_eq!(rc, 0, "bind: {}", std::io::Error::last_os_error());
        RawSender { fd }
    }

    /// Sends past the queueing discipline (PACKET_QDISC_BYPASS): a veth's tx queue is then the CPU's.
    pub fn bypass_qdisc(&self) {
        let on: libc::c_int = 1;
        // SAFETY: pointer and length describe `on`, which outlives the call.
        let rc = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const on).cast(),
                mem::size_of_val(&on) as libc::socklen_t,
            )
        };
        assert_eq!(rc, 0, "PACKET_QDISC_BYPASS: {}", std::io::Error::last_os_error());
    }

    /// Sends one frame; waits while the device's queue is full, so that what returns was handed over.
    pub fn send(&self, frame: &[u8]) {
        loop {
            // SAFETY: pointer and length describe `frame`, which outlives the call.
            let n = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
            if n == frame.len() as isize {
                return;
            }
            let e = std::io::Error::last_os_error();
            assert_eq!(e.raw_os_error(), Some(libc::ENOBUFS), "send of {} bytes: {e}", frame.len());
            thread::yield_now();
        }
    }
}
