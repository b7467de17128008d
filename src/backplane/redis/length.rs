//! How long the log may get. Redis can bound its entries, not its bytes: each server counts those that it reads, and
//! has its appends trim what is before them.

use std::collections::VecDeque;

/// What is counted of a stream.
#[derive(Debug)]
pub(super) struct Length {
    bytes_max: u64,
    /// Positions, each with the bytes of all that is before it; steps of at least [`Self::step`] bytes.
    marks: VecDeque<(u64, u64)>,
    /// The position of the next record, and the bytes of all before it.
    next: u64,
    bytes: u64,
}

/// Positions that are remembered for the length of a log: it is exact to the 64th part.
const STEPS: u64 = 64;

/// What Redis keeps beside the payload of an entry.
const OVERHEAD: u64 = 64;

// ===== impl Length =====

impl Length {
    pub(super) fn new(bytes_max: usize) -> Self {
        let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        Self { bytes_max, marks: VecDeque::new(), next: 1, bytes: 0 }
    }

    /// The stream has these entries in so many bytes, of which nothing is known but their average.
    pub(super) fn opened(&mut self, oldest: u64, newest: u64, entries: u64, bytes: u64) {
        (self.next, self.bytes) = (newest.saturating_add(1), bytes);
        self.marks.clear();
        let average = (bytes / entries.max(1)).max(1);
        // Older ones are not kept anyway.
        let kept = (self.bytes_max / average).saturating_add(1).min(entries);
        let first = self.next.saturating_sub(kept).max(oldest);
        let step = (self.step() / average).max(1);
        let mut position = first;
        while position < self.next {
            let after = (self.next - position).saturating_mul(average);
            self.marks.push_back((position, bytes.saturating_sub(after)));
            position = position.saturating_add(step);
        }
    }

    /// A record was read. What was counted already is not counted twice.
    pub(super) fn read(&mut self, position: u64, payload_bytes: usize) {
        if position < self.next {
            return;
        }
        if self.marks.back().is_none_or(|(_, before)| self.bytes - before >= self.step()) {
            self.marks.push_back((position, self.bytes));
        }
        let bytes = u64::try_from(payload_bytes).unwrap_or(u64::MAX).saturating_add(OVERHEAD);
        self.next = position.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        // The last of them with enough bytes behind it is what to trim to.
        while self.marks.get(1).is_some_and(|(_, before)| self.bytes - before >= self.bytes_max) {
            self.marks.pop_front();
        }
    }

    /// The position before which nothing has to be kept, if the log is longer than it has to be.
    pub(super) fn oldest_kept(&self) -> Option<u64> {
        let (position, before) = self.marks.front()?;
        (self.bytes - before >= self.bytes_max).then_some(*position)
    }

    fn step(&self) -> u64 {
        (self.bytes_max / STEPS).max(1)
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn what_is_kept_has_the_bytes_that_are_to_be_kept() {
        let mut length = Length::new(64_000);
        let bytes = |position: u64| position % 7 * 100;
        for position in 1..=5000 {
            length.read(position, bytes(position) as usize);
            length.read(position, 1_000_000);
            let Some(oldest) = length.oldest_kept() else { continue };
            let kept: u64 = (oldest..=position).map(|p| bytes(p) + OVERHEAD).sum();
            assert!((64_000..64_000 + 2 * 1000 + 700).contains(&kept), "{position}: {kept}");
            assert!(length.marks.len() <= 66, "{}", length.marks.len());
        }
        assert!(length.oldest_kept().is_some());
    }

    #[test]
    fn a_long_log_is_trimmed_by_its_average() {
        let mut length = Length::new(64_000);
        length.opened(1, 10_000, 10_000, 1_000_000);
        assert_eq!(length.oldest_kept(), Some(10_001 - 641));
        assert!(length.marks.len() <= 66, "{}", length.marks.len());
        length.read(10_001, 10_000);
        assert!(length.oldest_kept().is_some_and(|oldest| oldest > 10_001 - 641));
        length.opened(1, 100, 100, 10_000);
        assert_eq!(length.oldest_kept(), None);
        for (oldest, newest, entries, bytes) in
            [(1, 0, 0, 0), (5, 4, 0, 100), (1, u64::MAX >> 1, 1, u64::MAX), (1, 1, u64::MAX, 1)]
        {
            length.opened(oldest, newest, entries, bytes);
            assert!(length.marks.len() <= 66);
        }
    }
}
