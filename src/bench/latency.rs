//! Which events have reached how many subscribers, and how long that took.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// When each publish was meant to leave. Latency counts from there, so that a publish which waits
/// behind a slow one is not flattered (no coordinated omission).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) first: u32,
    pub(crate) start: Instant,
    pub(crate) every: Duration,
}

/// Latencies in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// Of every delivery.
    pub each: Histogram<u64>,
    /// Of the first subscriber that each publish reached.
    pub first: Histogram<u64>,
    /// Of the last subscriber that each publish reached.
    pub last: Histogram<u64>,
}

/// The publishes under way.
#[derive(Debug)]
pub(crate) struct Ledger {
    schedule: Schedule,
    /// The publishes from `base` on that have not reached everybody yet.
    rounds: VecDeque<Round>,
    base: u32,
    latencies: Latencies,
}

#[derive(Clone, Copy, Debug, Default)]
struct Round {
    reached: usize,
    first: u64,
    last: u64,
}

// ===== impl Schedule =====

impl Schedule {
    pub(crate) fn intended(&self, sequence: u32) -> Instant {
        self.start + self.every * sequence.saturating_sub(self.first)
    }
}

// ===== impl Latencies =====

impl Latencies {
    fn new() -> Self {
        let empty = || Histogram::new(3).expect("three digits are within 0 to 5");
        Self { each: empty(), first: empty(), last: empty() }
    }
}

// ===== impl Ledger =====

impl Ledger {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self { schedule, rounds: VecDeque::new(), base: 0, latencies: Latencies::new() }
    }

    /// From here on, publishes follow this schedule. Those before it must have been settled.
    pub(crate) fn follow(&mut self, schedule: Schedule) {
        self.rounds.clear();
        self.base = schedule.first;
        self.schedule = schedule;
    }

    /// One subscriber has this event now; `audience` subscribers should get it.
    pub(crate) fn arrived(&mut self, sequence: u32, now: Instant, audience: usize) {
        let Some(at) = sequence.checked_sub(self.base).map(|at| at as usize) else { return };
        let since = now.saturating_duration_since(self.schedule.intended(sequence));
        let latency = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).max(1);
        record(&mut self.latencies.each, latency);
        if at >= self.rounds.len() {
            self.rounds.resize(at + 1, Round::default());
        }
        let round = &mut self.rounds[at];
        if round.reached == 0 {
            round.first = latency;
        }
        round.reached += 1;
        round.last = latency;
        self.close_rounds(audience);
    }

    fn close_rounds(&mut self, audience: usize) {
        while let Some(round) = self.rounds.front().copied() {
            if round.reached < audience {
                return;
            }
            self.rounds.pop_front();
            record(&mut self.latencies.first, round.first);
            record(&mut self.latencies.last, round.last);
            self.base += 1;
        }
    }

    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Hands out what was recorded and starts anew.
    pub(crate) fn take_latencies(&mut self) -> Latencies {
        std::mem::replace(&mut self.latencies, Latencies::new())
    }
}

fn record(histogram: &mut Histogram<u64>, latency: u64) {
    histogram.record(latency).expect("the histogram grows with its values");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::now;

    #[test]
    fn latency_counts_from_when_the_publish_was_meant_to_leave() {
        let (start, every) = (now(), Duration::from_millis(10));
        let mut ledger = Ledger::new(Schedule { first: 0, start, every });
        ledger.follow(Schedule { first: 5, start, every });
        ledger.arrived(6, start + Duration::from_millis(25), 2);
        ledger.arrived(5, start + Duration::from_millis(25), 2);
        ledger.arrived(5, start + Duration::from_millis(30), 2);
        // The histogram keeps three digits, so that its 15 ms may begin below.
        let round = |ns: u64| (ns + 500_000) / 1_000_000;
        let ms = |histogram: &Histogram<u64>| {
            (histogram.len(), round(histogram.min()), round(histogram.max()))
        };
        assert_eq!(ms(&ledger.latencies().each), (3, 15, 30));
        assert_eq!(ms(&ledger.latencies().first), (1, 25, 25), "only one round is complete");
        ledger.arrived(6, start + Duration::from_millis(40), 2);
        assert_eq!(ms(&ledger.latencies().last), (2, 30, 30));
    }
}
