//! What the terminal shows: the lines of one frame.

mod rows;
#[cfg(test)]
mod tests;
mod warnings;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::history::History;
use super::ops::{Nodes, Orgs};
use super::text::Style::{self, Alert, Bold, Dim, Plain};
use super::text::{Line, count, decimal, span};

/// Everything that is known of a server.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) url: String,
    pub(super) history: History,
    /// Why it is not ready.
    pub(super) unready: Option<String>,
    /// Since when it does not answer, and why.
    pub(super) trouble: Option<(SystemTime, String)>,
    /// The organisations, or why they are not shown.
    pub(super) orgs: Option<Result<Orgs, String>>,
    pub(super) nodes: Option<Nodes>,
    /// The columns for the name of an organisation.
    pub(super) names_max: usize,
}

/// The families that are shown.
const SHOWN: [&str; 31] = [
    "nudged_backplane_connected",
    "nudged_backplane_cuts_total",
    "nudged_backplane_lag_seconds",
    "nudged_build_info",
    "nudged_connections",
    "nudged_connections_max",
    "nudged_drain_end_timestamp_seconds",
    DRAINING,
    "nudged_events_coalesced_total",
    "nudged_events_delivered_total",
    "nudged_events_published_total",
    "nudged_greetings_total",
    "nudged_history_bytes",
    "nudged_log_lines_dropped_total",
    OPEN,
    "nudged_outbox_connected",
    "nudged_outbox_oldest_seconds",
    "nudged_outbox_rows",
    "nudged_proxy_protocol_refused_total",
    "nudged_refused_total",
    "nudged_streams_closed_total",
    "nudged_streams_max",
    "nudged_streams_open",
    "nudged_streams_opened_total",
    "nudged_sweep_seconds_bucket",
    "nudged_tls_certificate_expiry_timestamp_seconds",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

/// 1 while the server is being stopped or replaced.
pub(super) const DRAINING: &str = "nudged_draining";

/// 1 if the server has no key.
pub(super) const OPEN: &str = "nudged_open";

pub(super) fn is_shown(family: &str) -> bool {
    SHOWN.contains(&family)
}

// ===== impl View =====

impl View {
    /// All lines, for at most `height` rows: organisations, then warnings, give way to the numbers.
    pub(super) fn lines(&self, now: SystemTime, height: usize) -> Vec<Line> {
        let mut lines = vec![self.title(now)];
        let (warnings, rows) = (self.warnings(now), self.rows());
        let room = height.saturating_sub(rows.len() + 3).max(1);
        if warnings.len() > room {
            let more = warnings.len() - room + 1;
            lines.extend(warnings.into_iter().take(room - 1));
            lines.push(Line::new(Alert, format!("! and {more} more")));
        } else {
            lines.extend(warnings);
        }
        lines.push(Line::default());
        lines.extend(rows);
        lines.extend(self.org_lines(height.saturating_sub(lines.len())));
        lines.truncate(height);
        lines
    }

    fn title(&self, now: SystemTime) -> Line {
        let build =
            self.history.last().and_then(|last| last.by("nudged_build_info", "version").next());
        let version = build.map(|(version, _)| format!(" {version}")).unwrap_or_default();
        let (style, state) = self.state(now);
        let mut line = Line::new(Bold, format!("nudged{version}  ")).and(style, state);
        // One that is away may have ended.
        let start = self.history.value("process_start_time_seconds");
        if let Some(start) = start.filter(|_| self.trouble.is_none()) {
            line = line.and(Plain, format!("  up {}", span(since(now, start))));
        }
        line.and(Dim, format!("  {}", self.url))
    }

    fn state(&self, now: SystemTime) -> (Style, String) {
        if self.trouble.is_some() {
            return (Alert, "unreachable".into());
        }
        match self.history.value(DRAINING) {
            Some(draining) if draining > 0.0 => {
                let end = self.history.value("nudged_drain_end_timestamp_seconds");
                let left = end.map(|end| span(until(now, end))).unwrap_or_default();
                (Alert, format!("draining, at most {left} left"))
            }
            _ if self.unready.is_some() => (Alert, "not ready".into()),
            _ => (Bold, "serving".into()),
        }
    }

    /// The streams that came back with an id in the last minute, and how many of them resumed.
    fn returned(&self) -> (f64, f64) {
        let of = |kind| self.history.growth("nudged_greetings_total", "kind", kind);
        (of("resumed") + of("reread"), of("resumed"))
    }

    /// The organisations, in so many lines; none if that is too few.
    fn org_lines(&self, height: usize) -> Vec<Line> {
        let orgs = match &self.orgs {
            Some(Ok(orgs)) if height > 2 => orgs,
            Some(Err(why)) if height > 1 => {
                return vec![Line::default(), Line::new(Dim, format!("organisations: {why}"))];
            }
            _ => return Vec::new(),
        };
        let width = self.names_max;
        let title = format!("organisations (of {})", count(orgs.total as f64));
        let head =
            format!("{title:<width$} {:>10} {:>10} {:>13}", "members", "public", "publishes/s");
        let mut lines = vec![Line::default(), Line::new(Bold, head)];
        lines.extend(orgs.orgs.iter().take(height - 2).map(|org| {
            // A longer name would move the columns.
            let name: String = org.org.chars().take(width).collect();
            let [members, public] = [org.members, org.public].map(|streams| count(streams as f64));
            let rate = decimal(org.publishes_per_second);
            Line::new(Plain, format!("{name:<width$} {members:>10} {public:>10} {rate:>13}"))
        }));
        lines
    }
}

fn listed(counts: &[(&str, f64)]) -> String {
    let parts: Vec<_> = counts.iter().map(|(name, n)| format!("{name} {}", count(*n))).collect();
    parts.join(", ")
}

fn since(now: SystemTime, timestamp: f64) -> Duration {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    Duration::try_from_secs_f64(now - timestamp).unwrap_or_default()
}

fn until(now: SystemTime, timestamp: f64) -> Duration {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    Duration::try_from_secs_f64(timestamp - now).unwrap_or_default()
}
