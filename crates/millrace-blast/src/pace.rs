//! When a datagram may leave: an absolute schedule, so that lateness never accumulates into drift.

/// The most time a burst may stand for, in nanoseconds. Half of the promised 200 µs, so that a burst that was late by
/// as much again still keeps the promise.
const BURST_NS: u64 = 100_000;

/// Datagram `k` (counted from 0) is due at `k / rate` after the start. Rate 0: everything is due at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Datagrams a second over all threads; 0 means unpaced.
    pub(crate) rate: u64,
}

impl Schedule {
    /// Nanoseconds after the start at which datagram `k` is due, rounded up: never early.
    #[inline]
    pub(crate) fn due_ns(self, k: u64) -> u64 {
        if self.rate == 0 {
            return 0;
        }
        let ns = (u128::from(k) * 1_000_000_000).div_ceil(u128::from(self.rate));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// How many datagrams are due `ns` after the start: the `k` with `due_ns(k) <= ns`.
    #[inline]
    pub(crate) fn released(self, ns: u64) -> u64 {
        if self.rate == 0 {
            return u64::MAX;
        }
        let k = u128::from(ns) * u128::from(self.rate) / 1_000_000_000 + 1;
        u64::try_from(k).unwrap_or(u64::MAX)
    }

    /// How many datagrams fall into `ns`: the `k` with `due_ns(k) < ns`.
    pub(crate) fn within(self, ns: u64) -> u64 {
        if ns == 0 { 0 } else { self.released(ns - 1) }
    }

    /// Datagrams to collect before a system call is worth it: 100 µs of the rate, but one at low rates (smooth), and
    /// never more than `most`.
    pub(crate) fn burst(self, most: u64) -> u64 {
        if self.rate == 0 {
            return most.max(1);
        }
        let k = u128::from(self.rate) * u128::from(BURST_NS) / 1_000_000_000;
        u64::try_from(k).unwrap_or(u64::MAX).clamp(1, most.max(1))
    }
}

/// Reads `200k`, `1M`, `1.5M`, `2G`, `150000`; `0` and `unpaced` mean as fast as it goes. Datagrams a second.
///
/// # Errors
/// One line that says what was given and what was expected.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let bad = |why: &str| {
        Err(format!("rate {text:?}: {why}; expected datagrams a second like 500, 200k, 1.5M, or 0 (unpaced)"))
    };
    if text == "unpaced" {
        return Ok(0);
    }
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1_000u64),
        Some((at, 'm' | 'M')) => (&text[..at], 1_000_000),
        Some((at, 'g' | 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let number = |s: &str| s.bytes().all(|b| b.is_ascii_digit()) && s.len() <= 12;
    if whole.is_empty() || !number(whole) || !number(fraction) || digits.ends_with('.') {
        return bad("not a number");
    }
    let scale = 10u64.pow(fraction.len() as u32);
    let whole: u64 = whole.parse().unwrap_or(0);
    let fraction: u64 = if fraction.is_empty() { 0 } else { fraction.parse().unwrap_or(0) };
    let tenths = u128::from(fraction) * u128::from(unit);
    if tenths % u128::from(scale) != 0 {
        return bad("not a whole number of datagrams a second");
    }
    let rate = u128::from(whole) * u128::from(unit) + tenths / u128::from(scale);
    match u64::try_from(rate) {
        Ok(r) if r <= 1_000_000_000 => Ok(r),
        _ => bad("more than 1G"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_parse() {
        for (text, rate) in [
            ("0", 0),
            ("unpaced", 0),
            ("1", 1),
            ("200k", 200_000),
            ("200K", 200_000),
            ("1M", 1_000_000),
            ("1.5M", 1_500_000),
            ("0.25k", 250),
            ("1G", 1_000_000_000),
        ] {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
        for text in
            ["", "k", "-1", "1x", "1.M", ".5k", "0.5", "1.2345k", "2G", "1e6", "1 k", "99999999999999999999"]
        {
            let e = parse_rate(text).unwrap_err();
            assert!(e.contains("expected") && !e.contains('\n'), "{text}: {e}");
        }
    }

    #[test]
    fn due_and_released_are_each_others_inverse() {
        for rate in [1, 3, 7, 999, 200_000, 1_000_003, 1_000_000_000] {
            let s = Schedule { rate };
            for k in [0, 1, 2, 3, 1000, 999_999, 123_456_789] {
                let due = s.due_ns(k);
                assert!(s.released(due) > k, "rate {rate} k {k}: not released when due");
                if due > 0 {
                    assert!(s.released(due - 1) <= k, "rate {rate} k {k}: released early");
                }
            }
        }
    }

    #[test]
    fn no_drift_over_a_day() {
        let s = Schedule { rate: 333_333 };
        let day = 86_400;
        assert_eq!(s.due_ns(333_333 * day), day * 1_000_000_000);
        assert_eq!(s.within(day * 1_000_000_000), 333_333 * day);
    }

    #[test]
    fn seconds_give_rate_times_seconds() {
        assert_eq!(Schedule { rate: 10 }.within(1_000_000_000), 10);
        assert_eq!(Schedule { rate: 10 }.within(1_000_000_001), 11);
        assert_eq!(Schedule { rate: 10 }.within(0), 0);
        assert_eq!(Schedule { rate: 0 }.within(1), u64::MAX);
    }

    #[test]
    fn bursts_stand_for_at_most_200_us() {
        for rate in [1, 100, 9_999, 10_000, 200_000, 1_000_000, 100_000_000] {
            let burst = Schedule { rate }.burst(4096);
            assert!(
                burst >= 1 && (burst == 1 || burst * 1_000_000 <= rate * 200),
                "rate {rate}: burst {burst}"
            );
        }
        assert_eq!(Schedule { rate: 1_000_000 }.burst(64), 64);
        assert_eq!(Schedule { rate: 0 }.burst(64), 64);
    }
}
