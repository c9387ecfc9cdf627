//! UDP sockets: one connected socket a flow, sendmmsg, GSO.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    ops::Range,
    os::fd::AsRawFd,
};

use millrace_core::error::{Code, Error, Result};

use super::{Path, Refusal, Taken, destination};
use crate::{
    payload::Payload,
    plan::{Gso, MAX_SEGMENTS, Plan, Sizes},
    report::Gap,
    route::Way,
    sys::{self, mmsg::Batch},
};

/// Payload bytes of a GSO send: 65,535 less the larger of the headers (IPv6 and UDP).
const GSO_BYTES: usize = 65_535 - 48;

pub(super) struct SocketPath {
    sockets: Vec<UdpSocket>,
    /// Socket of the message being offered; moves on when a message was taken.
    turn: usize,
    batch: Batch,
    segments: u64,
    /// Messages per flow before the next flow's turn.
    run: usize,
    sizes: Sizes,
    payload: Payload,
    seed: u64,
    left: Range<u64>,
    /// Numbers written into slots; slot `i` starts at `written.start + i * segments`.
    written: Range<u64>,
    /// Messages of the current run still to come.
    run_left: usize,
}

impl SocketPath {
    pub(super) fn open(plan: &Plan, way: &Way, flows: &[u32]) -> Result<Self> {
        let sizes = plan.effective_sizes();
        let segments = segments(plan, way, sizes);
        let sockets =
            flows.iter().map(|&flow| connect(plan, way, flow, segments)).collect::<Result<Vec<_>>>()?;
        let batch = Batch::new(plan.batch as usize, usize::from(sizes.last) * segments as usize);
        let run = (plan.batch as usize / sockets.len()).max(1);
        Ok(SocketPath {
            sockets,
            turn: 0,
            batch,
            segments: u64::from(segments),
            run,
            sizes,
            payload: plan.payload.clone(),
            seed: plan.seed,
            left: 0..0,
            written: 0..0,
            run_left: run,
        })
    }

    pub(super) fn segments(&self) -> u32 {
        self.segments as u32
    }
}

/// Datagrams a send. Segments larger than the MTU are refused by the kernel (EINVAL), so those go one by one.
fn segments(plan: &Plan, way: &Way, sizes: Sizes) -> u32 {
    let size = usize::from(sizes.last);
    let most = match plan.gso {
        Gso::Auto if way.link.loopback => MAX_SEGMENTS,
        Gso::Auto | Gso::Off => 1,
        Gso::Segments(n) => n,
    };
    if !sizes.equal() || size == 0 || size + 48 > way.link.mtu as usize {
        return 1;
    }
    most.min((GSO_BYTES / size) as u32).max(1)
}

fn connect(plan: &Plan, way: &Way, flow: u32, segments: u32) -> Result<UdpSocket> {
    let any = if way.target.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let local =
        SocketAddr::new(plan.src_ip.unwrap_or(any), plan.src_port.map_or(0, |p| p.wrapping_add(flow as u16)));
    let target = SocketAddr::new(way.target, destination(way, flow));
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
                plan.effective_flows()
            ),
            e,
        ),
        _ => what(e),
    })?;
    let fd = socket.as_raw_fd();
    if let Some(name) = &plan.interface {
        sys::bind_to_device(fd, name).map_err(what)?;
    }
    socket.connect(target).map_err(what)?;
    if segments > 1 {
        sys::set_option(fd, libc::SOL_UDP, libc::UDP_SEGMENT, &i32::from(plan.effective_sizes().last))
            .map_err(what)?;
    } else {
        // Makes a drop by the device visible as ENOBUFS (udp_send_skb hides it otherwise). Not with GSO: there ENOBUFS
        // may mean that only a part of the segments was dropped, and sending all again would make duplicates.
        let (level, name) = if way.target.is_ipv4() {
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

impl Path for SocketPath {
    fn block(&self) -> u64 {
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
        self.left = numbers;
    }

    fn push(&mut self) -> Result<Taken, Refusal> {
        let from = ((self.left.start - self.written.start) / self.segments) as usize;
        let to = (self.written.end - self.written.start).div_ceil(self.segments) as usize;
        let to = to.min(from + self.run_left);
        let taken = self.batch.send(self.sockets[self.turn].as_raw_fd(), from, to)?;
        // The last message may be a short one.
        self.left.start = (self.left.start + taken as u64 * self.segments).min(self.left.end);
        self.run_left -= taken;
        if self.run_left == 0 {
            self.turn = (self.turn + 1) % self.sockets.len();
            self.run_left = self.run;
        }
        Ok(if taken < to - from { Taken::Partly } else { Taken::All })
    }

    fn left(&self) -> u64 {
        self.left.end - self.left.start
    }

    fn leftover(&self) -> Vec<Gap> {
        vec![Gap { first: self.left.start, count: self.left() }]
    }

    fn wait(&self) {
        sys::wait_writable(self.sockets[self.turn].as_raw_fd(), 1);
    }
}
