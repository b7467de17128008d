//! What a run found, for people and for programs.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::proc::Cost;
use super::subscribers::Tally;
use super::{Latencies, Load};

/// What a run found. Times are in milliseconds unless a field says otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Over what the streams came.
    pub transport: String,
    /// Streams that were open when all were.
    pub subscribers: usize,
    /// Seconds that opening them took.
    pub opening_seconds: f64,
    /// Streams opened a second.
    pub connects_per_second: f64,
    /// Seconds of publishing or waiting.
    pub seconds: f64,
    /// Publishes sent.
    pub published: u32,
    /// Publishes that were not answered with a 2xx.
    pub publishes_refused: u32,
    /// The first reason.
    pub refusal: Option<String>,
    /// Why the first stream that failed without an answer did.
    pub failure: Option<String>,
    /// What arrived.
    #[serde(flatten)]
    pub tally: Tally,
    /// From when a publish was meant to leave to each arrival.
    pub latency: Option<Quantiles>,
    /// The same, to the first subscriber reached.
    pub first_reached: Option<Quantiles>,
    /// The same, to the last subscriber reached.
    pub last_reached: Option<Quantiles>,
    /// What the server cost, where its processes were named.
    pub server: Option<Server>,
}

/// A distribution, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Quantiles {
    pub count: u64,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// What the server cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Server {
    /// PSS in bytes before the first stream.
    pub pss_before: u64,
    /// PSS in bytes when all streams were open.
    pub pss_open: u64,
    /// PSS in bytes at the end.
    pub pss_after: u64,
    /// Bytes for each stream that was open.
    pub pss_per_subscriber: f64,
    /// Microseconds of processor time for each stream opened.
    pub cpu_us_per_connect: f64,
    /// Seconds of processor time from then to the end.
    pub cpu_seconds: f64,
    /// The same in microseconds for each event delivered.
    pub cpu_us_per_delivery: Option<f64>,
}

/// How the run went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    pub(crate) open: usize,
    pub(crate) opening: Duration,
    pub(crate) took: Duration,
    /// Before the first stream, with all of them, and at the end.
    pub(crate) costs: Option<[Cost; 3]>,
}

// ===== impl Summary =====

impl Summary {
    pub(crate) fn new(load: &Load, course: Course) -> Self {
        let Latencies { each, first, last } = load.crowd.ledger.latencies();
        let opening = course.opening.as_secs_f64();
        let tally = load.tally();
        Self {
            transport: load.transport.clone(),
            subscribers: course.open,
            opening_seconds: opening,
            connects_per_second: course.open as f64 / opening,
            seconds: course.took.as_secs_f64(),
            published: load.published.sent,
            publishes_refused: load.published.refused,
            refusal: load.published.why.clone(),
            failure: load.crowd.failure.clone(),
            tally,
            latency: Quantiles::of(each),
            first_reached: Quantiles::of(first),
            last_reached: Quantiles::of(last),
            server: course.costs.map(|costs| Server::new(costs, course.open, tally.delivered)),
        }
    }

    /// Whether every subscriber got every event exactly once and stayed, and no publish was refused.
    pub fn is_clean(&self) -> bool {
        self.tally.is_clean() && self.publishes_refused == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { delivered, missed, duplicates, reordered, disconnects, failed, .. } =
            self.tally;
        writeln!(f, "transport     {}", self.transport)?;
        let status = self.tally.failed_status.map(|status| format!("HTTP {status}"));
        let failure = status.as_ref().or(self.failure.as_ref());
        writeln!(
            f,
            "subscribers   {} open after {:.2} s ({:.0}/s), {failed} failed{}",
            self.subscribers,
            self.opening_seconds,
            self.connects_per_second,
            failure.map_or(String::new(), |why| format!(" ({why})")),
        )?;
        let refusal = self.refusal.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        writeln!(
            f,
            "published     {} in {:.1} s, {} refused{refusal}",
            self.published, self.seconds, self.publishes_refused
        )?;
        writeln!(
            f,
            "events        {delivered} delivered, {missed} missed, {duplicates} duplicate, \
             {reordered} out of order, {disconnects} streams lost"
        )?;
        let rows = [
            ("latency", &self.latency),
            ("first reached", &self.first_reached),
            ("last reached", &self.last_reached),
        ];
        for (name, quantiles) in rows {
            if let Some(quantiles) = quantiles {
                writeln!(f, "{name:<13} {quantiles}")?;
            }
        }
        self.server.iter().try_for_each(|server| write!(f, "{server}"))
    }
}

// ===== impl Quantiles =====

impl Quantiles {
    /// Of a histogram of nanoseconds; `None` if it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            min: ms(histogram.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(histogram.max()),
        })
    }
}

fn ms(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
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

// ===== impl Server =====

impl Server {
    fn new([before, open, after]: [Cost; 3], subscribers: usize, delivered: u64) -> Self {
        let us = |cost: Cost| cost.cpu.as_secs_f64() * 1e6;
        let each = subscribers.max(1) as f64;
        Self {
            pss_before: before.pss,
            pss_open: open.pss,
            pss_after: after.pss,
            pss_per_subscriber: (open.pss as f64 - before.pss as f64) / each,
            cpu_us_per_connect: us(open - before) / each,
            cpu_seconds: (after - open).cpu.as_secs_f64(),
            cpu_us_per_delivery: (delivered > 0).then(|| us(after - open) / delivered as f64),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "server memory {:.2} MiB before, {:.2} with all streams, {:.2} at the end (PSS); {:.2} \
             KiB a subscriber",
            mib(self.pss_before),
            mib(self.pss_open),
            mib(self.pss_after),
            self.pss_per_subscriber / 1024.0
        )?;
        write!(
            f,
            "server CPU    {:.1} µs a connect, then {:.2} s",
            self.cpu_us_per_connect, self.cpu_seconds
        )?;
        match self.cpu_us_per_delivery {
            Some(each) => writeln!(f, ", {each:.2} µs a delivery"),
            None => writeln!(f),
        }
    }
}
