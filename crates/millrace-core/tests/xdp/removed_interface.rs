//! The interface is removed and comes again.

use std::{
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    net::Interface,
    rx::{Receiver, xdp::XdpReceiver},
};

use crate::{
    rig::{self, Pair, run},
    xdp_support::{
        Collector, TIMEOUT, assert_detached, await_degraded, await_serving, counter, drain, drain_until,
        each_receives_its_own, lost, open, report, send,
    },
};

#[test]
fn a_removed_interface_is_waited_for_and_taken_again() {
    rig::require_root!();
    let pair = Pair::new(2);
    let opened = pair.in_b(|| open("native", 2048)).unwrap();
    let (state, mut receivers) = (opened.receivers[0].interface_state(), opened.receivers);
    let (index, program) = (pair.in_b(|| Interface::by_name("vb").unwrap().index), receivers[0].program_id());
    let mut sink = Collector::default();
    for round in 0..3u16 {
        let sent = usize::from(round) * 1000;
        send(&pair, round * 1000..round * 1000 + 500);
        let start = Instant::now();
        while receivers.iter().map(|r| r.frames().rx).sum::<u32>() < 500 {
            assert!(start.elapsed() < TIMEOUT, "{}", report(&mut receivers));
            thread::sleep(Duration::from_millis(1));
        }
        // What the rings hold is not lost with the interface.
        pair.delete_link();
        let start = Instant::now();
        while !receivers.iter().all(|r| r.away().is_some() && r.serves().is_empty()) {
            assert!(start.elapsed() < TIMEOUT, "{}", report(&mut receivers));
            receivers.iter_mut().for_each(|r| r.wait(Duration::from_millis(5)).unwrap());
            // A receiver without rx queues notices it when it reconciles.
            receivers.iter_mut().for_each(|r| drop(r.counters()));
            drain(&mut receivers, &mut sink);
        }
        assert_eq!(sink.datagrams, sent + 500);
        assert!(receivers.iter().all(|r| r.away().unwrap().contains("vb was removed")));
        assert_eq!((receivers[0].program_id(), receivers[0].frames().total), (0, 0));
        assert_eq!(state.info().granted.iter().find(|(k, _)| k == "rx queues").unwrap().1, "0");

        // Back with another MAC, index and number of queues: fewer than there are receivers, then more.
        let queues = [1, 4, 2][usize::from(round)];
        pair.create_link(queues, [2, 0, 0, 0, 0x0b, 7]);
        let want: [[&[u32]; 2]; 3] = [[&[0], &[]], [&[0, 2], &[1, 3]], [&[0], &[1]]];
        await_serving(&pair, &mut receivers, &want[usize::from(round)]);
        assert_ne!(pair.in_b(|| Interface::by_name("vb").unwrap().index), index);
        assert_ne!(receivers[0].program_id(), program);
        assert!(receivers.iter().all(|r| r.away().is_none()));
        send(&pair, round * 1000 + 500..round * 1000 + 1000);
        drain_until(&mut receivers, &mut sink, |_, s| s.datagrams == sent + 1000);
        // Attached before it was up, perhaps.
        await_degraded(&state, |degraded| degraded.is_empty());
        let info = state.info();
        assert_eq!(info.mode, "native copy");
        assert_eq!(info.granted.iter().find(|(k, _)| k == "rx queues").unwrap().1, queues.to_string());
    }
    assert_eq!(counter(&mut receivers, "xdp_reattached"), 6, "twice three times");
    assert_eq!(lost(&mut receivers), 0);
    drop(receivers);
    assert_detached(&pair);
}

