//! What becomes of the records that are read.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Action, CutReason, Follower, Note, RECORD_OVERHEAD, Reopen, State, hex};
use crate::backplane::broker::{Entry, Kind, VERSION};
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
            self.actions.push_back(match self.has_applied {
                true => Action::Cut(before, CutReason::Gap),
                false => Action::Begin(mark.position),
            });
        }
        reading.progress = now;
        self.gaps.close();
        self.follow(entry, mark, now);
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
                if let Some(Action::Cut(last, CutReason::Version)) = self.actions.back_mut() {
                    *last = mark;
                    return;
                }
                self.actions.push_back(Action::Note(Note::Version(entry.version, mark.position)));
                Action::Cut(mark, CutReason::Version)
            }
            Some(Kind::Lines) => Action::Apply(mark, entry.payload),
            Some(Kind::Beat) => {
                self.beat(&entry, mark);
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

    fn beat(&mut self, entry: &Entry, mark: Mark) {
        let Some(mut beat) = Beat::parse(&entry.payload) else {
            return self.actions.push_back(Action::Note(Note::Bad(mark.position)));
        };
        // They are written to the server's log, and may be anything.
        for name in [&mut beat.node, &mut beat.nudged] {
            *name = name.chars().take(NAME_MAX).collect();
        }
        let (ours, limits) = (hex(self.rules.node), hex(self.rules.limits));
        // A beat from before may be of a server that is gone.
        let differs = self.loaded && beat.node != ours && beat.limits != limits;
        if differs && self.peers.is_news(&beat.node) {
            let note = Note::OtherLimits { node: beat.node, version: beat.nudged };
            self.actions.push_back(Action::Note(note));
        }
        // A beat may be late. One of an earlier run, after a barrier, must not undo what the barrier says.
        self.adopted.adopt_first(beat.identity);
    }

    /// Whether a barrier counts, which all servers decide alike by what is before it in the log.
    fn counts(&mut self, entry: &Entry, mark: Mark) -> bool {
        let known = self.newest_barrier.unwrap_or_default();
        self.last_barrier = Some(mark);
        let Some(barrier) = Barrier::parse(&entry.payload) else {
            // Whatever it is for: to cut loses nothing.
            self.actions.push_back(Action::Note(Note::Bad(mark.position)));
            self.newest_barrier = Some(mark);
            return true;
        };
        let is_adopted = self.adopted.is(&barrier.identity);
        let counts = match barrier.cause {
            Some(Cause::Identity) => !is_adopted,
            Some(Cause::Forgot) => !is_adopted || barrier.after >= known.position,
            Some(Cause::Command) | None => true,
        };
        // It was appended after what is missing had been lost, unless it was there before.
        self.barrier_due = self.barrier_due.filter(|due| {
            let was_there = mark.position < due.known.position || due.known.is(mark);
            was_there && due.tag != Some(mark.tag)
        });
        if counts {
            self.adopted.adopt(barrier.identity);
            self.newest_barrier = Some(mark);
            self.actions.push_back(Action::Note(Note::Barrier(bounded(&barrier.reason))));
        }
        counts
    }
}
