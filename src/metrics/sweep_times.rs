//! How long sweeps took.

use std::time::Duration;

use super::add;
use crate::sync::AtomicU64;

/// How long passes over seats took, in a histogram.
#[derive(Debug, Default)]
pub(crate) struct SweepTimes {
    /// By [`SweepTimes::BOUNDS_MS`], and then those that took longer.
    counts: [AtomicU64; Self::BOUNDS_MS.len() + 1],
    sum_ms: AtomicU64,
}

// ===== impl SweepTimes =====

impl SweepTimes {
    /// The upper bounds of the buckets. The hub's time is in milliseconds.
    pub(crate) const BOUNDS_MS: [u64; 13] =
        [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

    pub(crate) fn add(&self, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        add(&self.counts[Self::bucket(millis)], 1);
        add(&self.sum_ms, millis);
    }

    /// The bucket of what took so long.
    fn bucket(millis: u64) -> usize {
        Self::BOUNDS_MS.partition_point(|bound| *bound < millis)
    }

    /// The counts of the buckets, of which the last one has no bound.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn counts(&self) -> &[AtomicU64] {
        &self.counts
    }

    /// What all took together, in milliseconds.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn sum_ms(&self) -> &AtomicU64 {
        &self.sum_ms
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn a_bound_is_part_of_its_bucket() {
        let last = SweepTimes::BOUNDS_MS.len();
        for (millis, bucket) in
            [(0, 0), (1, 0), (2, 1), (3, 2), (5, 2), (6, 3), (10_000, last - 1), (10_001, last)]
        {
            let times = SweepTimes::default();
            times.add(Duration::from_millis(millis));
            let counts: Vec<_> = times.counts().iter().map(read).collect();
            assert_eq!(counts.iter().sum::<u64>(), 1);
            assert_eq!((counts[bucket], read(times.sum_ms())), (1, millis), "{millis}");
        }
    }
}
