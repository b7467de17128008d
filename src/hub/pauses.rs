//! When the driver of a shard last went on after a pause: the machine was suspended, the process stopped, or without a
//! CPU. Nothing that clients sent could be read meanwhile, so their silence counts from there.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};
use crate::time::Time;

/// For each length, the end of the last pause that was at least so long.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    ends: [AtomicU64; LENGTHS.len()],
}

/// A shorter delay is no pause.
const LENGTHS: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(8),
    Duration::from_secs(32),
];

// ===== impl Pauses =====

impl Pauses {
    /// A pause of this length has ended.
    pub(crate) fn end(&self, now: Time, length: Duration) {
        for (end, _) in self.ends.iter().zip(LENGTHS).filter(|(_, least)| *least <= length) {
            end.store(now.0, Ordering::Relaxed);
        }
    }

    /// The end of the last pause that matters for silence of this length. One much shorter than it does not: a server
    /// that gets the CPU late again and again would never find a client silent.
    pub(crate) fn last(&self, silence: Duration) -> Time {
        let matters = |least: &Duration| *least <= silence / 3;
        let class = LENGTHS.iter().rposition(matters).unwrap_or(0);
        Time(self.ends[class].load(Ordering::Relaxed))
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use super::*;

    /// SCENARIO: a worker gets the CPU about a second late, again and again; a client is silent for a minute.
    /// BUG: each delay was a pause, from whose end the silence counted anew, so that no client was ever cut.
    /// FIX: only pauses matter that are long, measured by the silence that is allowed.
    #[test]
    fn a_short_pause_matters_for_short_silence_only() {
        let pauses = Pauses::default();
        let ends = |seconds: [u64; 3]| seconds.map(Duration::from_secs).map(|s| pauses.last(s).0);
        pauses.end(Time(70_000), Duration::from_secs(60));
        pauses.end(Time(90_000), Duration::from_secs(5));
        pauses.end(Time(99_000), Duration::from_millis(900));
        pauses.end(Time(99_900), Duration::from_millis(400));
        assert_eq!(ends([1, 10, 60]), [99_000, 90_000, 70_000]);
    }
}
