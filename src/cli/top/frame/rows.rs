//! The numbers, a row each.

use super::super::ops::Nodes;
use super::super::text::Style::{Bold, Dim, Plain};
use super::super::text::{Line, NONE, bytes, count, decimal, percent, seconds, span};
use super::{View, listed};

/// With fewer streams, most of the memory is that of the process itself, not theirs.
const STREAMS_MIN: f64 = 1_000.0;

impl View {
    pub(super) fn rows(&self) -> Vec<Line> {
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
        let each = memory.zip(streams.filter(|streams| *streams >= STREAMS_MIN));
        let mut beside: Vec<String> = Vec::new();
        beside.extend(each.map(|(memory, streams)| {
            format!("{} a stream, all included", bytes(memory / streams))
        }));
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
}

/// A number with its name, and what is beside it.
fn row(name: &str, number: Option<String>, beside: String) -> Line {
    let number = number.unwrap_or_else(|| NONE.into());
    Line::new(Plain, format!("{name:<14} "))
        .and(Bold, format!("{number:>11}"))
        .and(Dim, format!("  {beside}"))
}
