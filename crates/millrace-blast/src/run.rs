//! Running a plan: threads, pacing, the report.

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
    pace::Schedule,
    path::{self, Path, Refusal, Taken},
    plan::{Plan, Sizes},
    report::{Gap, Progress, Report, Retries},
    route::Way,
    share::Numbers,
    sys,
};

/// A block that the kernel refuses is tried for this long after the run should have ended, then reported as unsent.
const GRACE_NS: u64 = 1_000_000_000;
/// A run without any progress for this long has failed.
const STALL_NS: u64 = 10_000_000_000;
/// Waits shorter than this are spun: a sleep would overshoot.
const SPIN_NS: u64 = 30_000;
/// Longest sleep before the stop flag is looked at again.
const NAP_NS: u64 = 50_000_000;
/// A paced run may finish its last burst this much late.
const LATE_NS: u64 = 10_000_000;

struct Shared<'a> {
    stop: &'a AtomicBool,
    failed: AtomicBool,
    numbers: Numbers,
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
struct Outcome {
    sent: u64,
    bytes: u64,
    retries: Retries,
    unsent: Vec<Gap>,
    end_ns: u64,
}

/// Runs a plan to its end: count, time, or `stop`. Blocks. `progress` is called about once a second, on this thread.
///
/// The network namespace is the calling thread's; the threads started here inherit it.
///
/// # Errors
/// A bad plan, a target that cannot be reached from here, a missing capability, or a kernel call that failed for good.
/// Datagrams sent before such a failure are sent nevertheless.
pub fn run(plan: &Plan, stop: &AtomicBool, mut progress: impl FnMut(&Progress)) -> Result<Report> {
    plan.check()?;
    let way = Way::find(plan)?;
    let (paths, gso) = path::open(plan, &way)?;
    let schedule = Schedule { rate: plan.rate };
    let limit = plan.limit_ns();
    let timed = limit.map_or(u64::MAX, |ns| schedule.within(ns));
    let dropped_before = way.tx_dropped();
    let start_ns = sys::now_ns();
    let slack = if plan.rate == 0 { 0 } else { LATE_NS };
    let shared = Shared {
        stop,
        failed: AtomicBool::new(false),
        numbers: Numbers::default(),
        sent: AtomicU64::new(0),
        schedule,
        sizes: plan.effective_sizes(),
        first: plan.start,
        total: plan.count.unwrap_or(u64::MAX).min(timed).min(u64::MAX - plan.start),
        start_ns,
        end_ns: limit.map_or(u64::MAX, |ns| start_ns.saturating_add(ns).saturating_add(slack)),
    };
    let outcomes = Mutex::new(Vec::new());
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        for path in paths {
            let (shared, outcomes, done) = (&shared, &outcomes, done.clone());
            scope.spawn(move || {
                let outcome = Worker { path, shared, outcome: Outcome::default() }.work();
                if outcome.is_err() {
                    shared.failed.store(true, Ordering::Relaxed);
                }
                outcomes.lock().unwrap_or_else(|e| e.into_inner()).push(outcome);
                drop(done);
            });
        }
        drop(done);
        let mut before = (start_ns, 0);
        // The channel closes when the last thread has dropped its end.
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
                format!("sending to {} via {} on {}", plan.target, plan.via, way.link.name),
                e,
            )
        })?;
        sum.sent += o.sent;
        sum.bytes += o.bytes;
        sum.retries += o.retries;
        sum.unsent.extend(o.unsent);
        sum.end_ns = sum.end_ns.max(o.end_ns);
    }
    let raw = way.tx_dropped().saturating_sub(dropped_before);
    // Neither loopback nor a GSO send tells of drops, so there nothing was made good.
    let told = if gso > 1 || way.link.loopback { 0 } else { sum.retries.enobufs + sum.retries.partial };
    let next = plan.start + shared.numbers.next();
    let seconds = (sum.end_ns - start_ns) as f64 / 1e9;
    Ok(Report {
        target: plan.target.clone(),
        via: plan.via,
        interface: way.link.name.clone(),
        sent: sum.sent,
        bytes: sum.bytes,
        seconds,
        rate_pps: if seconds > 0.0 { sum.sent as f64 / seconds } else { 0.0 },
        first: plan.start,
        last: (sum.sent > 0).then(|| next - 1),
        next,
        retries: sum.retries,
        interface_tx_dropped: raw.saturating_sub(told),
        interface_tx_dropped_raw: raw,
        flows: plan.effective_flows(),
        threads: plan.threads,
        gso,
        sizes: plan.effective_sizes(),
        unsent: sum.unsent,
    })
}

struct Worker<'a> {
    path: Box<dyn Path>,
    shared: &'a Shared<'a>,
    outcome: Outcome,
}

impl Worker<'_> {
    fn work(mut self) -> std::io::Result<Outcome> {
        sys::exact_timers();
        let s = self.shared;
        let burst = s.schedule.burst(self.path.block());
        loop {
            let now = sys::now_ns();
            let from = s.numbers.next();
            if from >= s.total || self.ended(now) {
                break;
            }
            // Wait for the last of the burst, not the first: one wake-up then sends them all.
            let last = from.saturating_add(burst - 1).min(s.total - 1);
            let due = s.start_ns.saturating_add(s.schedule.due_ns(last));
            if now < due {
                pause(now, due.min(s.end_ns));
                continue;
            }
            let released = s.schedule.released(now - s.start_ns).min(s.total);
            if let Some(block) = s.numbers.draw(from, self.path.block(), released) {
                self.send(block.start + s.first..block.end + s.first)?;
            }
        }
        self.outcome.end_ns = sys::now_ns();
        Ok(self.outcome)
    }

    fn ended(&self, now: u64) -> bool {
        let s = self.shared;
        now >= s.end_ns || s.stop.load(Ordering::Relaxed) || s.failed.load(Ordering::Relaxed)
    }

    fn send(&mut self, block: std::ops::Range<u64>) -> std::io::Result<()> {
        self.path.begin(block.clone());
        let mut left = self.path.left();
        let mut stuck: Option<(u64, u32)> = None;
        while left > 0 {
            let mut dropped = false;
            match self.path.push() {
                Ok(Taken::All) => {}
                Ok(Taken::Partly) => self.outcome.retries.partial += 1,
                Err(Refusal::Device) => {
                    self.outcome.retries.enobufs += 1;
                    dropped = true;
                }
                Err(Refusal::Full) => self.outcome.retries.eagain += 1,
                Err(Refusal::Icmp) => self.outcome.retries.refused += 1,
                Err(Refusal::Fatal(e)) => return Err(e),
            }
            let now_left = self.path.left();
            if now_left < left {
                self.shared.sent.fetch_add(left - now_left, Ordering::Relaxed);
                left = now_left;
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
            // The receiver may need this very CPU to make room.
            match *tries {
                0..4 => thread::yield_now(),
                // A socket whose device is full still polls as writable, so a short sleep it is.
                _ if dropped => thread::sleep(Duration::from_micros(20)),
                _ => self.path.wait(),
            }
        }
        self.account(block);
        Ok(())
    }

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
        if self.path.left() > 0 {
            for gap in self.path.leftover() {
                o.sent -= gap.count;
                o.bytes -= bytes(gap.first, gap.count);
                o.unsent.push(gap);
            }
        }
    }
}

/// Sleeps, then spins the last stretch.
fn pause(now: u64, until: u64) {
    let until = until.min(now + NAP_NS);
    if until - now > SPIN_NS * 2 {
        sys::sleep_until_ns(until - SPIN_NS);
    }
    while sys::now_ns() < until {
        std::hint::spin_loop();
    }
}
