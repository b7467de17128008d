//! The metrics of the server as a whole: what it is, and whether it drains.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{encode, gauge};
use crate::metrics::SharedCount;
use crate::sync::{AtomicU64, Ordering};

/// Reads them at each scrape.
#[derive(Debug)]
pub(super) struct ServerCollector {
    /// There is no key.
    pub(super) open: bool,
    pub(super) drain: Arc<Drain>,
    pub(super) log_lines_dropped: SharedCount,
}

/// When a drain ends, in milliseconds of the wall clock since 1970; 0 if there is none.
#[derive(Debug, Default)]
pub(super) struct Drain(AtomicU64);

/// Reads when the certificate in use expires, at each scrape.
pub(super) struct Certificate<F>(pub(super) F);

/// The features that the program is built with.
const FEATURES: [(&str, bool); 9] = [
    ("bench", cfg!(feature = "bench")),
    ("cli", cfg!(feature = "cli")),
    ("client", cfg!(feature = "client")),
    ("jwt", cfg!(feature = "jwt")),
    ("nats", cfg!(feature = "nats")),
    ("postgres", cfg!(feature = "postgres")),
    ("redis", cfg!(feature = "redis")),
    ("server", cfg!(feature = "server")),
    ("tls", cfg!(feature = "tls")),
];

// ===== impl Drain =====

impl Drain {
    pub(super) fn set(&self, end: SystemTime) {
        let since = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis.max(1), Ordering::Relaxed);
    }

    /// The time since 1970 at which it ends, if there is one.
    fn end(&self) -> Option<Duration> {
        let millis = self.0.load(Ordering::Relaxed);
        (millis > 0).then(|| Duration::from_millis(millis))
    }
}

// ===== impl ServerCollector =====

impl Collector for ServerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (Self { open, drain, log_lines_dropped }, encoder) = (self, &mut encoder);
        let help = "The version of the program, and the features that it is built with";
        let labels = [("version", env!("CARGO_PKG_VERSION").to_owned()), ("features", features())];
        let mut family = encoder.encode_descriptor("build_info", help, None, MetricType::Gauge)?;
        gauge(1).encode(family.encode_family(&labels)?)?;

        let help = "Whether there is no key, so that every client may subscribe and publish";
        encode(encoder, "open", help, &gauge(usize::from(*open)))?;
        let end = drain.end();
        let help = "Whether the server is being stopped or replaced";
        encode(encoder, "draining", help, &gauge(usize::from(end.is_some())))?;
        let help = "The time at which the server will have stopped at the latest; 0 while it is not draining";
        let end = ConstGauge::new(end.unwrap_or_default().as_secs_f64());
        encode(encoder, "drain_end_timestamp_seconds", help, &end)?;

        let help = "Log lines that were dropped, because nothing read the log in time";
        let dropped = ConstCounter::new(log_lines_dropped.get());
        encode(encoder, "log_lines_dropped", help, &dropped)
    }
}

fn features() -> String {
    let on = FEATURES.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name);
    on.collect::<Vec<_>>().join(",")
}

// ===== impl Certificate =====

impl<F> fmt::Debug for Certificate<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

impl<F: Fn() -> Option<SystemTime> + Send + Sync + 'static> Collector for Certificate<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(expires) = (self.0)() else { return Ok(()) };
        let expires = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let help = "The time at which the certificate in use expires";
        let name = "tls_certificate_expiry_timestamp_seconds";
        encode(&mut encoder, name, help, &ConstGauge::new(expires.as_secs_f64()))
    }
}
