//! `/metrics` in the text format of OpenMetrics 1.0. No metric has a label for the org, because the number of
//! orgs has no bound.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::admission::{Admission, Entrance, Evicted};
use crate::hub::Hub;
use crate::metrics::{CloseReason, Counters, Limit, SharedCount, read};
use crate::sync::AtomicU64;

/// Reads the hub's counters at each scrape.
#[derive(Debug)]
struct HubCollector(Hub);

/// Reads the counters of [`Admission`] at each scrape.
#[derive(Debug)]
struct AdmissionCollector(Admission);

/// Reads a count of the application at each scrape.
#[derive(Debug)]
struct LogCollector(SharedCount);

/// The labels of [`Counters::opened`], in its order.
const KINDS: [&str; 2] = ["member", "public"];

/// The name and help text of a counter without labels, and where a shard has it.
type Plain = (&'static str, &'static str, fn(&Counters) -> &AtomicU64);

const PLAIN: [Plain; 5] = [
    ("events_published", "Publishes that were accepted", |c| &c.published),
    ("events_coalesced", "Publishes that became part of a later event", |c| &c.coalesced),
    ("events_delivered", "Events handed to streams", |c| &c.delivered),
    ("keepalives", "Comments sent on silent streams", |c| &c.keepalives),
    ("rereads", "Times a live stream was told to re-read everything", |c| &c.rereads),
];

/// The metrics of a server.
pub(crate) fn registry(hub: Hub, admission: Admission, log_lines_dropped: SharedCount) -> Registry {
    let mut registry = Registry::with_prefix("nudged");
    registry.register_collector(Box::new(HubCollector(hub)));
    registry.register_collector(Box::new(AdmissionCollector(admission)));
    registry.register_collector(Box::new(LogCollector(log_lines_dropped)));
    registry
}

impl Collector for HubCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(hub) = self;
        let sum =
            |of: fn(&Counters) -> &AtomicU64| hub.counters().map(|c| read(of(c))).sum::<u64>();
        for (name, help, of) in PLAIN {
            encode(&mut encoder, name, help, &ConstCounter::new(sum(of)))?;
        }

        let opened = |kind: usize| hub.counters().map(|c| read(&c.opened[kind])).sum::<u64>();
        let closed = |kind: usize, reason: CloseReason| {
            hub.counters().map(|c| read(&c.closed[kind][reason as usize])).sum::<u64>()
        };
        let closed_all = |kind| CloseReason::ALL.iter().map(|r| closed(kind, *r)).sum::<u64>();

        let total = ConstCounter::new(opened(0) + opened(1));
        encode(&mut encoder, "streams_opened", "Streams that were opened", &total)?;

        let help = "Streams that ended, by cause";
        let mut family =
            encoder.encode_descriptor("streams_closed", help, None, MetricType::Counter)?;
        for reason in CloseReason::ALL {
            let count = ConstCounter::new(closed(0, reason) + closed(1, reason));
            count.encode(family.encode_family(&[("reason", reason.label())])?)?;
        }

        let help = "Streams that are open";
        let mut family =
            encoder.encode_descriptor("streams_open", help, None, MetricType::Gauge)?;
        for (index, label) in KINDS.iter().enumerate() {
            // `closed` is read first: a stream that opens and closes in between must not make the
            // result negative.
            let closed = closed_all(index);
            let open = usize::try_from(opened(index).saturating_sub(closed)).unwrap_or(usize::MAX);
            gauge(open).encode(family.encode_family(&[("kind", *label)])?)?;
        }
        for (name, help, value) in [
            ("seats", "Seats that are taken, counted in the slabs", hub.seats()),
            ("channels", "Organisations that are remembered", hub.channels()),
        ] {
            encode(&mut encoder, name, help, &gauge(value))?;
        }
        Ok(())
    }
}

impl Collector for AdmissionCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(admission) = self;
        let help = "Requests and connections that were refused, by the limit that was reached";
        let mut family = encoder.encode_descriptor("refused", help, None, MetricType::Counter)?;
        for limit in Limit::ALL {
            let count = ConstCounter::new(admission.refusals().read(limit));
            count.encode(family.encode_family(&[("limit", limit.label())])?)?;
        }
        let help = "Connections that were closed to make room for others";
        let mut family = encoder.encode_descriptor("evicted", help, None, MetricType::Counter)?;
        for which in Evicted::ALL {
            let count = ConstCounter::new(admission.evicted(which));
            count.encode(family.encode_family(&[("kind", which.label())])?)?;
        }
        let (public, internal) = (Entrance::Public, Entrance::Internal);
        let open = |entrance| admission.connections(entrance);
        for (name, help, value) in [
            ("connections", "Connections to public addresses", open(public)),
            (
                "connections_max",
                "Connections to public addresses that may be open",
                admission.connections_max(public),
            ),
            ("internal_connections", "Connections to internal addresses", open(internal)),
        ] {
            encode(&mut encoder, name, help, &gauge(value))?;
        }
        Ok(())
    }
}

impl Collector for LogCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(dropped) = self;
        let help = "Log lines that were dropped, because nothing read the log in time";
        encode(&mut encoder, "log_lines_dropped", help, &ConstCounter::new(dropped.get()))
    }
}

/// Encodes a metric without labels.
fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(value: usize) -> ConstGauge {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
