//! The metrics of the hub.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::histogram::Histogram;
use super::{encode, encode_family, gauge};
use crate::hub::Hub;
use crate::metrics::{CloseReason, Counters, Greeted, SweepTimes, read};
use crate::sync::AtomicU64;

/// Reads the hub's counters at each scrape.
#[derive(Debug)]
pub(super) struct HubCollector(pub(super) Hub);

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

// ===== impl HubCollector =====

impl Collector for HubCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (Self(hub), encoder) = (self, &mut encoder);
        let plain = PLAIN.map(|(name, help, of)| (name, help, sum(hub, of)));
        for (name, help, count) in plain {
            encode(encoder, name, help, &ConstCounter::new(count))?;
        }
        encode_streams(hub, encoder)?;

        let greeted = |greeted: Greeted| sum(hub, |c| &c.greeted[greeted as usize]);
        let greetings = Greeted::ALL.map(|kind| (kind.label(), greeted(kind)));
        let help = "Streams that began: new ones, resumed ones, and those whose client has to re-read \
                    everything, because what it missed is not known any more";
        encode_family(encoder, "greetings", help, "kind", &greetings)?;

        let help =
            "The time from an event in the history until a shard has visited all its streams";
        encode(encoder, "sweep_seconds", help, &sweeps(hub))?;

        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        for (name, help, value) in [
            ("seats", "Seats that are taken, counted in the slabs", hub.seats()),
            ("channels", "Organisations that are remembered", hub.channels()),
            (
                "history_bytes",
                "Bytes of memory for the histories of organisations",
                bytes(hub.history_bytes()),
            ),
            ("topics", "Topics that are kept", hub.topics()),
            ("topics_bytes", "Bytes of memory for the events of topics", bytes(hub.topics_bytes())),
        ] {
            encode(encoder, name, help, &gauge(value))?;
        }
        Ok(())
    }
}

fn encode_streams(hub: &Hub, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let opened = |kind: usize| sum(hub, |c| &c.opened[kind]);
    let closed = |kind: usize, why: CloseReason| sum(hub, |c| &c.closed[kind][why as usize]);
    let closed_all = |kind| CloseReason::ALL.iter().map(|why| closed(kind, *why)).sum::<u64>();

    let total = ConstCounter::new((0..KINDS.len()).map(opened).sum::<u64>());
    encode(encoder, "streams_opened", "Streams that were opened", &total)?;

    let of = |why| (0..KINDS.len()).map(|kind| closed(kind, why)).sum::<u64>();
    let closed_for = CloseReason::ALL.map(|why| (why.label(), of(why)));
    encode_family(
        encoder,
        "streams_closed",
        "Streams that ended, by cause",
        "reason",
        &closed_for,
    )?;

    let help = "Streams that are open";
    let mut family = encoder.encode_descriptor("streams_open", help, None, MetricType::Gauge)?;
    for (index, label) in KINDS.iter().enumerate() {
        // `closed` is read first: a stream that opens and closes in between must not make the
        // result negative.
        let closed = closed_all(index);
        let open = usize::try_from(opened(index).saturating_sub(closed)).unwrap_or(usize::MAX);
        gauge(open).encode(family.encode_family(&[("kind", *label)])?)?;
    }
    Ok(())
}

/// How long sweeps took.
fn sweeps(hub: &Hub) -> Histogram {
    let count = |bucket: usize| sum(hub, |c| &c.sweeps.counts()[bucket]);
    let bounds = SweepTimes::BOUNDS_MS.iter().map(|bound| seconds(*bound));
    let buckets = bounds.chain([f64::INFINITY]).enumerate();
    let buckets = buckets.map(|(bucket, bound)| (bound, count(bucket))).collect();
    Histogram { sum: seconds(sum(hub, |c| c.sweeps.sum_ms())), buckets }
}

fn seconds(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64()
}

/// A counter of all shards together. Counters wrap.
fn sum<'h>(hub: &'h Hub, of: impl Fn(&'h Counters) -> &'h AtomicU64) -> u64 {
    hub.counters().map(|counters| read(of(counters))).fold(0, u64::wrapping_add)
}
