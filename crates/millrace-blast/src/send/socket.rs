//! UDP sockets: one connected socket a flow, sendmmsg, GSO.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    ops::Range,
    os::fd::AsRawFd,
};

use millrace_core::error::{Code, Error, Result};

use super::sender::{Accepted, Refusal, Sender};
use crate::{
    config::{Gso, MAX_SEGMENTS, RunConfig, Sizes},
    destination::Destination,
    payload::Payload,
    report::Gap,
    sys::{self, mmsg::Batch},
};

/// Payload bytes of a GSO send: 65,535 less the larger of the headers (IPv6 and UDP).
const GSO_BYTES: usize = 65_535 - 48;

pub(super) struct SocketSender {
    sockets: Vec<UdpSocket>,
    /// Socket of the next message.
    current: usize,
    batch: Batch,
    segments: u64,
    /// Messages that a flow sends before the next flow does.
    run: usize,
    sizes: Sizes,
    payload: Payload,
    seed: u64,
    pending: Range<u64>,
    /// Numbers written into slots; slot `i` starts at `written.start + i * segments`.
    written: Range<u64>,
    /// Messages of the current run still to come.
    run_left: usize,
}

impl SocketSender {
    pub(super) fn open(config: &RunConfig, destination: &Destination, flows: &[u32]) -> Result<Self> {
        let sizes = config.effective_sizes();
        let segments = segments(config, destination, sizes);
        let sockets = flows
            .iter()
            .map(|&flow| connect(config, destination, flow, segments))
            .collect::<Result<Vec<_>>>()?;
        let batch = Batch::new(config.batch as usize, usize::from(sizes.last) * segments as usize);
        let run = (config.batch as usize / sockets.len()).max(1);
        Ok(SocketSender {
            sockets,
            current: 0,
            batch,
            segments: u64::from(segments),
            run,
            sizes,
            payload: config.payload.clone(),
            seed: config.seed,
            pending: 0..0,
            written: 0..0,
            run_left: run,
        })
    }

    pub(super) fn segments(&self) -> u32 {
        self.segments as u32
    }
}

/// Datagrams a send. Segments larger than the MTU are refused by the kernel (EINVAL), so those go one by one.
fn segments(config: &RunConfig, destination: &Destination, sizes: Sizes) -> u32 {
    let size = usize::from(sizes.last);
    let most = match config.gso {
        Gso::Auto if destination.link.loopback => MAX_SEGMENTS,
        Gso::Auto | Gso::Off => 1,
        Gso::Segments(n) => n,
    };
    if !sizes.equal() || size == 0 || size + 48 > destination.link.mtu as usize {
        return 1;
    }
    most.min((GSO_BYTES / size) as u32).max(1)
}

fn connect(config: &RunConfig, destination: &Destination, flow: u32, segments: u32) -> Result<UdpSocket> {
    let any = if destination.target.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let local = SocketAddr::new(
        config.src_ip.unwrap_or(any),
        config.src_port.map_or(0, |p| p.wrapping_add(flow as u16)),
    );
    let target = SocketAddr::new(destination.target, destination.port(flow));
    let what = |e: io::Error| {
        let code = match e.raw_os_error() {
            Some(libc::EADDRINUSE) => Code::Port,
            Some(libc::EADDRNOTAVAIL) => Code::Config,
            Some(libc::EPERM | libc::EACCES) => Code::Permission,
            _ => Code::Kernel,
        };
        Error::os(code, format!("socket of flow {flow} from {local} to {target}"), e)
    };
    let socket = UdpSocket::bind(local).map_err(|e| match e.raw_os_error() {
        Some(libc::EMFILE) => Error::os(
            Code::Permission,
            format!(
                "socket of flow {flow}: {} flows need as many open files (ulimit -n)",
                config.effective_flows()
            ),
            e,
        ),
        _ => what(e),
    })?;
    let fd = socket.as_raw_fd();
    if let Some(name) = &config.interface {
        sys::bind_to_device(fd, name).map_err(what)?;
    }
    socket.connect(target).map_err(what)?;
    if segments > 1 {
        sys::set_option(fd, libc::SOL_UDP, libc::UDP_SEGMENT, &i32::from(config.effective_sizes().last))
            .map_err(what)?;
    } else {
        // Makes a drop by the device visible as ENOBUFS (udp_send_skb hides it otherwise). Not with GSO: there ENOBUFS
        // may mean that only a part of the segments was dropped, and sending all again would make duplicates.
        let (level, name) = if destination.target.is_ipv4() {
            (libc::SOL_IP, libc::IP_RECVERR)
        } else {
            (libc::SOL_IPV6, libc::IPV6_RECVERR)
        };
        sys::set_option(fd, level, name, &1).map_err(what)?;
    }
    // Without CAP_NET_ADMIN the limit of the host stays, which is slower and no error.
    let _ = sys::set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &(4 << 20));
    Ok(socket)
}

impl Sender for SocketSender {
    fn max_block(&self) -> u64 {
        self.batch.capacity() as u64 * self.segments
    }

    fn begin(&mut self, numbers: Range<u64>) {
        let mut from = numbers.start;
        let mut slot = 0;
        while from < numbers.end {
            let to = numbers.end.min(from + self.segments);
            // More than one number in a message only when all sizes are equal.
            let size = self.sizes.of(from);
            let message = self.batch.message(slot, size * (to - from) as usize);
            if size > 0 {
                for (n, out) in (from..to).zip(message.chunks_exact_mut(size)) {
                    self.payload.write(n, self.seed, out);
                }
            }
            from = to;
            slot += 1;
        }
        self.written = numbers.clone();
        self.pending = numbers;
    }

    fn offer(&mut self) -> Result<Accepted, Refusal> {
        let from = ((self.pending.start - self.written.start) / self.segments) as usize;
        let to = (self.written.end - self.written.start).div_ceil(self.segments) as usize;
        let to = to.min(from + self.run_left);
        let taken = self.batch.send(self.sockets[self.current].as_raw_fd(), from, to)?;
        // The last message may be a short one.
        self.pending.start = (self.pending.start + taken as u64 * self.segments).min(self.pending.end);
        self.run_left -= taken;
        if self.run_left == 0 {
            self.current = (self.current + 1) % self.sockets.len();
            self.run_left = self.run;
        }
        Ok(if taken < to - from { Accepted::Partly } else { Accepted::All })
    }

    fn remaining(&self) -> u64 {
        self.pending.end - self.pending.start
    }

    fn unsent(&self) -> Vec<Gap> {
        vec![Gap { first: self.pending.start, count: self.remaining() }]
    }

    fn wait(&self) {
        sys::wait_writable(self.sockets[self.current].as_raw_fd(), 1);
    }
}
