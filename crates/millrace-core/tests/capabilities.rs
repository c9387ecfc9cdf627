//! Which capability buys which backend, for a process that is not root (setpriv(1)): the ladder stops at the right rung
//! and every refusal names what is missing.

mod rig;
#[path = "support/receive.rs"]
mod support;

use std::process::Command;

use millrace_core::rx::ladder;
use rig::Pair;
use support::*;

/// Environment variable that turns [`helper_opens_what_it_may`] into a process without privileges.
const HELPER: &str = "MILLRACE_TEST_CAPABILITIES";

/// Not a test by itself: opens with `auto` on `vb` and says how it went.
#[test]
fn helper_opens_what_it_may() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    let (backend, refused) = ladder::open(&config(ONE_PORT, "vb", 1), &Default::default()).unwrap();
    println!("\nopened {}", backend.info().backend);
    for r in refused {
        println!("refused {}: {} {}", r.backend, r.code, r.message.replace('\n', " "));
    }
}

/// What a process with these capabilities alone (and this limit of locked memory, KiB) says.
fn with(pair: &Pair, capabilities: &str, locked: &str) -> String {
    let set = capabilities.split_whitespace().map(|c| format!(",+{c}")).collect::<String>();
    let out = Command::new("ip")
        .args(["netns", "exec", &pair.b, "sh", "-c"])
        .arg(format!(
            "ulimit -l {locked}; exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps -all{set} \
             --ambient-caps -all{set} --bounding-set -all{set} \"$0\" --exact helper_opens_what_it_may --nocapture"
        ))
        .arg(std::env::current_exe().unwrap())
        .env(HELPER, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// Capabilities, locked memory in KiB, the backend opened, and what each refusal names.
type Row = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

#[test]
fn each_set_of_capabilities_opens_its_rung() {
    rig::require_root!();
    let matrix: [Row; 5] = [
        ("", "unlimited", "socket", &[("xdp", "CAP_BPF"), ("packet", "CAP_NET_RAW")]),
        ("net_raw", "unlimited", "packet", &[("xdp", "CAP_BPF and CAP_NET_ADMIN")]),
        ("net_raw bpf", "unlimited", "packet", &[("xdp", "CAP_NET_ADMIN")]),
        ("net_raw net_admin bpf ipc_lock", "64", "xdp", &[]),
        // 512 frames of 2 KiB do not fit 64 KiB.
        ("net_raw net_admin bpf", "64", "packet", &[("xdp", "CAP_IPC_LOCK")]),
    ];
    for (capabilities, locked, backend, refusals) in matrix {
        let pair = Pair::new(1);
        let said = with(&pair, capabilities, locked);
        assert!(said.contains(&format!("opened {backend}\n")), "{capabilities}: {said}");
        for (refused, names) in refusals {
            let line = said.lines().find(|l| l.starts_with(&format!("refused {refused}:")));
            let line = line.unwrap_or_else(|| panic!("{capabilities}: {refused} was not refused: {said}"));
            assert!(line.contains("MILLRACE_E_PERMISSION") && line.contains(names), "{capabilities}: {line}");
        }
        assert_eq!(said.matches("refused ").count(), refusals.len(), "{capabilities}: {said}");
    }
}
