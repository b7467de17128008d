//! What `/metrics` shows of the log.

use std::time::Duration;

use super::broker::Kind;
use super::follower::CutReason;
use crate::metrics;
use crate::sync::AtomicU64;

/// What has happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    appends: [AtomicU64; AppendResult::ALL.len()],
    append_micros: AtomicU64,
    appends_timed: AtomicU64,
    records: [AtomicU64; 3],
    pub(crate) lines: AtomicU64,
    pub(crate) lines_skipped: AtomicU64,
    /// Barriers and beats that are none, and records of an unknown kind or version.
    pub(crate) records_bad: AtomicU64,
    cuts: [AtomicU64; CutReason::ALL.len()],
    /// How often the log was opened.
    pub(crate) opens: AtomicU64,
}

/// What became of what was to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendResult {
    /// It came back.
    Ok,
    /// It did not in time, could not be appended in time, or there was no room to wait.
    Unavailable,
    /// No record can hold it.
    TooLarge,
    /// The server was stopping.
    Stopping,
}

// ===== impl Counters =====

impl Counters {
    pub(crate) fn appends(&self, result: AppendResult) -> u64 {
        metrics::read(&self.appends[result as usize])
    }

    /// The time that appends took to come back, in seconds, and their number.
    pub(crate) fn append_seconds(&self) -> (f64, u64) {
        let micros = Duration::from_micros(metrics::read(&self.append_micros));
        (micros.as_secs_f64(), metrics::read(&self.appends_timed))
    }

    /// Records that were read.
    pub(crate) fn records(&self, kind: Kind) -> u64 {
        metrics::read(&self.records[kind as usize])
    }

    pub(crate) fn cuts(&self, reason: CutReason) -> u64 {
        metrics::read(&self.cuts[reason as usize])
    }

    pub(super) fn count_append(&self, result: AppendResult) {
        metrics::add(&self.appends[result as usize], 1);
    }

    pub(super) fn time_append(&self, took: Duration) {
        metrics::add(&self.append_micros, u64::try_from(took.as_micros()).unwrap_or(0));
        metrics::add(&self.appends_timed, 1);
    }

    pub(super) fn count_record(&self, kind: Kind) {
        metrics::add(&self.records[kind as usize], 1);
    }

    pub(super) fn count_cut(&self, reason: CutReason) {
        metrics::add(&self.cuts[reason as usize], 1);
    }
}

// ===== impl AppendResult =====

impl AppendResult {
    pub(crate) const ALL: [Self; 4] = [Self::Ok, Self::Unavailable, Self::TooLarge, Self::Stopping];

    /// The label in `nudged_backplane_appends_total{result="…"}`.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unavailable => "unavailable",
            Self::TooLarge => "too_large",
            Self::Stopping => "stopping",
        }
    }
}
