//! Tests of the rule language.

mod cases;
mod errors;
mod hostile;
mod random;
mod reach;
mod recipes;
mod reference;

use super::{Facts, RuleSet, RuleState, Verdict, hash, parse, program};
use crate::error::Code;

/// Facts around a payload: 10.1.2.3:5000 → 192.0.2.1:6000, rx queue 3, CPU 5.
fn facts(payload: &[u8]) -> Facts<'_> {
    Facts {
        payload,
        src: v4([10, 1, 2, 3]),
        dst: v4([192, 0, 2, 1]),
        src_port: 5000,
        dst_port: 6000,
        rx_queue: 3,
        cpu: 5,
    }
}

fn v4(addr: [u8; 4]) -> [u8; 16] {
    std::net::Ipv4Addr::from(addr).to_ipv6_mapped().octets()
}

#[track_caller]
fn compile(text: &str, queues: u16) -> RuleSet {
    match RuleSet::compile(text, queues) {
        Ok(set) => set,
        Err(e) => panic!("{text}\n{}", e.message),
    }
}

fn errors(text: &str, queues: u16) -> String {
    match RuleSet::compile(text, queues) {
        Ok(set) => panic!("compiles, but should not: {text}\n{:?}", set.describe()),
        Err(e) => {
            assert_eq!(e.code, Code::Rules);
            e.message
        }
    }
}

/// CPU time of the calling thread (clock_gettime(2), CLOCK_THREAD_CPUTIME_ID). Unlike the time on the wall it does not grow
/// when other processes take the CPU.
fn cpu_time() -> std::time::Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the struct it is given.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
