//! What becomes of the records that are read.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Action, CutReason, Follower, Note, RECORD_OVERHEAD, Reopen, State, hex};
use crate::backplane::broker::{Bounds, Entry, Kind, VERSION};
use crate::backplane::payload::{Barrier, Beat, Cause, bounded};
use crate::ids::Mark;
use crate::time::Time;

/// Characters of what another server says of itself.
const NAME_MAX: usize = 32;

// ===== impl Follower =====

impl Follower {
    /// One record that was read. Breaks if reading goes on elsewhere.
    pub(super) fn take(&mut self, entry: Entry, now: Time) -> ControlFlow<()> {
        let (State::Reading(reading), Some(head)) = (&mut self.state, self.head) else {
            return ControlFlow::Break(());
        };
        let mark = Mark { tag: entry.tag, position: entry.position };
        if mark.position <= head.position {
            return self.repeated(mark, head, now);
        }
        if !reading.is_proven || mark.position > head.position + 1 {
            if !self.gaps.are_gone(mark.position) {
                self.reopen(Reopen::Gap);
                return ControlFlow::Break(());
            }
            // They are missing in the log, not on the way from there.
            let before = Mark { tag: 0, position: mark.position - 1 };
            reading.is_proven = true;
            self.tags.clear();
            // A barrier may be missing too.
            self.barriers_up_to = before.position;
            self.actions.push_back(match self.has_applied {
                true => Action::Cut(before, CutReason::Gap),
                false => Action::Begin(mark.position),
            });
        }
        reading.progress = now;
        if self.read_in != reading.bounds.identity {
            self.read_in.clone_from(&reading.bounds.identity);
        }
        self.gaps.close();
        self.follow(entry, mark, now);
        if self.is_outdated(mark) {
            self.reopen(Reopen::Run);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// A record at a position that was read before.
    fn repeated(&mut self, mark: Mark, head: Mark, now: Time) -> ControlFlow<()> {
        let State::Reading(reading) = &mut self.state else { return ControlFlow::Break(()) };
        let known = self.tags.at(mark.position, head.position);
        if known.is_some_and(|tag| tag != mark.tag) {
            if reading.is_proven {
                self.reopen(Reopen::Changed);
            } else {
                let bounds = reading.bounds.clone();
                self.forgot(bounds, now);
            }
            return ControlFlow::Break(());
        }
        // Otherwise a replica that lags repeats it.
        if self.tags.proof(head.position).is_some_and(|proof| proof.is(mark)) {
            reading.is_proven = true;
            reading.progress = now;
        }
        ControlFlow::Continue(())
    }

    /// The next record.
    fn follow(&mut self, entry: Entry, mark: Mark, now: Time) {
        self.head = Some(mark);
        self.has_applied = true;
        self.tags.push(mark.tag);
        self.beats.came(mark, entry.kind, entry.payload.len() + RECORD_OVERHEAD, now);
        let action = match entry.kind {
            _ if entry.version != VERSION => {
                // Of several in a row one cut is enough.
                let before = match self.actions.make_contiguous() {
                    [
                        ..,
                        Action::Note(Note::Versions { records, .. }),
                        Action::Cut(_, CutReason::Version),
                    ] => *records,
                    _ => 0,
                };
                if before > 0 {
                    self.actions.truncate(self.actions.len() - 2);
                }
                let (records, version, position) = (before + 1, entry.version, mark.position);
                let note = Note::Versions { records, version, position };
                self.actions.push_back(Action::Note(note));
                Action::Cut(mark, CutReason::Version)
            }
            Some(Kind::Lines) => Action::Apply(mark, entry.payload),
            Some(Kind::Beat) => {
                self.beat(&entry, mark, now);
                Action::Apply(mark, Bytes::new())
            }
            Some(Kind::Barrier) if self.counts(&entry, mark) => {
                Action::Cut(mark, CutReason::Barrier)
            }
            Some(Kind::Barrier) => Action::Apply(mark, Bytes::new()),
            None => {
                self.actions.push_back(Action::Note(Note::Bad(mark.position)));
                Action::Apply(mark, Bytes::new())
            }
        };
        self.actions.push_back(action);
    }

    /// Whether this record, which was appended after the log was opened, has made another run the one to go by. That may
    /// be the one of now: a primary of Redis takes a new identity when a first replica is attached, and closes no
    /// connection.
    fn is_outdated(&self, mark: Mark) -> bool {
        let State::Reading(reading) = &self.state else { return false };
        let Bounds { newest, identity, .. } = &reading.bounds;
        let is_barrier = self.barriers_up_to == mark.position;
        is_barrier
            && mark.position > *newest
            && self.adopted.has_kind(identity)
            && !self.adopted.is(identity)
    }

    fn beat(&mut self, entry: &Entry, mark: Mark, now: Time) {
        let Some(mut beat) = Beat::parse(&entry.payload) else {
            return self.actions.push_back(Action::Note(Note::Bad(mark.position)));
        };
        // They are written to the server's log, and may be anything.
        for name in [&mut beat.node, &mut beat.nudged] {
            *name = name.chars().take(NAME_MAX).collect();
        }
        let (ours, limits) = (hex(self.rules.node), hex(self.rules.limits));
        // A beat from before may be of a server that is gone.
        if self.loaded && !beat.node.is_empty() {
            self.nodes.saw(&beat.node, beat.node == ours, now);
        }
        let differs = self.loaded && beat.node != ours && beat.limits != limits;
        if differs && self.peers.is_news(&beat.node) {
            let note = Note::OtherLimits { node: beat.node, version: beat.nudged };
            self.actions.push_back(Action::Note(note));
        }
        // A beat may be late. One of an earlier run, after a barrier, must not undo what the barrier says.
        self.adopted.adopt_first(beat.identity);
    }

    /// Whether a barrier counts. It does unless this server has been cut for the same reason since: each decides that for
    /// itself, as not all have read the same barriers before.
    fn counts(&mut self, entry: &Entry, mark: Mark) -> bool {
        self.barriers_up_to = mark.position;
        let Some(barrier) = Barrier::parse(&entry.payload) else {
            // Whatever it is for: to cut loses nothing.
            self.actions.push_back(Action::Note(Note::Bad(mark.position)));
            self.counted_barrier = mark.position;
            self.fulfil(mark, None, 0);
            return true;
        };
        let is_adopted = self.adopted.is(&barrier.identity);
        let counts = match barrier.cause {
            Some(Cause::Identity) => !is_adopted,
            Some(Cause::Forgot) => !is_adopted || barrier.after >= self.counted_barrier,
            Some(Cause::Command) | None => true,
        };
        self.fulfil(mark, barrier.cause, barrier.after);
        if counts {
            self.adopted.adopt(barrier.identity);
            self.counted_barrier = mark.position;
            self.actions.push_back(Action::Note(Note::Barrier(bounded(&barrier.reason))));
        }
        counts
    }

    /// A barrier was read. If one is due for a loss, this one is as good if it counts on every server that has not been
    /// cut since, whatever that has read: it is for a command, or for a loss and no more easily ignored than the one that
    /// is due. One for another run of the broker is ignored where this run has been adopted before.
    fn fulfil(&mut self, mark: Mark, cause: Option<Cause>, after: u64) {
        let Some(due) = &self.barrier_due else { return };
        let is_own = due.tag == Some(mark.tag);
        let is_as_good = match cause {
            Some(Cause::Identity) => false,
            Some(Cause::Forgot) => after >= due.after,
            Some(Cause::Command) | None => true,
        };
        if is_own || due.cause == Cause::Forgot && is_as_good && mark.position > due.after {
            self.barrier_due = None;
            if let State::Reading(reading) = &mut self.state {
                reading.barrier_sent = false;
            }
        }
    }
}
