//! A burst window outlives its process, without what it holds, which is appended first.

use super::Coalescer;
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
}
