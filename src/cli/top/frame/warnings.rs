//! What may need an operator.

use std::time::{Duration, SystemTime};

use super::super::text::Style::Alert;
use super::super::text::{Line, count, percent, seconds, span};
use super::{OPEN, View, listed, until};

/// Above this share of a limit there is a warning.
const NEARLY_FULL: f64 = 0.9;

/// Below this share of streams that resume there is one, if so many streams came back.
const RESUMED_MIN: f64 = 0.5;
const RETURNED_MIN: f64 = 20.0;

/// A certificate that ends sooner should have been replaced.
const CERTIFICATE: Duration = Duration::from_secs(14 * 86_400);

/// Seconds that a record of the log may take.
const LAG: f64 = 1.0;

impl View {
    /// In words, the most urgent first.
    pub(super) fn warnings(&self, now: SystemTime) -> Vec<Line> {
        let Self { history, trouble, unready, .. } = self;
        let mut warnings = Vec::new();
        let mut warn = |text: String| warnings.push(Line::new(Alert, format!("! {text}")));
        if let Some((since, why)) = trouble {
            let time = span(now.duration_since(*since).unwrap_or_default());
            warn(format!("no numbers for {time}: {why}"));
        }
        if let Some(why) = unready {
            warn(format!("not ready: {why}"));
        }
        if history.value("nudged_backplane_connected") == Some(0.0) {
            warn("the shared log cannot be used: publishes are refused".into());
        }
        if history.value("nudged_outbox_connected") == Some(0.0) {
            warn("the outbox is not drained by this server".into());
        }
        for (what, used, max) in [
            ("connections", "nudged_connections", "nudged_connections_max"),
            ("streams", "nudged_streams_open", "nudged_streams_max"),
            ("open files", "process_open_fds", "process_max_fds"),
        ] {
            let share = history.value(used).zip(history.value(max)).map(|(used, max)| used / max);
            if let Some(share) = share.filter(|share| *share > NEARLY_FULL && share.is_finite()) {
                warn(format!("{what}: {} of those that may be open", percent(share)));
            }
        }
        let (returned, resumed) = self.returned();
        if returned >= RETURNED_MIN && resumed / returned < RESUMED_MIN {
            let share = percent(resumed / returned);
            warn(format!(
                "{share} of the streams that came back in a minute resumed; the others re-read"
            ));
        }
        for (cause, ended) in history.grown("nudged_streams_closed_total", "reason") {
            if cause == "stalled" {
                warn(format!(
                    "{} streams ended in a minute because they were not read",
                    count(ended)
                ));
            }
        }
        let cuts: f64 =
            history.grown("nudged_backplane_cuts_total", "reason").iter().map(|(_, n)| n).sum();
        if cuts > 0.0 {
            let cuts = count(cuts);
            warn(format!(
                "cuts of the shared log in a minute: {cuts}; all clients re-read everything"
            ));
        }
        if let Some(lag) = history.value("nudged_backplane_lag_seconds").filter(|lag| *lag > LAG) {
            warn(format!("the shared log is slow: its last record took {}", seconds(lag)));
        }
        let refused = history.grown("nudged_refused_total", "limit");
        if !refused.is_empty() {
            warn(format!("refused in a minute, by limit: {}", listed(&refused)));
        }
        let headers = history.grown("nudged_proxy_protocol_refused_total", "reason");
        if !headers.is_empty() {
            let headers = listed(&headers);
            warn(format!("headers of the PROXY protocol refused in a minute: {headers}"));
        }
        if history.rate("nudged_log_lines_dropped_total").is_some_and(|rate| rate > 0.0) {
            warn("log lines are dropped, because nothing reads the log in time".into());
        }
        let expiry = history.value("nudged_tls_certificate_expiry_timestamp_seconds");
        if let Some(left) =
            expiry.map(|expiry| until(now, expiry)).filter(|left| *left < CERTIFICATE)
        {
            warn(match left {
                Duration::ZERO => "the certificate has expired".into(),
                left => format!("the certificate expires in {}", span(left)),
            });
        }
        if history.value(OPEN) == Some(1.0) {
            warn(
                "no key is configured: every client that connects may subscribe and publish".into(),
            );
        }
        warnings
    }
}
