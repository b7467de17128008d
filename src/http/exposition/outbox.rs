//! The metrics of the outbox, and where it counts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{encode, encode_family, gauge};
use crate::metrics::{add, read};
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// What has happened since the start, and what was seen last.
#[derive(Debug, Default)]
pub(crate) struct OutboxCounters {
    /// The database can be used, and this server drains the outbox.
    pub(crate) is_connected: AtomicBool,
    pub(crate) published: AtomicU64,
    pub(crate) invalid: AtomicU64,
    batches: [AtomicU64; BatchResult::ALL.len()],
    rows: AtomicU64,
    oldest_millis: AtomicU64,
}

/// What became of the rows of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchResult {
    /// They were published and deleted.
    Ok,
    /// The log did not take them all: they stay, and are published again.
    Unavailable,
    /// The database failed before it was known that they were deleted: they may be published again.
    Lost,
}

/// Reads the counters of the outbox at each scrape.
#[derive(Debug)]
pub(super) struct OutboxCollector(pub(super) Arc<OutboxCounters>);

// ===== impl OutboxCounters =====

impl OutboxCounters {
    pub(crate) fn count_batch(&self, result: BatchResult) {
        add(&self.batches[result as usize], 1);
    }

    /// So many rows wait, the oldest of them for so long.
    pub(crate) fn set_waiting(&self, rows: u64, oldest: Duration) {
        self.rows.store(rows, Ordering::Relaxed);
        let millis = u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX);
        self.oldest_millis.store(millis, Ordering::Relaxed);
    }
}

// ===== impl OutboxCollector =====

impl Collector for OutboxCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (encoder, counters) = (&mut encoder, &*self.0);
        let help = "Whether the database can be used, and this server drains the outbox";
        let is_connected = counters.is_connected.load(Ordering::Relaxed);
        encode(encoder, "outbox_connected", help, &gauge(usize::from(is_connected)))?;
        let help = "Rows that wait in the outbox, up to 100,000, counted every 10 s";
        let rows = usize::try_from(read(&counters.rows)).unwrap_or(usize::MAX);
        encode(encoder, "outbox_rows", help, &gauge(rows))?;
        let help = "How long the oldest row has waited since its transaction began, or 0";
        let oldest = Duration::from_millis(read(&counters.oldest_millis));
        encode(encoder, "outbox_oldest_seconds", help, &ConstGauge::new(oldest.as_secs_f64()))?;
        for (name, help, value) in [
            ("outbox_published", "Rows that were published and deleted", &counters.published),
            (
                "outbox_invalid",
                "Rows that cannot be published, and were deleted; the log has the reasons",
                &counters.invalid,
            ),
        ] {
            encode(encoder, name, help, &ConstCounter::new(read(value)))?;
        }
        let batches = BatchResult::ALL
            .map(|result| (result.label(), read(&counters.batches[result as usize])));
        let help = "Transactions that took rows out of the outbox";
        encode_family(encoder, "outbox_batches", help, "result", &batches)
    }
}

// ===== impl BatchResult =====

impl BatchResult {
    const ALL: [Self; 3] = [Self::Ok, Self::Unavailable, Self::Lost];

    /// The label in `nudged_outbox_batches_total{result="…"}`.
    const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unavailable => "unavailable",
            Self::Lost => "lost",
        }
    }
}
