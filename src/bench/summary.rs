//! The result of a run, as text and as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Load;
use super::latency::Quantiles;
use super::proc::Cost;
use super::subscribers::Tally;

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// The transport of the streams.
    pub transport: String,
    /// Streams that could be opened.
    pub subscribers: usize,
    /// Seconds that opening them took.
    pub opening_seconds: f64,
    /// Streams opened per second.
    pub connects_per_second: f64,
    /// Seconds of publishing or waiting.
    pub seconds: f64,
    /// Publishes sent.
    pub published: u32,
    /// Publishes without a 2xx response.
    pub publishes_refused: u32,
    /// Why the first of them was refused.
    pub refusal: Option<String>,
    /// Why the first stream without a response failed.
    pub failure: Option<String>,
    /// What the subscribers received.
    #[serde(flatten)]
    pub tally: Tally,
    /// From when a publish was due to each delivery.
    pub latency: Option<Quantiles>,
    /// The same, to the first delivery of each publish.
    pub first_reached: Option<Quantiles>,
    /// The same, to the last delivery of each publish.
    pub last_reached: Option<Quantiles>,
    /// What the server cost, if its processes were named.
    pub server: Option<ServerCost>,
}

/// What the server cost. PSS is its user memory, with shared pages divided among their users.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct ServerCost {
    /// PSS in bytes before the first stream.
    pub pss_before: u64,
    /// PSS in bytes when all streams were open.
    pub pss_open: u64,
    /// PSS in bytes at the end.
    pub pss_after: u64,
    /// Bytes per stream that was open.
    pub pss_per_subscriber: f64,
    /// Microseconds of processor time per stream opened.
    pub cpu_us_per_connect: f64,
    /// Seconds of processor time from then to the end.
    pub cpu_seconds: f64,
    /// The same in microseconds per event delivered.
    pub cpu_us_per_delivery: Option<f64>,
}

/// What was measured during a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) open: usize,
    pub(crate) opening: Duration,
    pub(crate) took: Duration,
    /// Before the first stream, with all streams, and at the end.
    pub(crate) costs: Option<[Cost; 3]>,
}

// ===== impl Summary =====

impl Summary {
    pub(crate) fn new(load: &Load, measured: Measured) -> Self {
        let latencies = load.subscribers.latency.latencies();
        let opening = measured.opening.as_secs_f64();
        let tally = load.tally();
        Self {
            transport: load.transport_name.clone(),
            subscribers: measured.open,
            opening_seconds: opening,
            connects_per_second: measured.open as f64 / opening,
            seconds: measured.took.as_secs_f64(),
            published: load.published.sent,
            publishes_refused: load.published.refused,
            refusal: load.published.why.clone(),
            failure: load.subscribers.failure.clone(),
            tally,
            latency: latencies.each(),
            first_reached: latencies.first(),
            last_reached: latencies.last(),
            server: measured
                .costs
                .map(|costs| ServerCost::new(costs, measured.open, tally.delivered)),
        }
    }

    /// Whether every subscriber received every event exactly once and stayed connected, and no publish was refused.
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

// ===== impl ServerCost =====

impl ServerCost {
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

impl fmt::Display for ServerCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "server memory {:.2} MiB before, {:.2} with all streams, {:.2} at the end (PSS); {:.2} \
             KiB per subscriber",
            mib(self.pss_before),
            mib(self.pss_open),
            mib(self.pss_after),
            self.pss_per_subscriber / 1024.0
        )?;
        write!(
            f,
            "server CPU    {:.1} µs per connect, then {:.2} s",
            self.cpu_us_per_connect, self.cpu_seconds
        )?;
        match self.cpu_us_per_delivery {
            Some(each) => writeln!(f, ", {each:.2} µs per delivery"),
            None => writeln!(f),
        }
    }
}
