//! Times in buckets.

use std::fmt;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// A histogram of which a scrape has a copy.
#[derive(Debug)]
pub(super) struct Histogram {
    /// In seconds.
    pub(super) sum: f64,
    /// By the upper bounds, of which the last is infinite. The counts are not cumulative.
    pub(super) buckets: Vec<(f64, u64)>,
}

// ===== impl Histogram =====

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Self { sum, buckets } = self;
        let count = buckets.iter().map(|(_, count)| *count).fold(0, u64::wrapping_add);
        encoder.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
