//! A run: its threads, their pace, and the report.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use millrace_core::error::{Code, Error, Result};

use crate::{
    config::{RunConfig, Sizes},
    destination::Destination,
    pace::Schedule,
    report::{Gap, Progress, Retries, RunReport},
    send::{self, Accepted, Refusal, Sender},
    sequence::SequenceNumbers,
    sys,
};

/// How long a block that the kernel refuses is tried after the end of the run; then it is reported as unsent. Lower gives up
/// datagrams that a busy device would still take; higher delays the end of a run whose device is stuck.
const GRACE_NS: u64 = 1_000_000_000;
/// How long the kernel may take nothing before the run fails. It must be longer than a link needs to come back; higher only
/// delays the error.
const STALL_NS: u64 = 10_000_000_000;
/// The last stretch of a wait is spun. Lower, and a sleep that wakes late makes the burst late; higher costs CPU time.
const SPIN_NS: u64 = 30_000;
/// Longest sleep before the stop flag is read again. Higher delays the reaction to a signal; lower costs wake-ups at low rates.
const MAX_SLEEP_NS: u64 = 50_000_000;
/// How much later than its time limit a paced run may draw its last burst. Lower, and a thread that was held up loses datagrams
/// that were due in time; higher lets a run overshoot its limit.
const LATE_NS: u64 = 10_000_000;

/// The state that the threads of a run share.
struct Shared<'a> {
    stop: &'a AtomicBool,
    failed: AtomicBool,
    numbers: SequenceNumbers,
    sent: AtomicU64,
    schedule: Schedule,
    sizes: Sizes,
    first: u64,
    /// Numbers (from 0) the run may use.
    total: u64,
    start_ns: u64,
    /// Absolute time at which drawing ends.
    end_ns: u64,
}

#[derive(Default)]
/// The counts of one thread, or of all of them together.
struct Outcome {
    sent: u64,
    bytes: u64,
    retries: Retries,
    unsent: Vec<Gap>,
    end_ns: u64,
}

/// Runs until `count`, the time limit or `stop` ends it, and blocks for that long. `progress` is called about once a second, on
/// the calling thread.
///
/// The run is in the network namespace of the calling thread, which its threads inherit.
///
/// # Errors
/// A configuration that is wrong, a target that cannot be reached, a missing capability, or a kernel call that failed for
/// good. Datagrams that were sent before the failure stay sent.
pub fn run(config: &RunConfig, stop: &AtomicBool, mut progress: impl FnMut(&Progress)) -> Result<RunReport> {
    config.validate()?;
    let destination = Destination::resolve(config)?;
    let (senders, gso) = send::open(config, &destination)?;
    let schedule = Schedule { rate: config.rate };
    let limit = config.limit_ns();
    let timed = limit.map_or(u64::MAX, |ns| schedule.within(ns));
    let dropped_before = destination.tx_dropped();
    let start_ns = sys::now_ns();
    let slack = if config.rate == 0 { 0 } else { LATE_NS };
    let shared = Shared {
        stop,
        failed: AtomicBool::new(false),
        numbers: SequenceNumbers::default(),
        sent: AtomicU64::new(0),
        schedule,
        sizes: config.effective_sizes(),
        first: config.start,
        total: config.count.unwrap_or(u64::MAX).min(timed).min(u64::MAX - config.start),
        start_ns,
        end_ns: limit.map_or(u64::MAX, |ns| start_ns.saturating_add(ns).saturating_add(slack)),
    };
    let outcomes = Mutex::new(Vec::new());
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        for sender in senders {
            let (shared, outcomes, done) = (&shared, &outcomes, done.clone());
            scope.spawn(move || {
                let outcome = Worker { sender, shared, outcome: Outcome::default() }.run();
                if outcome.is_err() {
                    shared.failed.store(true, Ordering::Relaxed);
                }
                outcomes.lock().unwrap_or_else(|e| e.into_inner()).push(outcome);
                drop(done);
            });
        }
        drop(done);
        let mut before = (start_ns, 0);
        // The channel closes when the last thread drops its end.
        while ended.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
            let (now, sent) = (sys::now_ns(), shared.sent.load(Ordering::Relaxed));
            progress(&Progress {
                seconds: (now - start_ns) as f64 / 1e9,
                sent,
                rate_pps: (sent - before.1) as f64 * 1e9 / (now - before.0).max(1) as f64,
            });
            before = (now, sent);
        }
    });
    let mut sum = Outcome { end_ns: start_ns, ..Outcome::default() };
    for outcome in outcomes.into_inner().unwrap_or_else(|e| e.into_inner()) {
        let o = outcome.map_err(|e| {
            Error::os(
                Code::Kernel,
                format!("sending to {} via {} on {}", config.target, config.via, destination.link.name),
                e,
            )
        })?;
        sum.sent += o.sent;
        sum.bytes += o.bytes;
        sum.retries += o.retries;
        sum.unsent.extend(o.unsent);
        sum.end_ns = sum.end_ns.max(o.end_ns);
    }
    let raw = destination.tx_dropped().saturating_sub(dropped_before);
    // The drops that the kernel reported were sent again. Loopback and GSO sends report none.
    let reported =
        if gso > 1 || destination.link.loopback { 0 } else { sum.retries.enobufs + sum.retries.partial };
    let next = config.start + shared.numbers.next();
    let seconds = (sum.end_ns - start_ns) as f64 / 1e9;
    Ok(RunReport {
        target: config.target.clone(),
        via: config.via,
        interface: destination.link.name.clone(),
        sent: sum.sent,
        bytes: sum.bytes,
        seconds,
        rate_pps: if seconds > 0.0 { sum.sent as f64 / seconds } else { 0.0 },
        first: config.start,
        last: (sum.sent > 0).then(|| next - 1),
        next,
        retries: sum.retries,
        interface_tx_dropped: raw.saturating_sub(reported),
        interface_tx_dropped_raw: raw,
        flows: config.effective_flows(),
        threads: config.threads,
        gso,
        sizes: config.effective_sizes(),
        unsent: sum.unsent,
    })
}