/// No socket of the thread could report it.
#[test]
fn a_thread_without_sockets_hears_of_a_removed_interface() {
    rig::require_root!();
    let pair = Pair::new(1);
    let mut receivers = pair.in_b(|| open("native", 512)).unwrap().receivers;
    // This is the state when the kernel refuses every socket.
    receivers[0].serve_rx_queues(0);
    drain(&mut receivers, &mut Collector::default());
    assert_eq!((receivers[0].serves(), receivers[0].frames().total), (vec![], 0));
    pair.delete_link();
    let start = Instant::now();
    while receivers[0].away().is_none() {
        assert!(start.elapsed() < TIMEOUT, "{}", report(&mut receivers));
        drop(receivers[0].counters());
        thread::sleep(Duration::from_millis(5));
    }
    assert!(receivers[0].away().unwrap().contains("vb was removed"));
    pair.create_link(1, [2, 0, 0, 0, 0x0b, 7]);
    await_serving(&pair, &mut receivers, &[&[0]]);
    each_receives_its_own(&pair, &mut receivers, 0..100, &[0]);
    assert_eq!((counter(&mut receivers, "xdp_reattached"), lost(&mut receivers)), (1, 0));
}

/// Refuses the calling thread what takes the RTNL: ioctl(2), rtnetlink, and bpf(2) but for elements of maps
/// (seccomp(2)). The bind(2) of a new socket stays allowed.
fn forbid_slow_calls() {
    let bpf = |code: u32, jt, jf, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| bpf(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = |k, jt, jf| bpf(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, k);
    let answer = |k| bpf(libc::BPF_RET | libc::BPF_K, 0, 0, k);
    // `struct seccomp_data`: the number of the call, and the low half of its first argument.
    let argument = if cfg!(target_endian = "little") { 16 } else { 20 };
    let mut program = [
        load(0),
        equal(libc::SYS_ioctl as u32, 7, 0),
        equal(libc::SYS_bpf as u32, 2, 0),
        equal(libc::SYS_socket as u32, 3, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        load(argument),
        // BPF_MAP_LOOKUP_ELEM, _UPDATE_ELEM, _DELETE_ELEM
        bpf(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 2, 3, 3),
        load(argument),
        equal(libc::AF_NETLINK as u32, 0, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: both change this thread alone; the program is copied before the call returns.
    let rc = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(rc, 0, "seccomp: {}", std::io::Error::last_os_error());
    assert!(Interface::by_name("vb").is_err(), "ioctl is refused");
}

/// Any veth deleted on the host may hold the RTNL for longer than rings last.
#[test]
fn receive_threads_ask_the_interface_nothing() {
    rig::require_root!();
    let pair = Pair::new(2);
    run(&format!("ip netns exec {} ethtool -L va tx 1", pair.a));
    run(&format!("ip netns exec {} ethtool -L vb rx 1", pair.b));
    let mut receivers = pair.in_b(|| open("native", 512)).unwrap().receivers;
    let look_until = |receivers: &mut [XdpReceiver], done: &(dyn Fn(&XdpReceiver) -> bool + Sync)| {
        let start = Instant::now();
        while !done(&receivers[0]) {
            assert!(start.elapsed() < TIMEOUT, "{}", report(receivers));
            pair.in_b(|| {
                forbid_slow_calls();
                drop(receivers[0].counters());
                receivers[0].receive(&mut Collector::default()).unwrap();
            });
            thread::sleep(Duration::from_millis(20));
        }
    };
    // A new rx queue, which needs the program installed again.
    run(&format!("ip netns exec {} ethtool -L vb rx 2", pair.b));
    run(&format!("ip netns exec {} ethtool -L va tx 2", pair.a));
    look_until(&mut receivers, &|r| r.serves() == [0, 1]);
    each_receives_its_own(&pair, &mut receivers, 0..500, &[0, 1]);
    // And an interface that goes and comes.
    pair.delete_link();
    look_until(&mut receivers, &|r| r.away().is_some() && r.frames().total == 0);
    pair.create_link(2, [2, 0, 0, 0, 0x0b, 7]);
    look_until(&mut receivers, &|r| r.serves() == [0, 1]);
    each_receives_its_own(&pair, &mut receivers, 1000..1500, &[0, 1]);
    assert_eq!(lost(&mut receivers), 0);
}
