//! `/metrics` in the text format of Prometheus, or in that of OpenMetrics for a client that asks for it. No metric has
//! a label for the org, because the number of orgs has no bound.

mod admission;
mod format;
mod histogram;
mod hub;
#[cfg(feature = "postgres")]
mod outbox;
mod process;
mod server;
mod shared_log;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

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
use self::process::ProcessCollector;
use self::server::{Certificate, Drain, ServerCollector};
use self::shared_log::BackplaneCollector;
use crate::admission::Admission;
use crate::backplane::Backplane;
use crate::config::Config;
use crate::hub::Hub;
use crate::sync::Mutex;
use crate::time::Time;

/// The metrics of a server.
#[derive(Debug)]
pub(crate) struct Exposition {
    /// The metrics of processes in general have no prefix.
    registry: Registry,
    drain: Arc<Drain>,
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

// ===== impl Exposition =====

impl Exposition {
    pub(crate) fn new(config: &Config, hub: Hub, admission: Admission) -> Self {
        let drain = Arc::<Drain>::default();
        let server = ServerCollector {
            open: config.auth.is_open(),
            drain: drain.clone(),
            log_lines_dropped: config.log_lines_dropped.clone(),
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessCollector::new()));
        let mut metrics = Self { registry, drain, held: Mutex::default() };
        metrics.add(server);
        metrics.add(hub::HubCollector(hub));
        metrics.add(admission::AdmissionCollector(admission));
        metrics
    }

    /// Adds those of the log that the server shares with others.
    pub(crate) fn add_backplane(&mut self, hub: Hub, backplane: Backplane) {
        self.add(BackplaneCollector { hub, backplane });
    }

    /// Adds those of the outbox.
    #[cfg(feature = "postgres")]
    pub(crate) fn add_outbox(&mut self, counters: Arc<OutboxCounters>) {
        self.add(outbox::OutboxCollector(counters));
    }

    /// Adds that of the certificate in use.
    pub(crate) fn add_certificate(
        &mut self,
        expires: impl Fn() -> Option<SystemTime> + Send + Sync + 'static,
    ) {
        self.add(Certificate(expires));
    }

    fn add(&mut self, collector: impl Collector) {
        let registry = self.registry.sub_registry_with_prefix("nudged");
        registry.register_collector(Box::new(collector));
    }

    /// The server drains, until then at the latest.
    pub(crate) fn drain_until(&self, end: SystemTime) {
        self.drain.set(end);
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

    /// SCENARIO: clients request the metrics again and again, over HTTP/2 with a window of 0.
    /// BUG: each response was a text of its own; 16 connections held 44 MiB.
    /// FIX: beyond a few texts, responses share the last one, which is at most a second old.
    #[test]
    fn clients_that_read_no_metrics_hold_few_texts() {
        let (config, hub) = (Config::default(), Hub::new(Config::default().hub));
        let metrics = Exposition::new(&config, hub, Admission::new(&config, 1_024));
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
