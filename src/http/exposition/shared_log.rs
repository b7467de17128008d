//! The metrics of the log that several servers share.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::histogram::Histogram;
use super::{encode, encode_family, gauge};
use crate::backplane::broker::Kind;
use crate::backplane::counters::{AppendResult, Counters};
use crate::backplane::follower::CutReason;
use crate::backplane::{Backplane, Status};
use crate::hub::{Hub, TailUse};
use crate::metrics::read;

/// Reads the counters of the log, and what the hub keeps of it, at each scrape.
#[derive(Debug)]
pub(super) struct BackplaneCollector {
    pub(super) hub: Hub,
    pub(super) backplane: Backplane,
}

const KINDS: [Kind; 3] = [Kind::Lines, Kind::Barrier, Kind::Beat];

// ===== impl BackplaneCollector =====

impl Collector for BackplaneCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        encode_status(encoder, &self.backplane.state())?;
        encode_counters(encoder, self.backplane.counters())?;
        encode_tail(encoder, &self.hub.tail())
    }
}

fn encode_status(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    let help = "Whether the log is open, and has what was read before";
    encode(encoder, "backplane_connected", help, &gauge(usize::from(status.is_connected)))?;
    let help = "How long the last record of this server took to come back, or has taken until now";
    encode(encoder, "backplane_lag_seconds", help, &ConstGauge::new(status.lag.as_secs_f64()))
}

fn encode_counters(encoder: &mut DescriptorEncoder<'_>, counters: &Counters) -> fmt::Result {
    let appends = AppendResult::ALL.map(|result| (result.label(), counters.appends(result)));
    let help = "Publishes and commands that were to be appended to the log";
    encode_family(encoder, "backplane_appends", help, "result", &appends)?;

    let (sum, count) = counters.append_seconds();
    let help = "The time from a publish or command until it had come back from the log";
    let times = Histogram { sum, buckets: vec![(f64::INFINITY, count)] };
    encode(encoder, "backplane_append_seconds", help, &times)?;

    let records = KINDS.map(|kind| (kind.name(), counters.records(kind)));
    encode_family(encoder, "backplane_records", "Records that were read", "kind", &records)?;
    let cuts = CutReason::ALL.map(|reason| (reason.label(), counters.cuts(reason)));
    let help = "Times that what was before became unknown, so that all clients re-read everything";
    encode_family(encoder, "backplane_cuts", help, "reason", &cuts)?;

    for (name, help, value) in [
        ("backplane_lines", "Lines of records that were read, skipped ones too", &counters.lines),
        ("backplane_lines_skipped", "Lines of records that are unusable", &counters.lines_skipped),
        (
            "backplane_records_bad",
            "Records of an unknown kind or version, and barriers and beats that are none",
            &counters.records_bad,
        ),
        ("backplane_opens", "Times that the log was opened", &counters.opens),
    ] {
        encode(encoder, name, help, &ConstCounter::new(read(value)))?;
    }
    Ok(())
}

fn encode_tail(encoder: &mut DescriptorEncoder<'_>, tail: &TailUse) -> fmt::Result {
    for (name, help, value) in [
        ("backplane_tail_bytes", "Bytes of memory for the end of the log", tail.bytes),
        ("backplane_tail_records", "Records of the log in memory", tail.records),
    ] {
        encode(encoder, name, help, &gauge(value))?;
    }
    let help = "The time between the oldest and the newest record in memory";
    encode(encoder, "backplane_tail_seconds", help, &ConstGauge::new(tail.span.as_secs_f64()))
}
