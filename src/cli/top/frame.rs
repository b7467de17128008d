//! What the terminal shows: the lines of one frame.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::history::History;
use super::ops::{Nodes, Orgs};
use super::text::Style::{Alert, Bold, Dim, Plain};
use super::text::{Line, NONE, bytes, count, decimal, percent, seconds, span};

/// Everything that is known of a server.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) url: String,
    pub(super) history: History,
    /// Since when it does not answer, and why.
    pub(super) trouble: Option<(SystemTime, String)>,
    /// The organisations, or why they are not shown.
    pub(super) orgs: Option<Result<Orgs, String>>,
    pub(super) nodes: Option<Nodes>,
    /// The columns for the name of an organisation.
    pub(super) names_max: usize,
}

/// The families that are shown.
const SHOWN: [&str; 35] = [
    "nudged_backplane_connected",
    "nudged_backplane_cuts_total",
    "nudged_backplane_lag_seconds",
    "nudged_build_info",
    "nudged_connections",
    "nudged_connections_max",
    "nudged_drain_end_timestamp_seconds",
    "nudged_draining",
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
    "nudged_channels",
    "nudged_topics",
    "nudged_internal_connections",
    "nudged_topics_bytes",
];

/// 1 if the server has no key.
pub(super) const OPEN: &str = "nudged_open";

/// Above this share of a limit there is a warning.
const NEARLY_FULL: f64 = 0.9;

/// Below this share of streams that resume there is one, if so many streams came back.
const RESUMED_MIN: f64 = 0.5;
const RETURNED_MIN: f64 = 20.0;

