//! AF_XDP on an interface that the XDP program of another process has, or needs: the first one stays, and none is replaced.

use std::os::fd::{AsFd, AsRawFd};

use millrace_core::{
    bpf::{
        Program, action,
        ebpf::{Assembler, Reg},
        link::{AttachMode, XdpLink},
    },
    error::Code,
    net::Interface,
};

use crate::{
    rig::{self, Pair},
    xdp_support::{Collector, assert_detached, drain_until, open, program_on, send},
};

fn constant(action: u32) -> Program {
    let mut a = Assembler::new();
    a.mov_imm(Reg::R0, action as i32).exit();
    Program::load("foreign", &a.finish().unwrap(), 0).unwrap()
}

/// A program that passes everything, attached as another process would: by link.
fn foreign(pair: &Pair, mode: AttachMode) -> (XdpLink, u32) {
    let program = constant(action::PASS);
    let link = pair.in_b(|| XdpLink::attach(&program, &Interface::by_name("vb").unwrap(), mode)).unwrap();
    (link, program.id())
}

/// Sets (or with fd -1 removes) the program of `vb` by rtnetlink, as `ip link set xdp` does. Returns the errno.
fn netlink_set(fd: i32) -> i32 {
    const RTM_SETLINK: u16 = 19;
    const IFLA_XDP: u16 = 43 | 0x8000;
    let mut m = Vec::new();
    m.extend(44u32.to_ne_bytes()); // the whole message
    m.extend(RTM_SETLINK.to_ne_bytes());
    m.extend(5u16.to_ne_bytes()); // NLM_F_REQUEST | NLM_F_ACK
    m.extend([0; 12]);
    m.extend(Interface::by_name("vb").unwrap().index.to_ne_bytes());
    m.extend([0; 8]);
    for (length, kind) in [(12u16, IFLA_XDP), (8, 1)] {
        m.extend(length.to_ne_bytes());
        m.extend(kind.to_ne_bytes());
    }
    m.extend(fd.to_ne_bytes());
    assert_eq!(m.len(), 44);
    let mut answer = [0u8; 256];
    // SAFETY: plain system calls on a descriptor made here; pointers and lengths describe `m` and `answer`.
    unsafe {
        let s = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE);
        assert!(s >= 0 && libc::send(s, m.as_ptr().cast(), m.len(), 0) == m.len() as isize);
        assert!(libc::recv(s, answer.as_mut_ptr().cast(), answer.len(), 0) >= 20);
        libc::close(s);
    }
    -i32::from_ne_bytes(*answer[16..].first_chunk().unwrap())
}

#[test]
fn a_program_attached_by_netlink_is_left_alone_and_cannot_replace_ours() {
    rig::require_root!();
    let pair = Pair::new(1);
    let theirs = constant(action::PASS);
    assert_eq!(pair.in_b(|| netlink_set(theirs.as_fd().as_raw_fd())), 0);
    for mode in ["auto", "native", "generic"] {
        let e = pair.in_b(|| open(mode, 512)).err().unwrap();
        assert_eq!(e.code, Code::Busy, "{e}");
        assert!(e.message.contains(&format!("id {} (native)", theirs.id())), "{e}");
    }
    assert_eq!(program_on(&pair.b), Some(theirs.id()));
    assert_eq!(pair.in_b(|| netlink_set(-1)), 0);
    assert_detached(&pair);

    let receivers = pair.in_b(|| open("auto", 512)).unwrap().receivers;
    assert_eq!(pair.in_b(|| netlink_set(theirs.as_fd().as_raw_fd())), libc::EBUSY);
    assert_eq!(pair.in_b(|| netlink_set(-1)), libc::EBUSY);
    assert_eq!(program_on(&pair.b), Some(receivers[0].program_id()));
}

#[test]
fn a_second_open_is_refused_and_the_first_goes_on() {
    rig::require_root!();
    let pair = Pair::new(2);
    let mut first = pair.in_b(|| open("auto", 512)).unwrap().receivers;
    let id = first[0].program_id();
    assert_eq!(program_on(&pair.b), Some(id));
    for mode in ["auto", "native", "generic"] {
        let e = pair.in_b(|| open(mode, 512)).err().unwrap();
        assert_eq!(e.code, Code::Busy, "{e}");
        assert!(e.message.contains(&format!("id {id} (native)")), "{e}");
    }
    assert_eq!(program_on(&pair.b), Some(id));
    let mut sink = Collector::default();
    send(&pair, 0..100);
    drain_until(&mut first, &mut sink, |_, s| s.datagrams == 100);
    // The last receiver takes the program with it, and not the last but one.
    first.pop();
    assert_eq!(program_on(&pair.b), Some(id));
    drop(first);
    assert_detached(&pair);
}

#[test]
fn a_foreign_program_is_never_touched() {
    rig::require_root!();
    for theirs in [AttachMode::Native, AttachMode::Generic] {
        let pair = Pair::new(1);
        let (link, id) = foreign(&pair, theirs);
        for mode in ["auto", "native", "generic"] {
            let e = pair.in_b(|| open(mode, 512)).err().unwrap();
            assert_eq!(e.code, Code::Busy, "{e}");
            assert!(e.message.contains(&format!("id {id} ({theirs})")), "{e}");
            assert_eq!(program_on(&pair.b), Some(id));
        }
        drop(link);
        assert_detached(&pair);
        drop(pair.in_b(|| open("auto", 512)).unwrap());
    }
}

#[test]
fn a_link_update_swaps_the_program_in_place() {
    rig::require_root!();
    let pair = Pair::new(1);
    let (link, old) = foreign(&pair, AttachMode::Native);
    let new = constant(action::DROP);
    link.update(&new).unwrap();
    assert_ne!(old, new.id());
    assert_eq!(program_on(&pair.b), Some(new.id()));
}
