//! Events with numbers, which every server passes on in the data of its own events, whatever else it puts there.

use std::ops::Range;

/// How often a client has received each event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received(Vec<u8>);

const MARK: &str = "event-";
const DIGITS: usize = 6;

/// The text that stands for an event: letters, digits and a dash, which no encoding changes.
pub(crate) fn mark(number: usize) -> String {
    format!("{MARK}{number:0DIGITS$}")
}

/// The numbers of the events in a text, in its order.
pub(crate) fn numbers(text: &str) -> impl Iterator<Item = usize> {
    text.match_indices(MARK).filter_map(|(at, _)| {
        let digits = text.get(at + MARK.len()..at + MARK.len() + DIGITS)?;
        digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
    })
}

// ===== impl Received =====

impl Received {
    /// Returns whether this is the first time.
    pub(crate) fn add(&mut self, number: usize) -> bool {
        if self.0.len() <= number {
            self.0.resize(number + 1, 0);
        }
        self.0[number] = self.0[number].saturating_add(1);
        self.0[number] == 1
    }

    /// How many of these have not arrived.
    pub(crate) fn missed(&self, numbers: Range<usize>) -> u64 {
        let times = |number: &usize| self.0.get(*number).copied().unwrap_or(0);
        numbers.filter(|number| times(number) == 0).count() as u64
    }

    /// How many arrivals were not the first of their event.
    pub(crate) fn duplicates(&self) -> u64 {
        self.0.iter().map(|times| u64::from(times.saturating_sub(1))).sum()
    }
}
