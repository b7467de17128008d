//! Where reading begins when the log is opened.

use super::adopted::Adopted;
use super::{Action, CutReason, Due, Follower, RECORD_OVERHEAD, Reading, Reopen, State};
use crate::backplane::broker::{Bounds, Entry};
use crate::backplane::payload::Cause;
use crate::ids::Mark;
use crate::time::Time;

// ===== impl Follower =====

impl Follower {
    /// Compares what the log has with what was read before.
    pub(super) fn compare(&mut self, bounds: Bounds, until: Time, now: Time) {
        let Some(head) = self.head else { return self.begin(bounds, None, now) };
        let is_another = self.has_applied && self.read_in != bounds.identity;
        if is_another && let Some(due) = &mut self.barrier_due {
            due.after = due.after.max(bounds.newest);
        }
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
            // What the other run had not is not known here: it may have gone on beside this one.
            _ if is_another => self.forgot(bounds, now),
            // The next record follows the one that was read last, but nothing proves it.
            _ => self.begin(bounds, self.has_applied.then_some(CutReason::Trimmed), now),
        }
    }

    /// Decides where reading starts. What was read before is lost for this reason, or there was nothing.
    fn begin(&mut self, bounds: Bounds, lost: Option<CutReason>, now: Time) {
        let records = (bounds.newest + 1).saturating_sub(bounds.oldest);
        if records <= self.rules.measured {
            self.start(bounds.oldest, bounds, lost, now);
        } else {
            let from = bounds.newest + 1 - self.rules.measured;
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
            // Nothing has come since it was cut there. Nothing is missing, unless it is another log, which has been
            // trimmed to the same position since: with a trusted disk, or replicas, that is another run. A broker
            // with one copy may keep its run, but then all that this other log had since it began, up to that
            // position, has come and gone while this server could not read a single record.
            Some(_) if self.is_cut_at(before.position, &bounds) => {}
            Some(reason) => self.actions.push_back(Action::Cut(before, reason)),
            None => self.actions.push_back(Action::Begin(start)),
        }
        self.tags.clear();
        self.head = Some(before);
        self.began_in.clone_from(&bounds.identity);
        // As a server that has just started: what barriers and beats say is among the records to come.
        self.adopted = Adopted::default();
        (self.counted_barrier, self.barriers_up_to) = (0, before.position);
        let (is_proven, barrier_sent) = (true, false);
        self.state = State::Reading(Reading { bounds, is_proven, barrier_sent, progress: now });
    }

    fn is_cut_at(&self, position: u64, bounds: &Bounds) -> bool {
        let is_there = self.head.is_some_and(|head| head.position == position);
        self.tags.is_empty() && is_there && (position == 0 || self.began_in == bounds.identity)
    }

    /// The log has lost what it had. Servers that had not read it cannot notice, and until they read the barrier they give
    /// out ids of the log as it is now. A client that comes here with such an id must not resume: so this server is cut by
    /// its own barrier too, although its streams re-read already.
    pub(super) fn forgot(&mut self, bounds: Bounds, now: Time) {
        let earlier = self.barrier_due.filter(|due| due.cause == Cause::Forgot);
        // One barrier for both.
        let known = self.barriers_up_to.max(earlier.map_or(0, |due| due.after));
        let after = if self.read_in != bounds.identity {
            // The other run may have gone on beside this one, as a primary of Redis does that is cut off from its
            // replicas: what was read there last is newer than what this run had before it was opened.
            known.max(bounds.newest)
        } else if bounds.may_lose_last {
            known
        } else {
            // Each barrier in a new log was appended after the loss, at whatever position.
            0
        };
        self.barrier_due = Some(Due { cause: Cause::Forgot, after, tag: None });
        self.begin(bounds, Some(CutReason::Forgot), now);
    }

    pub(super) fn reopen(&mut self, reason: Reopen) {
        self.state = State::Closed;
        self.actions.push_back(Action::Reopen(reason));
    }
}
