//! Which rows have been committed for long enough: those that a snapshot sees which is so old.

use std::collections::VecDeque;
use std::time::Duration;

/// Snapshots of the database, the newest last.
#[derive(Debug)]
pub(super) struct Snapshots {
    delay: Duration,
    taken: VecDeque<(Duration, String)>,
}

/// Snapshots that are kept. A row waits longer than the delay by the time between two of them, at most.
const SNAPSHOTS_MAX: u32 = 64;

// ===== impl Snapshots =====

impl Snapshots {
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay, taken: VecDeque::new() }
    }

    /// Whether there is a delay at all.
    pub(super) fn are_needed(&self) -> bool {
        !self.delay.is_zero()
    }

    /// The time between two of them, for this delay.
    pub(super) fn pause(delay: Duration) -> Duration {
        delay / (SNAPSHOTS_MAX - 1)
    }

    /// Whether it is time for another one.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        let pause = Self::pause(self.delay);
        self.are_needed() && self.taken.back().is_none_or(|(last, _)| now >= *last + pause)
    }

    /// Adds one that was requested at this time.
    pub(super) fn add(&mut self, snapshot: String, now: Duration) {
        self.taken.push_back((now, snapshot));
        if self.taken.len() > SNAPSHOTS_MAX as usize {
            // The second: the first is the one that counts now, or will first.
            self.taken.remove(1);
        }
    }

    /// The newest one that is old enough.
    pub(super) fn old(&mut self, now: Duration) -> Option<&str> {
        let is_old = |(taken, _): &(Duration, String)| *taken + self.delay <= now;
        while self.taken.get(1).is_some_and(is_old) {
            self.taken.pop_front();
        }
        self.taken.front().filter(|first| is_old(first)).map(|(_, snapshot)| snapshot.as_str())
    }

    /// Forgets them: those of another database would say nothing.
    pub(super) fn clear(&mut self) {
        self.taken.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_counts_once_it_is_as_old_as_the_delay_and_few_are_kept() {
        let second = Duration::from_secs(1);
        let mut snapshots = Snapshots::new(second);
        let mut last_old = None;
        for millis in 0..5_000_u64 {
            let now = Duration::from_millis(millis);
            if snapshots.is_due(now) {
                snapshots.add(millis.to_string(), now);
            }
            assert!(snapshots.taken.len() <= 64);
            let old = snapshots.old(now).map(|taken| taken.parse::<u64>().expect("a time"));
            assert_eq!(old.is_some(), millis >= 1_000);
            if let Some(old) = old {
                assert!(old + 1_000 <= millis && millis <= old + 1_000 + 16, "{old} at {millis}");
            }
            assert!(last_old <= old);
            last_old = old;
        }
        snapshots.clear();
        assert!(snapshots.old(second * 10).is_none());
        assert!(!Snapshots::new(Duration::ZERO).is_due(second));
    }
}
