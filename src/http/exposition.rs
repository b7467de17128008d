//! `/metrics` in the text format of Prometheus, or in that of OpenMetrics for a client that asks for it. No metric has
//! a label for the org, because the number of orgs has no bound.

mod format;
#[cfg(feature = "postgres")]
mod outbox;
mod shared_log;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

pub(crate) use self::format::Format;
#[cfg(feature = "postgres")]
pub(crate) use self::outbox::{BatchResult, OutboxCounters};
use self::shared_log::BackplaneCollector;
use crate::admission::{Admission, Entrance, Evicted};
use crate::backplane::Backplane;
use crate::hub::Hub;
use crate::metrics::{CloseReason, Counters, Limit, SharedCount, read};
use crate::sync::{AtomicU64, Mutex};
use crate::time::Time;

/// The metrics of a server.
#[derive(Debug)]
pub(crate) struct Exposition {
    registry: Registry,
    /// The texts that responses hold in each format, the newest last, each with its time.
    held: Mutex<[Texts; Format::COUNT]>,
}

/// The metrics at one time.
#[derive(Debug)]
struct Text(String);

type Texts = VecDeque<(Time, Weak<Text>)>;

/// The response to a scrape, which shares its text.
struct Held(Arc<Text>);

/// If responses hold so many texts in one format, as those of clients do that do not read, further ones share the last
/// of them until it is a second old.
const TEXTS: usize = 8;
const SHARED: Duration = Duration::from_secs(1);

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
const KINDS: [&str; 3] = ["member", "public", "topic"];

/// The name and help text of a counter without labels, and where a shard has it.
type Plain = (&'static str, &'static str, fn(&Counters) -> &AtomicU64);

const PLAIN: [Plain; 5] = [
    ("events_published", "Publishes that were accepted", |c| &c.published),
    ("events_coalesced", "Publishes that became part of a later event", |c| &c.coalesced),
    ("events_delivered", "Events handed to streams", |c| &c.delivered),
    ("keepalives", "Comments sent on silent streams", |c| &c.keepalives),
    ("rereads", "Times an open stream got connected, to re-read everything", |c| &c.rereads),
];

// ===== impl Exposition =====

impl Exposition {
    pub(crate) fn new(hub: Hub, admission: Admission, log_lines_dropped: SharedCount) -> Self {
        let mut registry = Registry::with_prefix("nudged");
        registry.register_collector(Box::new(HubCollector(hub)));
        registry.register_collector(Box::new(AdmissionCollector(admission)));
        registry.register_collector(Box::new(LogCollector(log_lines_dropped)));
        Self { registry, held: Mutex::default() }
    }

    /// Adds those of the log that the server shares with others.
    pub(crate) fn add_backplane(&mut self, hub: Hub, backplane: Backplane) {
        self.registry.register_collector(Box::new(BackplaneCollector { hub, backplane }));
    }

    /// Adds those of the outbox.
    #[cfg(feature = "postgres")]
    pub(crate) fn add_outbox(&mut self, counters: Arc<OutboxCounters>) {
        self.registry.register_collector(Box::new(outbox::OutboxCollector(counters)));
    }

    /// The metrics as they are now, or as they were a second ago if clients hold many texts: what all of them hold is
    /// bounded, however many they are.
    pub(crate) fn text(&self, format: Format, now: Time) -> Bytes {
        let held = &mut self.held.lock()[format as usize];
        held.retain(|(_, text)| text.strong_count() > 0);
        let shared = held.back().filter(|(at, _)| held.len() >= TEXTS && now < at.after(SHARED));
        let text = shared.and_then(|(_, text)| text.upgrade()).unwrap_or_else(|| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &self.registry)
                .expect("writing to a string does not fail");
            let text = Arc::new(Text(format.convert(text)));
            held.push_back((now, Arc::downgrade(&text)));
            text
        });
        Bytes::from_owner(Held(text))
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.0.as_bytes()
    }
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

        let total = ConstCounter::new((0..KINDS.len()).map(opened).sum::<u64>());
        encode(&mut encoder, "streams_opened", "Streams that were opened", &total)?;

        let help = "Streams that ended, by cause";
        let of = |reason| (0..KINDS.len()).map(|kind| closed(kind, reason)).sum::<u64>();
        let closed_for = CloseReason::ALL.map(|reason| (reason.label(), of(reason)));
        encode_family(&mut encoder, "streams_closed", help, "reason", &closed_for)?;

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
            ("topics", "Topics that are kept", hub.topics()),
            (
                "topics_bytes",
                "Bytes of memory for the events of topics",
                usize::try_from(hub.topics_bytes()).unwrap_or(usize::MAX),
            ),
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
        let refused = Limit::ALL.map(|limit| (limit.label(), admission.refusals().read(limit)));
        encode_family(&mut encoder, "refused", help, "limit", &refused)?;
        let help = "Connections that were closed to make room for others";
        let evicted = Evicted::ALL.map(|which| (which.label(), admission.evicted(which)));
        encode_family(&mut encoder, "evicted", help, "kind", &evicted)?;
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

/// Encodes counters that differ by a label.
fn encode_family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: &[(&str, u64)],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in values {
        ConstCounter::new(*count).encode(family.encode_family(&[(label, *value)])?)?;
    }
    Ok(())
}

fn gauge(value: usize) -> ConstGauge {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Config;

    /// SCENARIO: clients request the metrics again and again, over HTTP/2 with a window of 0.
    /// BUG: each response was a text of its own; 16 connections held 44 MiB.
    /// FIX: beyond a few texts, responses share the last one, which is at most a second old.
    #[test]
    fn clients_that_read_no_metrics_hold_few_texts() {
        let (config, hub) = (Config::default(), Hub::new(Config::default().hub));
        let metrics = Exposition::new(hub, Admission::new(&config, 1_024), SharedCount::default());
        let mut held = Vec::new();
        for millis in 0..2_500 {
            held.push(metrics.text(Format::Prometheus, Time(millis)));
        }
        let texts: BTreeSet<_> = held.iter().map(|bytes| bytes.as_ptr()).collect();
        assert_eq!(texts.len(), TEXTS + 2, "and one a second");
        drop(held);
        let (first, second) = (
            metrics.text(Format::Prometheus, Time(2_500)),
            metrics.text(Format::Prometheus, Time(2_500)),
        );
        assert_ne!(first.as_ptr(), second.as_ptr(), "while few are held, each is of its time");
    }
}
