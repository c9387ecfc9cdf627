//! A UDP receiver that keeps everything.
#![allow(dead_code, unreachable_pub)]

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::{Arc, atomic::AtomicBool},
    thread::{self, JoinHandle},
    time::Duration,
};

use millrace_blast::{RunConfig, RunReport, payload, run};

/// A bound socket and the thread that reads it.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    enough: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(u16, Vec<u8>)>>,
}

impl Receiver {
    /// Binds in the calling thread's namespace; reads until told that no more is sent and the queue is empty.
    pub fn bind(address: &str) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        let bytes: libc::c_int = 64 << 20;
        for option in [libc::SO_RCVBUF, libc::SO_RCVBUFFORCE] {
            // SAFETY: pointer and length describe `bytes`; a refusal only leaves the buffer smaller.
            unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const bytes).cast(),
                    size_of_val(&bytes) as libc::socklen_t,
                )
            };
        }
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let address = socket.local_addr().unwrap();
        let enough = Arc::new(AtomicBool::new(false));
        let stop = enough.clone();
        let thread = thread::spawn(move || {
            let mut all = Vec::new();
            let mut buffer = vec![0; 65_536];
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((n, from)) => all.push((from.port(), buffer[..n].to_vec())),
                    Err(_) if stop.load(std::sync::atomic::Ordering::Relaxed) => return all,
                    Err(_) => {}
                }
            }
        });
        Receiver { address, enough, thread }
    }

    /// Everything that came: (source port, payload).
    pub fn finish(self) -> Vec<(u16, Vec<u8>)> {
        self.enough.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Runs to the end.
pub fn blast(config: &RunConfig) -> RunReport {
    run(config, &AtomicBool::new(false), |_| ()).unwrap()
}

/// The account of the report holds in itself.
pub fn assert_report(config: &RunConfig, report: &RunReport, count: u64) {
    let sizes = config.effective_sizes();
    let bytes: u64 = (config.start..config.start + count).map(|n| sizes.of(n) as u64).sum();
    assert_eq!((report.sent, report.bytes), (count, bytes), "{report:?}");
    assert_eq!((report.first, report.last), (config.start, Some(config.start + count - 1)));
    assert_eq!(report.next, config.start + count);
    assert_eq!(report.interface_tx_dropped, 0, "{report:?}");
    assert!(report.unsent.is_empty());
}

/// Exactly the default payloads of the config's numbers arrived, each once.
pub fn assert_payloads(config: &RunConfig, count: u64, got: &[(u16, Vec<u8>)]) {
    let sizes = config.effective_sizes();
    let mut want: Vec<Vec<u8>> =
        (config.start..config.start + count).map(|n| payload(n, sizes.of(n))).collect();
    let mut got: Vec<Vec<u8>> = got.iter().map(|(_, p)| p.clone()).collect();
    want.sort_unstable();
    got.sort_unstable();
    assert_eq!(got.len(), want.len(), "datagrams");
    assert!(got == want, "some payload differs");
}

/// Distinct source ports.
pub fn ports(got: &[(u16, Vec<u8>)]) -> usize {
    let mut ports: Vec<u16> = got.iter().map(|(p, _)| *p).collect();
    ports.sort_unstable();
    ports.dedup();
    ports.len()
}
