//! Warnings about records, in the log of the server at most once a minute.

use std::time::Duration;

use super::outage::{Outage, PERIOD};

/// What was found since it was last written to the server's log.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    bad: u64,
    skipped: u64,
    /// The position of the last bad record.
    bad_at: u64,
    versions: u64,
    /// The last unknown version, and its position.
    version: (u32, u64),
    /// Servers that are configured otherwise, and the last of them with its version.
    others: u64,
    other: (String, String),
    next: Duration,
    pub(super) outage: Outage,
    pub(super) barriers: Allowance,
}

/// Lines that may be written in a minute.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    written: u32,
    dropped: u64,
    until: Duration,
}

const LINES_A_PERIOD: u32 = 20;

// ===== impl Warnings =====

impl Warnings {
    /// A record is not what it says.
    pub(super) fn bad(&mut self, position: u64) {
        self.bad += 1;
        self.bad_at = position;
    }

    /// Records are of versions that this server does not know, the last of this one.
    pub(super) fn versions(&mut self, records: u64, version: u32, position: u64) {
        self.versions += records;
        self.version = (version, position);
    }

    /// Lines of a record are unusable.
    pub(super) fn skipped(&mut self, lines: u64) {
        self.skipped += lines;
    }

    /// A server has other limits, or another public view.
    pub(super) fn other_limits(&mut self, node: String, version: String) {
        self.others += 1;
        self.other = (node, version);
    }

    pub(super) fn tick(&mut self, now: Duration) {
        self.barriers.tick(now);
        if now < self.next || self.bad + self.skipped + self.versions + self.others == 0 {
            return;
        }
        self.next = now + PERIOD;
        if self.versions > 0 {
            let (records, (version, position)) = (self.versions, self.version);
            tracing::warn!(
                records,
                version,
                position,
                "records of a version that this server does not know; update it"
            );
        }
        if self.bad + self.skipped > 0 {
            let (records, lines) = (self.bad, self.skipped);
            let position = (self.bad > 0).then_some(self.bad_at);
            tracing::warn!(
                records,
                lines,
                position,
                "unusable records or lines in the log were skipped"
            );
        }
        if self.others > 0 {
            let (servers, (node, version)) = (self.others, &self.other);
            tracing::warn!(
                servers,
                node,
                version,
                "a server of the same log has other limits or another public view; configure them alike"
            );
        }
        (self.bad, self.skipped, self.versions, self.others) = (0, 0, 0, 0);
    }
}

// ===== impl Allowance =====

impl Allowance {
    /// Whether a line may be written.
    pub(super) fn take(&mut self) -> bool {
        let is_allowed = self.written < LINES_A_PERIOD;
        if is_allowed {
            self.written += 1
        } else {
            self.dropped += 1
        }
        is_allowed
    }

    fn tick(&mut self, now: Duration) {
        if now < self.until {
            return;
        }
        if self.dropped > 0 {
            let lines = self.dropped;
            tracing::warn!(lines, "further barriers in the log were not written here");
        }
        *self = Self { until: now + PERIOD, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SCENARIO: a record of a newer version is read, and later a bad one, within a minute.
    /// BUG: the warning that tells the owner to update the server named the position of the bad one.
    /// FIX: each warning has its own position.
    #[test]
    fn a_warning_names_the_position_of_its_own_record() {
        let mut warnings = Warnings::default();
        warnings.versions(3, 2, 10);
        warnings.bad(20);
        assert_eq!((warnings.versions, warnings.version, warnings.bad_at), (3, (2, 10), 20));
    }

    #[test]
    fn lines_of_barriers_are_bounded() {
        let mut lines = Allowance::default();
        lines.tick(Duration::ZERO);
        assert_eq!((0..1_000).filter(|_| lines.take()).count(), 20);
        lines.tick(Duration::from_secs(59));
        assert!(!lines.take());
        lines.tick(Duration::from_secs(60));
        assert!(lines.take());
    }
}
