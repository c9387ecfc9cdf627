//! Looking an interface up without a free descriptor. The test is alone in its process, because it takes away the descriptors.

use millrace_core::net;

/// Sets how many descriptors this process may have; returns how many it was.
fn limit(descriptors: libc::rlim_t) -> libc::rlim_t {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call fills `limit`.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    let before = std::mem::replace(&mut limit.rlim_cur, descriptors);
    // SAFETY: the call reads `limit`.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    before
}

#[test]
fn an_interface_is_not_gone_because_descriptors_are() {
    assert!(net::interface_exists(1), "lo");
    assert!(!net::interface_exists(1 << 30));
    let before = limit(0);
    let there = net::interface_exists(1);
    limit(before);
    assert!(there);
}
