//! What a run has measured, and the columns of the tables.

use self::Part::{Events, Memory, Time};
use crate::clients::Stated;

/// The figures of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// From the return: until the last response, until the last event of those that were missed, and until an event
    /// that is published after the last response has reached all.
    pub(crate) responses_s: Option<f64>,
    pub(crate) caught_up_s: Option<f64>,
    pub(crate) served_s: Option<f64>,
    /// Events that had to be published until one reached all.
    pub(crate) live: usize,
    /// Connects without a good response, and why.
    pub(crate) retried: u64,
    pub(crate) reasons: Vec<String>,
    /// Streams that the server ended.
    pub(crate) ended: u64,
    pub(crate) missed: u64,
    pub(crate) duplicates: u64,
    pub(crate) stated: Stated,
    /// Processor time of the server for each client, with the event after it.
    pub(crate) cpu_us: f64,
    /// Bytes of PSS: without a client; with all, before the cut; the peak of the return; with all, after it; and after
    /// the end of all.
    pub(crate) fresh: u64,
    pub(crate) before: u64,
    pub(crate) peak: u64,
    pub(crate) settled: u64,
    pub(crate) closed: u64,
    /// The part of a processor that the clients' thread needed during the return.
    pub(crate) generator: f64,
}

/// A column of a table.
pub(crate) struct Column {
    pub(crate) part: Part,
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) digits: usize,
    pub(crate) read: fn(&Figures) -> Option<f64>,
}

/// What a table is about. All columns in one would be too wide for a page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    Events,
    Time,
    Memory,
}

const MIB: f64 = 1024.0 * 1024.0;

pub(crate) const COLUMNS: [Column; 18] = [
    column(Events, "missed", "events missed", 0, |run| total(run.missed)),
    column(Events, "duplicates", "events twice", 0, |run| total(run.duplicates)),
    column(Events, "stated_complete", "stated: complete", 0, |run| count(run.stated.complete)),
    column(Events, "stated_reread", "stated: read again", 0, |run| count(run.stated.reread)),
    column(Events, "stated_nothing", "stated: nothing", 0, |run| count(run.stated.nothing)),
    column(Events, "retried", "connects retried", 0, |run| total(run.retried)),
    column(Events, "ended", "streams ended by the server", 0, |run| total(run.ended)),
    column(Time, "responses_s", "all have a response (s)", 2, |run| run.responses_s),
    column(Time, "caught_up_s", "last missed event (s)", 2, |run| run.caught_up_s),
    column(Time, "served_s", "all have the event after it (s)", 2, |run| run.served_s),
    column(Time, "live_events", "events until one has reached all", 0, |run| count(run.live)),
    column(Time, "cpu_us", "CPU a client (µs)", 0, |run| Some(run.cpu_us)),
    column(Time, "generator", "share of the clients' thread", 2, |run| Some(run.generator)),
    column(Memory, "pss_fresh_mib", "MiB without clients", 1, |run| mib(run.fresh)),
    column(Memory, "pss_before_mib", "MiB before the cut", 1, |run| mib(run.before)),
    column(Memory, "pss_peak_mib", "MiB at the peak", 1, |run| mib(run.peak)),
    column(Memory, "pss_settled_mib", "MiB after the return", 1, |run| mib(run.settled)),
    column(Memory, "pss_closed_mib", "MiB after the end of all", 1, |run| mib(run.closed)),
];

const fn column(
    part: Part,
    key: &'static str,
    title: &'static str,
    digits: usize,
    read: fn(&Figures) -> Option<f64>,
) -> Column {
    Column { part, key, title, digits, read }
}

fn count(count: usize) -> Option<f64> {
    Some(count as f64)
}

fn total(total: u64) -> Option<f64> {
    Some(total as f64)
}

fn mib(bytes: u64) -> Option<f64> {
    Some(bytes as f64 / MIB)
}