/// A certificate that ends sooner should have been replaced.
const CERTIFICATE: Duration = Duration::from_secs(14 * 86_400);

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
        let line = Line::new(Bold, format!("nudged{version} ")).and(Plain, &*self.url);
        let (style, state) = self.state(now);
        let line = line.and(Plain, "  ").and(style, state);
        match self.history.value("process_start_time_seconds") {
            Some(start) => line.and(Dim, format!("  up {}", span(since(now, start)))),
            None => line,
        }
    }

    fn state(&self, now: SystemTime) -> (super::text::Style, String) {
        if self.trouble.is_some() {
            return (Alert, "unreachable".into());
        }
        match self.history.value("nudged_draining") {
            Some(draining) if draining > 0.0 => {
                let end = self.history.value("nudged_drain_end_timestamp_seconds");
                let left = end.map(|end| span(until(now, end))).unwrap_or_default();
                (Alert, format!("draining, at most {left} left"))
            }
            _ => (Bold, "serving".into()),
        }
    }

    /// In words, the most urgent first.
    fn warnings(&self, now: SystemTime) -> Vec<Line> {
        let Self { history, trouble, .. } = self;
        let mut warnings = Vec::new();
        let mut warn = |text: String| warnings.push(Line::new(Alert, format!("! {text}")));
        if let Some((since, why)) = trouble {
            let time = span(now.duration_since(*since).unwrap_or_default());
            warn(format!("no numbers for {time}: {why}"));
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

    /// The streams that came back with an id in the last minute, and how many of them resumed.
    fn returned(&self) -> (f64, f64) {
        let of = |kind| self.history.growth("nudged_greetings_total", "kind", kind);
        (of("resumed") + of("reread"), of("resumed"))
    }

    fn rows(&self) -> Vec<Line> {
        let history = &self.history;
        let value = |name: &str| history.value(name);
        let kind = |kind| {
            let open = history.last().and_then(|last| last.at("nudged_streams_open", "kind", kind));
            format!("{kind} {}", count(open.unwrap_or_default()))
        };
        let streams = value("nudged_streams_open");
        let of_max = |used: &str, max: &str| match (value(used), value(max)) {
            (Some(used), Some(max)) if max > 0.0 => {
                format!("of {} ({})", count(max), percent(used / max))
            }
            _ => String::new(),
        };
        let rate = |name| history.rate(name);
        let joined = rate("nudged_events_coalesced_total")
            .zip(rate("nudged_events_published_total").filter(|rate| *rate > 0.0))
            .map(|(joined, published)| {
                format!("{} joined into one event", percent(joined / published))
            });
        let (returned, resumed) = self.returned();
        let resumed = match returned > 0.0 {
            true => format!(
                "{} resumed, of {} in a minute",
                percent(resumed / returned),
                count(returned)
            ),
            false => String::new(),
        };
        let memory = value("process_resident_memory_bytes");
        let each = memory.zip(streams.filter(|streams| *streams > 0.0));
        let mut beside: Vec<String> = Vec::new();
        beside
            .extend(each.map(|(memory, streams)| format!("{} a stream", bytes(memory / streams))));
        beside
            .extend(value("nudged_history_bytes").map(|kept| format!("histories {}", bytes(kept))));
        beside.extend(rate("process_cpu_seconds_total").map(|cpu| format!("CPU {}", percent(cpu))));
        let sweep = |quantile| history.quantile("nudged_sweep_seconds", quantile).map(seconds);
        let last = sweep(0.99).map(|p99| format!("p99 {p99}, from a publish to the last stream"));
        let ends = history.grown("nudged_streams_closed_total", "reason");
        let ended = ends.iter().map(|(_, ended)| ended).sum();
        let is_known = value("nudged_streams_closed_total").is_some();

        let mut rows = vec![
            row(
                "streams",
                streams.map(count),
                [kind("member"), kind("public"), kind("topic")].join("  "),
            ),
            row(
                "connections",
                value("nudged_connections").map(count),
                of_max("nudged_connections", "nudged_connections_max"),
            ),
            row(
                "publishes/s",
                rate("nudged_events_published_total").map(decimal),
                joined.unwrap_or_default(),
            ),
            row("deliveries/s", rate("nudged_events_delivered_total").map(decimal), String::new()),
            row("connects/s", rate("nudged_streams_opened_total").map(decimal), resumed),
            row("memory", memory.map(bytes), beside.join(", ")),
            row("sweep p50", sweep(0.5), last.unwrap_or_default()),
            row(
                "streams ended",
                is_known.then(|| count(ended)),
                format!("in {}  {}", span(history.span()), listed(&ends)),
            ),
        ];
        rows.extend(self.backplane());
        rows.extend(value("nudged_outbox_rows").map(|waiting| {
            let oldest = value("nudged_outbox_oldest_seconds").unwrap_or_default();
            row(
                "outbox rows",
                Some(count(waiting)),
                format!("the oldest waits for {}", seconds(oldest)),
            )
        }));
        rows
    }

    fn backplane(&self) -> Option<Line> {
        let value = |name| self.history.value(name);
        let lag = value("nudged_backplane_lag_seconds")?;
        let cuts = value("nudged_backplane_cuts_total").unwrap_or_default();
        let mut beside = format!("{} cuts", count(cuts));
        if let Some(Nodes { nodes }) = &self.nodes {
            beside += &format!(", {} nodes", nodes.len());
            let oldest = nodes.iter().map(|node| node.last_beat_seconds).fold(0.0, f64::max);
            beside += &format!(", the last beat of each within {}", seconds(oldest));
        }
        Some(row("backplane lag", Some(seconds(lag)), beside))
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

/// A number with its name, and what is beside it.
fn row(name: &str, number: Option<String>, beside: String) -> Line {
    let number = number.unwrap_or_else(|| NONE.into());
    Line::new(Plain, format!("{name:<14} "))
        .and(Bold, format!("{number:>11}"))
        .and(Dim, format!("  {beside}"))
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

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::super::exposition::Exposition;
    use super::*;

    const NOW: u64 = 1_000_000;

    /// What is shown after these two texts, ten seconds apart.
    fn shown(before: &str, after: &str, height: usize) -> String {
        let (mut view, start) = (View { names_max: 20, ..View::default() }, Instant::now());
        for (seconds, text) in [(0, before), (10, after)] {
            let numbers = Exposition::parse(text, is_shown);
            view.history.push(start + Duration::from_secs(seconds), numbers);
        }
        let mut text = String::new();
        for line in view.lines(UNIX_EPOCH + Duration::from_secs(NOW), height) {
            line.write(&mut text, 200, false);
            text.push('\n');
        }
        text
    }

    #[test]
    fn what_may_need_an_operator_is_in_words() {
        for (before, after, words) in [
            ("", "nudged_open 1", "! no key is configured: every client"),
            (
                "",
                "nudged_draining 1\nnudged_drain_end_timestamp_seconds 1000061",
                "draining, at most 1m 1s left",
            ),
            (
                "",
                "nudged_connections 91\nnudged_connections_max 100",
                "! connections: 91 % of those",
            ),
            ("", "process_open_fds 95\nprocess_max_fds 100", "! open files: 95 % of those"),
            ("", "nudged_backplane_connected 0", "! the shared log cannot be used"),
            ("", "nudged_outbox_connected 0", "! the outbox is not drained"),
            (
                "nudged_greetings_total{kind=\"resumed\"} 100\nnudged_greetings_total{kind=\"reread\"} 0",
                "nudged_greetings_total{kind=\"resumed\"} 110\nnudged_greetings_total{kind=\"reread\"} 30",
                "! 25 % of the streams that came back in a minute resumed",
            ),
            (
                "nudged_streams_closed_total{reason=\"stalled\"} 3",
                "nudged_streams_closed_total{reason=\"stalled\"} 5",
                "! 2 streams ended in a minute because they were not read",
            ),
            (
                "nudged_refused_total{limit=\"org\"} 1",
                "nudged_refused_total{limit=\"org\"} 8",
                "! refused in a minute, by limit: org 7",
            ),
            (
                "nudged_proxy_protocol_refused_total{reason=\"v1\"} 1",
                "nudged_proxy_protocol_refused_total{reason=\"v1\"} 4",
                "! headers of the PROXY protocol refused in a minute: v1 3",
            ),
            (
                "nudged_log_lines_dropped_total 1",
                "nudged_log_lines_dropped_total 2",
                "! log lines are dropped",
            ),
            (
                "",
                "nudged_tls_certificate_expiry_timestamp_seconds 1086400",
                "! the certificate expires in 1d 0h",
            ),
            (
                "",
                "nudged_tls_certificate_expiry_timestamp_seconds 1",
                "! the certificate has expired",
            ),
        ] {
            let text = shown(before, after, 24);
            assert!(text.contains(words), "{words}:\n{text}");
        }
        let calm = "nudged_open 0\nnudged_draining 0\nnudged_connections 1\nnudged_connections_max 100\n\
                    nudged_streams_closed_total{reason=\"stalled\"} 3\nnudged_backplane_connected 1\n\
                    nudged_tls_certificate_expiry_timestamp_seconds 9000000\nnudged_streams_max 0\n\
                    nudged_greetings_total{kind=\"reread\"} 900";
        let text = shown(calm, calm, 24);
        assert!(text.contains("serving") && !text.contains('!'), "{text}");
    }

    #[test]
    fn the_numbers_are_those_between_two_looks() {
        let before = "nudged_events_published_total 0\nnudged_events_coalesced_total 0\n\
                      nudged_events_delivered_total 10\nprocess_cpu_seconds_total 1\n\
                      nudged_streams_opened_total 0";
        let after = "nudged_events_published_total 100\nnudged_events_coalesced_total 25\n\
                     nudged_events_delivered_total 1000010\nprocess_cpu_seconds_total 6\n\
                     nudged_streams_opened_total 5\nnudged_backplane_lag_seconds 0.0012\n\
                     nudged_outbox_rows 12\nnudged_outbox_oldest_seconds 3\n\
                     nudged_streams_open{kind=\"member\"} 1200\nnudged_streams_open{kind=\"topic\"} 34\n\
                     process_resident_memory_bytes 1263616\nprocess_start_time_seconds 900000";
        let text = shown(&format!("{before}\nprocess_start_time_seconds 900000"), after, 24);
        // One blank in place of several.
        let text: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for line in [
            "nudged serving up 1d 3h",
            "streams 1,234 member 1,200 public 0 topic 34",
            "publishes/s 10.0 25 % joined into one event",
            "deliveries/s 100,000",
            "connects/s 0.5",
            "memory 1.2 MiB 1.0 KiB a stream, CPU 50 %",
            "streams ended - in 10s",
            "backplane lag 1.2 ms 0 cuts",
            "outbox rows 12 the oldest waits for 3.0 s",
        ] {
            assert!(text.iter().any(|shown| shown == line), "{line:?}: {text:#?}");
        }
    }

    #[test]
    fn what_has_no_room_gives_way_to_the_numbers() {
        let many = "nudged_open 1\nnudged_outbox_connected 0\nnudged_backplane_connected 0\n\
                    nudged_connections 99\nnudged_connections_max 100";
        for (height, warnings) in [(24, 4), (14, 3), (12, 1), (3, 1)] {
            let text = shown("", many, height);
            assert!(text.lines().count() <= height, "{height}:\n{text}");
            assert_eq!(
                text.lines().filter(|line| line.starts_with('!')).count(),
                warnings,
                "{height}:\n{text}"
            );
            assert_eq!(text.contains("more\n"), warnings < 4, "{height}:\n{text}");
        }
    }
}