struct Worker<'a> {
    sender: Box<dyn Sender>,
    shared: &'a Shared<'a>,
    outcome: Outcome,
}

impl Worker<'_> {
    fn run(mut self) -> std::io::Result<Outcome> {
        sys::minimize_timer_slack();
        let s = self.shared;
        let burst = s.schedule.burst(self.sender.max_block());
        loop {
            let now = sys::now_ns();
            let from = s.numbers.next();
            if from >= s.total || self.ended(now) {
                break;
            }
            // Waiting for the last datagram of the burst, and not the first, lets one wake-up send them all.
            let last = from.saturating_add(burst - 1).min(s.total - 1);
            let due = s.start_ns.saturating_add(s.schedule.due_ns(last));
            if now < due {
                pause(now, due.min(s.end_ns));
                continue;
            }
            let released = s.schedule.released(now - s.start_ns).min(s.total);
            if let Some(block) = s.numbers.allocate(from, self.sender.max_block(), released) {
                self.send(block.start + s.first..block.end + s.first)?;
            }
        }
        self.outcome.end_ns = sys::now_ns();
        Ok(self.outcome)
    }

    /// Whether no further block is to be drawn.
    fn ended(&self, now: u64) -> bool {
        let s = self.shared;
        now >= s.end_ns || s.stop.load(Ordering::Relaxed) || s.failed.load(Ordering::Relaxed)
    }

    /// Sends a block, whatever it takes.
    fn send(&mut self, block: std::ops::Range<u64>) -> std::io::Result<()> {
        self.sender.begin(block.clone());
        let mut remaining = self.sender.remaining();
        let mut stuck: Option<(u64, u32)> = None;
        while remaining > 0 {
            let mut dropped = false;
            match self.sender.offer() {
                Ok(Accepted::All) => {}
                Ok(Accepted::Partly) => self.outcome.retries.partial += 1,
                Err(Refusal::Device) => {
                    self.outcome.retries.enobufs += 1;
                    dropped = true;
                }
                Err(Refusal::Full) => self.outcome.retries.eagain += 1,
                Err(Refusal::Icmp) => self.outcome.retries.refused += 1,
                Err(Refusal::Fatal(e)) => return Err(e),
            }
            let now_remaining = self.sender.remaining();
            if now_remaining < remaining {
                self.shared.sent.fetch_add(remaining - now_remaining, Ordering::Relaxed);
                remaining = now_remaining;
                stuck = None;
                continue;
            }
            let now = sys::now_ns();
            let (since, tries) = stuck.get_or_insert((now, 0));
            *tries += 1;
            if now - *since > GRACE_NS && self.ended(now) {
                break;
            }
            if now - *since > STALL_NS {
                return Err(std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    "the kernel took nothing for 10 s",
                ));
            }
            // The receiver may need this CPU to make room.
            match *tries {
                0..4 => thread::yield_now(),
                // A socket polls as writable although its device is full, so a short sleep replaces poll(2).
                _ if dropped => thread::sleep(Duration::from_micros(20)),
                _ => self.sender.wait(),
            }
        }
        self.account(block);
        Ok(())
    }

    /// Counts a block as sent, without what is left of it.
    fn account(&mut self, block: std::ops::Range<u64>) {
        let o = &mut self.outcome;
        let sizes = self.shared.sizes;
        let bytes = |from: u64, count: u64| -> u64 {
            match sizes.equal() {
                true => count * u64::from(sizes.last),
                false => (from..from + count).map(|n| sizes.of(n) as u64).sum(),
            }
        };
        let count = block.end - block.start;
        o.sent += count;
        o.bytes += bytes(block.start, count);
        if self.sender.remaining() > 0 {
            for gap in self.sender.unsent() {
                o.sent -= gap.count;
                o.bytes -= bytes(gap.first, gap.count);
                o.unsent.push(gap);
            }
        }
    }
}

/// Sleeps, then spins the last stretch.
fn pause(now: u64, until: u64) {
    let until = until.min(now + MAX_SLEEP_NS);
    if until - now > SPIN_NS * 2 {
        sys::sleep_until_ns(until - SPIN_NS);
    }
    while sys::now_ns() < until {
        std::hint::spin_loop();
    }
}
