//! The driver's share of a worker's time: deliveries and the worker's other tasks get about as much each.

use std::time::Duration;

/// For how long a driver that has more to do may go on. It is given the time, since any start, and reads no clock.
#[derive(Debug)]
pub(super) struct TimeShare {
    /// When the driver has to let the other tasks run.
    until: Duration,
}

/// The least that a driver has: so long may the others wait for it even if they need less.
const SHARE_MIN: Duration = Duration::from_micros(300);

/// The most that it has, however long the others ran: so long may a request wait for deliveries.
const SHARE_MAX: Duration = Duration::from_millis(10);

// ===== impl TimeShare =====

impl TimeShare {
    /// The driver begins after it had nothing to do.
    pub(super) fn begin(now: Duration) -> Self {
        Self::after_yield(now, now)
    }

    /// The driver goes on after it let the others run at `yielded`: for as long as they did.
    pub(super) fn after_yield(yielded: Duration, now: Duration) -> Self {
        let others = now.saturating_sub(yielded);
        Self { until: now + others.clamp(SHARE_MIN, SHARE_MAX) }
    }

    /// Whether it is used up.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has turns of 0.1 ms and yields of this length alternate for a minute. Returns the part of the time that the
    /// driver had, and its longest time without a yield.
    fn part_with_yields_of(length: Duration) -> (f64, Duration) {
        const TURN: Duration = Duration::from_micros(100);
        let end = Duration::from_secs(60);
        let (mut now, mut driver, mut longest) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let mut share = TimeShare::begin(now);
        while now < end {
            let began = now;
            while {
                now += TURN;
                !share.is_over(now)
            } {}
            driver += now - began;
            longest = longest.max(now - began);
            let yielded = now;
            now += length;
            share = TimeShare::after_yield(yielded, now);
        }
        (driver.as_secs_f64() / now.as_secs_f64(), longest)
    }

    #[test]
    fn a_driver_goes_on_for_as_long_as_the_others_ran_within_bounds() {
        for (yields_us, part, longest_us) in [
            (0, 1.0, 300),
            (100, 0.75, 300),
            (300, 0.5, 300),
            (5_000, 0.5, 5_000),
            (10_000, 0.5, 10_000),
            (90_000, 0.1, 10_000),
        ] {
            let had = part_with_yields_of(Duration::from_micros(yields_us));
            assert!((had.0 - part).abs() < 0.01, "{} of the time, yields of {yields_us}", had.0);
            assert_eq!(had.1, Duration::from_micros(longest_us), "yields of {yields_us} us");
        }
    }

    #[test]
    fn a_clock_that_stands_still_takes_no_share() {
        let share = TimeShare::after_yield(Duration::from_secs(9), Duration::from_secs(5));
        assert!(!share.is_over(Duration::from_secs(5)));
        assert!(share.is_over(Duration::from_secs(5) + SHARE_MIN));
    }
}
