//! A burst window outlives its process, without what it holds, which is appended first.

use std::time::Duration;

use super::Coalescer;
use crate::hub::state::Passed;
use crate::time::Time;

impl Coalescer {
    /// For how long it is still open, in milliseconds.
    pub(in crate::hub) fn save(&self, now: Time) -> u64 {
        let Self {
            closes,
            held: _, // it was released
        } = self;
        closes.0.saturating_sub(now.0)
    }

    /// It was open for so many milliseconds then. A window lasts `coalesce` at most here.
    pub(in crate::hub) fn restore(&mut self, window_ms: u64, passed: Passed, coalesce: Duration) {
        let window = Duration::from_millis(passed.left(window_ms)).min(coalesce);
        self.open(passed.now().after(window));
    }
}
