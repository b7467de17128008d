//! When it is written to the server's log that something it needs is not there: the shared log, or a database.

use std::time::Duration;

/// What has been written about whether it is there.
#[derive(Debug, Default)]
pub(crate) enum Outage {
    /// Nothing.
    #[default]
    Start,
    /// It is there.
    Over,
    /// It is not, for this reason. A change of it may be written from this time on.
    Since(String, Duration),
}

/// What is over, so that something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The start: nothing has been written.
    Start,
    /// An outage, which was written as a warning: so is its end.
    Outage,
}

/// How often the reason of an outage, or a warning of one kind, may be written.
pub(crate) const PERIOD: Duration = Duration::from_secs(60);

// ===== impl Outage =====

impl Outage {
    /// It is there, and of use. Returns what is over, if that is to be written.
    pub(crate) fn end(&mut self) -> Option<Ended> {
        match std::mem::replace(self, Self::Over) {
            Self::Start => Some(Ended::Start),
            Self::Since(..) => Some(Ended::Outage),
            Self::Over => None,
        }
    }

    /// It is not there. Returns whether that is to be written: at its beginning, and once a minute if the reason
    /// has changed, since the first one is often just that a connection was lost.
    pub(crate) fn go_on(&mut self, why: &str, now: Duration) -> bool {
        let next = match self {
            Self::Start | Self::Over => now,
            Self::Since(written, next) if written != why && now >= *next => now + PERIOD,
            Self::Since(..) => return false,
        };
        *self = Self::Since(why.into(), next);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SCENARIO: the broker's disk is full, so it refuses every record, and serves reading. BUG: that the log is followed,
    /// and is not, was written ten times a second. FIX: it counts as followed once a record of this server has come back,
    /// and one outage is written once, with its next reason.
    #[test]
    fn an_outage_is_written_at_its_beginning_and_when_its_reason_changes() {
        let seconds = Duration::from_secs;
        let mut outage = Outage::default();
        assert!(outage.go_on("lost", seconds(1)));
        assert!(!outage.go_on("lost", seconds(2)));
        assert!(outage.go_on("the disk is full", seconds(3)));
        for second in 4..63 {
            assert!(
                !outage.go_on(["lost", "the disk is full"][second % 2], seconds(second as u64))
            );
        }
        assert!(outage.go_on("lost", seconds(63)));
        assert_eq!((outage.end(), outage.end()), (Some(Ended::Outage), None));
        assert!(outage.go_on("lost", seconds(64)));
        assert_eq!(Outage::default().end(), Some(Ended::Start));
    }
}
