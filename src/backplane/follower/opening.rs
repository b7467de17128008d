//! Where reading begins when the log is opened.

use super::adopted::Adopted;
use super::{Action, CutReason, Due, Follower, RECORD_OVERHEAD, Reading, Reopen, State};
use crate::backplane::broker::{Bounds, Entry};
use crate::backplane::payload::Cause;
use crate::ids::Mark;
use crate::time::Time;

/// Records that are read to learn how large they are.
const MEASURED: u64 = 1_024;

// ===== impl Follower =====

impl Follower {
    /// Compares what the log has with what was read before.
    pub(super) fn compare(&mut self, bounds: Bounds, until: Time, now: Time) {
        let Some(head) = self.head else { return self.begin(bounds, None, now) };
        if bounds.newest < head.position {
            self.state = State::Short { until, bounds };
            return;
        }
        match self.tags.proof(head.position) {
            Some(proof) if proof.position >= bounds.oldest => {
                let (is_proven, barrier_sent) = (false, false);
                self.state =
                    State::Reading(Reading { bounds, is_proven, barrier_sent, progress: now });
            }
            // The next record follows the one that was read last, but nothing proves it.
            _ => self.begin(bounds, self.has_applied.then_some(CutReason::Trimmed), now),
        }
    }

    /// Decides where reading starts. What was read before is lost for this reason, or there was nothing.
    fn begin(&mut self, bounds: Bounds, lost: Option<CutReason>, now: Time) {
        let records = (bounds.newest + 1).saturating_sub(bounds.oldest);
        if records <= MEASURED {
            self.start(bounds.oldest, bounds, lost, now);
        } else {
            let from = bounds.newest + 1 - MEASURED;
            self.state = State::Measuring { bounds, from, lost, since: now };
        }
    }

    /// The newest records are known: as many are read as fit.
    pub(super) fn measured(
        &mut self,
        newest: &[Entry],
        from: u64,
        bounds: Bounds,
        lost: Option<CutReason>,
        now: Time,
    ) {
        let bytes: usize = newest.iter().map(|entry| entry.payload.len() + RECORD_OVERHEAD).sum();
        let records = (self.rules.tail_bytes / (bytes / newest.len()).max(1)) as u64;
        // What was measured fits in any case, or is little.
        let start = from.min((bounds.newest + 1).saturating_sub(records)).max(bounds.oldest);
        self.start(start, bounds, lost, now);
    }

    /// Reads from `start` on.
    fn start(&mut self, start: u64, bounds: Bounds, lost: Option<CutReason>, now: Time) {
        let before = Mark { tag: 0, position: start - 1 };
        match lost {
            // Nothing has come since the log began, and nothing is missing.
            Some(_) if start == 1 && self.head.is_some_and(|head| head.position == 0) => {}
            Some(reason) => self.actions.push_back(Action::Cut(before, reason)),
            None => self.actions.push_back(Action::Begin(start)),
        }
        self.tags.clear();
        self.head = Some(before);
        // As a server that has just started: what barriers and beats say is among the records to come.
        self.adopted = Adopted::default();
        (self.newest_barrier, self.last_barrier) = (None, None);
        let (is_proven, barrier_sent) = (true, false);
        self.state = State::Reading(Reading { bounds, is_proven, barrier_sent, progress: now });
    }

    /// The log has lost what it had. Servers that had not read it cannot notice.
    pub(super) fn forgot(&mut self, bounds: Bounds, now: Time) {
        let known = self.last_barrier.unwrap_or_default();
        self.barrier_due = Some(Due { cause: Cause::Forgot, known, tag: None });
        self.begin(bounds, Some(CutReason::Forgot), now);
    }

    pub(super) fn reopen(&mut self, reason: Reopen) {
        self.state = State::Closed;
        self.actions.push_back(Action::Reopen(reason));
    }
}
