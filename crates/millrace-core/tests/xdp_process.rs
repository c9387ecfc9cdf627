//! AF_XDP seen from outside the process: what a kill leaves behind (nothing) and what missing capabilities are called.

mod rig;
#[path = "support/xdp.rs"]
mod xdp_support;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rig::Pair;
use xdp_support::{Collector, drain_until, open, program_on, send, udp_socket};

/// Environment variable that turns [`helper_holds_the_interface`] into a process that holds `vb`.
const HELPER: &str = "MILLRACE_TEST_XDP_HELPER";

/// Not a test by itself: the process that gets killed. Started by `kill_leaves_nothing_behind` in the namespace.
#[test]
fn helper_holds_the_interface() {
    let Some(mode) = std::env::var_os(HELPER) else { return };
    match open(mode.to_str().unwrap(), 512) {
        Ok(opened) => {
            println!("\nheld by program {}", opened.receivers[0].program_id());
            thread::sleep(Duration::from_secs(60));
        }
        Err(e) => println!("\nrefused: {e}"),
    }
}

/// Starts the helper in the receiving namespace, through `wrapper` (a command that ends in execve). Returns it and the
/// line it says; it is gone by itself after a minute.
fn start_helper(pair: &Pair, mode: &str, wrapper: &str) -> (Child, String) {
    let exe = std::env::current_exe().unwrap();
    // `ip netns exec` becomes the helper by execve, so the child's process id is the helper's.
    let mut child = Command::new("ip")
        .args(["netns", "exec", &pair.b])
        .args(wrapper.split_whitespace())
        .arg(exe)
        .args(["--exact", "helper_holds_the_interface", "--nocapture"])
        .env(HELPER, mode)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said = lines.find(|l| l.contains("held by program") || l.contains("refused: "));
    (child, said.expect("the helper says how it went"))
}

#[test]
fn missing_capabilities_are_named() {
    rig::require_root!();
    let pair = Pair::new(1);
    for (capabilities, memlock, want) in [
        ("-all,+net_raw", "8388608", &["E_PERMISSION", "CAP_BPF and CAP_NET_ADMIN"][..]),
        ("-all,+net_admin,+bpf", "8388608", &["E_PERMISSION", "CAP_NET_RAW"]),
        ("-all,+net_raw,+net_admin,+bpf", "65536", &["E_PERMISSION", "RLIMIT_MEMLOCK", "CAP_IPC_LOCK"]),
        ("-all,+net_raw,+net_admin,+bpf", "8388608", &["held by program"]),
    ] {
        let wrapper = format!("prlimit --memlock={memlock} setpriv --bounding-set {capabilities}");
        let (mut child, said) = start_helper(&pair, "auto", &wrapper);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(want.iter().all(|w| said.contains(w)), "{capabilities} {memlock}: {said}");
        eprintln!("{capabilities} memlock {memlock}: {said}");
        assert_eq!(program_on(&pair.b), None);
    }
}

#[test]
fn kill_leaves_nothing_behind() {
    rig::require_root!();
    for mode in ["native", "generic"] {
        let pair = Pair::new(2);
        let socket = udp_socket(&pair);
        let (mut child, held) = start_helper(&pair, mode, "");
        let before = program_on(&pair.b);
        child.kill().unwrap();
        child.wait().unwrap();
        let id: u32 = held.rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(before, Some(id));
        assert_eq!(program_on(&pair.b), None, "{mode}: the program outlived its process");
        let start = Instant::now();
        let mut receivers = pair.in_b(|| open(mode, 512)).unwrap().receivers;
        eprintln!("{mode}: re-opened {:?} after the kill", start.elapsed());
        let mut sink = Collector::default();
        send(&pair, 0..20);
        drain_until(&mut receivers, &mut sink, |_, s| s.datagrams == 20);
        drop(receivers);
        send(&pair, 20..21);
        assert_eq!(socket.recv_from(&mut [0; 8]).unwrap().0, 2);
    }
}
