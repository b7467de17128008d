//! Delivery latencies.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// When each publish is due. Latency counts from there, so that a publish delayed by a slow one before
/// it is measured with its delay (no coordinated omission).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) first: u32,
    pub(crate) start: Instant,
    pub(crate) every: Duration,
}

/// Latencies from when a publish was due.
#[derive(Clone, Debug)]
pub struct Latencies {
    each: Histogram<u64>,
    first: Histogram<u64>,
    last: Histogram<u64>,
}

/// A distribution, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(missing_docs, reason = "the names are self-explanatory")]
#[non_exhaustive]
pub struct Quantiles {
    pub count: u64,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// Records each delivery, and the first and the last of each publish.
#[derive(Debug)]
pub(crate) struct LatencyRecorder {
    schedule: Schedule,
    /// The publishes from `base` on that some subscriber has not received yet.
    in_flight: VecDeque<InFlight>,
    base: u32,
    latencies: Latencies,
}

#[derive(Clone, Copy, Debug, Default)]
struct InFlight {
    deliveries: usize,
    first: u64,
    last: u64,
}

// ===== impl Schedule =====

impl Schedule {
    pub(crate) fn due(&self, sequence: u32) -> Instant {
        self.start + self.every * sequence.saturating_sub(self.first)
    }
}

// ===== impl Latencies =====

impl Latencies {
    fn new() -> Self {
        let empty = || Histogram::new(3).expect("three digits are within 0 to 5");
        Self { each: empty(), first: empty(), last: empty() }
    }

    /// Of every delivery; `None` if there was none.
    pub fn each(&self) -> Option<Quantiles> {
        Quantiles::of(&self.each)
    }

    /// Of the first delivery of each publish.
    pub fn first(&self) -> Option<Quantiles> {
        Quantiles::of(&self.first)
    }

    /// Of the last delivery of each publish.
    pub fn last(&self) -> Option<Quantiles> {
        Quantiles::of(&self.last)
    }
}

// ===== impl Quantiles =====

impl Quantiles {
    fn of(nanoseconds: &Histogram<u64>) -> Option<Self> {
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        let at = |quantile| ms(nanoseconds.value_at_quantile(quantile));
        (!nanoseconds.is_empty()).then(|| Self {
            count: nanoseconds.len(),
            min: ms(nanoseconds.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(nanoseconds.max()),
        })
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, p50, p90, p99, p999, max, .. } = self;
        write!(
            f,
            "min {min:.3}  p50 {p50:.3}  p90 {p90:.3}  p99 {p99:.3}  p99.9 {p999:.3}  \
             max {max:.3} ms"
        )
    }
}

// ===== impl LatencyRecorder =====

impl LatencyRecorder {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self { schedule, in_flight: VecDeque::new(), base: 0, latencies: Latencies::new() }
    }

    /// Starts a series of publishes with this schedule; the one before it must have ended.
    pub(crate) fn start_series(&mut self, schedule: Schedule) {
        self.in_flight.clear();
        self.base = schedule.first;
        self.schedule = schedule;
    }

    /// Records the delivery of an event to one of the `subscribers` that should receive it.
    pub(crate) fn record(&mut self, sequence: u32, now: Instant, subscribers: usize) {
        let Some(at) = sequence.checked_sub(self.base).map(|at| at as usize) else { return };
        let since = now.saturating_duration_since(self.schedule.due(sequence));
        let latency = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).max(1);
        record(&mut self.latencies.each, latency);
        if at >= self.in_flight.len() {
            self.in_flight.resize(at + 1, InFlight::default());
        }
        let publish = &mut self.in_flight[at];
        if publish.deliveries == 0 {
            publish.first = latency;
        }
        publish.deliveries += 1;
        publish.last = latency;
        self.retire_complete(subscribers);
    }

    fn retire_complete(&mut self, subscribers: usize) {
        while let Some(publish) = self.in_flight.front().copied() {
            if publish.deliveries < subscribers {
                return;
            }
            self.in_flight.pop_front();
            record(&mut self.latencies.first, publish.first);
            record(&mut self.latencies.last, publish.last);
            self.base += 1;
        }
    }

    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Returns the recorded latencies and starts from zero.
    pub(crate) fn take(&mut self) -> Latencies {
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
    fn latency_counts_from_when_a_publish_is_due() {
        let (start, every) = (now(), Duration::from_millis(10));
        let mut recorder = LatencyRecorder::new(Schedule { first: 0, start, every });
        recorder.start_series(Schedule { first: 5, start, every });
        recorder.record(6, start + Duration::from_millis(25), 2);
        recorder.record(5, start + Duration::from_millis(25), 2);
        recorder.record(5, start + Duration::from_millis(30), 2);
        let ms = |quantiles: Option<Quantiles>| {
            let Quantiles { count, min, max, .. } = quantiles.expect("recorded");
            // The histogram keeps three digits, so that its 15 ms may begin below.
            (count, min.round() as u64, max.round() as u64)
        };
        assert_eq!(ms(recorder.latencies().each()), (3, 15, 30));
        assert_eq!(ms(recorder.latencies().first()), (1, 25, 25), "only one publish is complete");
        recorder.record(6, start + Duration::from_millis(40), 2);
        assert_eq!(ms(recorder.latencies().last()), (2, 30, 30));
    }
}
