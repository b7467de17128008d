//! `/metrics` in the Prometheus text format (OpenMetrics' names and escaping). There are no labels by
//! org: their number has no bound.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::admission::Admission;
use crate::hub::Hub;
use crate::metrics::{CloseReason, Counters, Limit, read};
use crate::sync::AtomicU64;

/// Reads the hub's counters when it is scraped.
#[derive(Debug)]
struct HubCollector(Hub);

/// Reads the doors' counters when it is scraped.
#[derive(Debug)]
struct DoorCollector(Admission);

const KINDS: [&str; 2] = ["member", "public"];

/// The counters of a shard that have no labels.
type Plain = (&'static str, &'static str, fn(&Counters) -> &AtomicU64);

const PLAIN: [Plain; 5] = [
    ("events_published", "Publishes that were accepted", |c| &c.published),
    ("events_coalesced", "Publishes that became part of a later event", |c| &c.coalesced),
    ("events_delivered", "Events handed to streams", |c| &c.delivered),
    ("keepalives", "Comments sent on silent streams", |c| &c.keepalives),
    ("rereads", "Times a live stream was told to re-read everything", |c| &c.rereads),
];

/// The registry of one server.
pub(crate) fn registry(hub: Hub, admission: Admission) -> Registry {
    let mut registry = Registry::with_prefix("nudged");
    registry.register_collector(Box::new(HubCollector(hub)));
    registry.register_collector(Box::new(DoorCollector(admission)));
    registry
}

impl Collector for HubCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Self(hub) = self;
        let sum =
            |of: fn(&Counters) -> &AtomicU64| hub.counters().map(|c| read(of(c))).sum::<u64>();
        for (name, help, of) in PLAIN {
            let counter = ConstCounter::new(sum(of));
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }

        let opened = |kind: usize| hub.counters().map(|c| read(&c.opened[kind])).sum::<u64>();
        let closed = |kind: usize, reason: CloseReason| {
            hub.counters().map(|c| read(&c.closed[kind][reason as usize])).sum::<u64>()
        };
        let closed_all = |kind| CloseReason::ALL.iter().map(|r| closed(kind, *r)).sum::<u64>();

        let total = ConstCounter::new(opened(0) + opened(1));
        let help = "Streams that were opened";
        total.encode(encoder.encode_descriptor(
            "streams_opened",
            help,
            None,
            total.metric_type(),
        )?)?;

        let help = "Streams that ended, by cause";
        let kind = total.metric_type();
        let mut family = encoder.encode_descriptor("streams_closed", help, None, kind)?;
        for reason in CloseReason::ALL {
            let count = ConstCounter::new(closed(0, reason) + closed(1, reason));
            count.encode(family.encode_family(&[("reason", reason.label())])?)?;
        }

        let gauge = |value: usize| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let kind = gauge(0).metric_type();
        let mut family =
            encoder.encode_descriptor("streams_open", "Streams that are open", None, kind)?;
        for (index, label) in KINDS.iter().enumerate() {
            // Closed first: a stream that opens and closes meanwhile must not count below zero.
            let closed = closed_all(index);
            let open = usize::try_from(opened(index).saturating_sub(closed)).unwrap_or(usize::MAX);
            gauge(open).encode(family.encode_family(&[("kind", *label)])?)?;
        }
        for (name, help, value) in [
            ("seats", "Seats that are taken, counted in the slabs", hub.seats()),
            ("channels", "Organisations that are remembered", hub.channels()),
        ] {
            gauge(value).encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        Ok(())
    }
}

impl Collector for DoorCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Self(admission) = self;
        let help = "Requests and connections that were refused, by the limit that was reached";
        let kind = ConstCounter::new(0u64).metric_type();
        let mut family = encoder.encode_descriptor("refused", help, None, kind)?;
        for limit in Limit::ALL {
            let count = ConstCounter::new(admission.refusals().read(limit));
            count.encode(family.encode_family(&[("limit", limit.label())])?)?;
        }
        for (name, help, value) in [
            ("connections", "Connections that are open", admission.connections()),
            ("connections_max", "Connections that may be open", admission.connections_max()),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
