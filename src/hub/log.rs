//! What a feed keeps of what was published, as its seats see it: the [`History`] of an org's view, or the
//! [`Backlog`](super::backlog::Backlog) of a topic.

use super::command::Commands;
use super::filter::Filter;
use super::history::History;
use super::seat::Seat;
use super::sweep::EVENTS_PER_WRITE;
use crate::ids::{EventId, Mark, Seq};
use crate::time::Time;
use crate::wire::{Frame, Greeting};

/// Numbered events, which are kept up to some bounds. `round` is that of the seat's [`Seats`](super::seats::Seats).
pub(crate) trait Log {
    /// The number of the newest event.
    fn head(&self) -> Seq;

    /// The time of the first event after a position that is kept.
    fn published_after(&self, position: Seq) -> Option<Time>;

    /// The id of a position.
    fn id(&self, seq: Seq) -> EventId;

    /// The id that a client has which has received what its seat was given.
    fn id_of(&self, seat: &Seat, round: u8) -> EventId;

    /// The position to which a filtered seat can move from its own, since no event up to there can interest it.
    fn skip(&self, position: Seq, filter: Filter) -> Seq;

    /// Whether every event after a position may interest a seat with this filter.
    fn interests(&self, position: Seq, filter: Filter) -> bool;

    /// How many events are kept after the seat's cursor, if these are all that it needs, and no more than one write may
    /// have.
    fn deliverable(&self, seat: &Seat, round: u8) -> Option<usize>;

    /// Appends the newest `count` events, oldest first; all if there are fewer.
    fn push_newest(&self, count: usize, events: &mut Vec<(Seq, Frame)>);

    /// The next event of a seat; `None` if there is none, or it has to get a `connected` first.
    fn next(&self, seat: &Seat, round: u8, commands: Option<&Commands>) -> Option<(Seq, Frame)>;

    /// Whether a seat for which there is no next event has to get a `connected`.
    fn restarts(&self, seat: &Seat, round: u8) -> bool;

    /// Whether a stream that has not begun yet has to begin with `connected`, whatever its id was when it was opened.
    fn restarts_at_first(&self, seat: &Seat, round: u8) -> bool;

    /// Where a seat goes on after a `connected`.
    fn restart(&self) -> Seq;

    /// That `connected`. `applied` is the last record of the log that several servers share.
    fn connected(&mut self, keepalive_s: u32, applied: Option<Mark>) -> Frame;

    /// The id with which a seat begins. `resumes` is that from which its client resumes.
    fn greeting_id(
        &self,
        seat: &Seat,
        greeting: Greeting,
        resumes: Option<EventId>,
        applied: Option<Mark>,
    ) -> EventId;

    /// The keepalive of a filtered seat, which has its position.
    fn ping(&mut self, seat: &Seat, round: u8) -> Frame;

    /// The keepalive of a seat that has received all of the log up to this record.
    fn ping_in_log(&mut self, seat: &Seat, round: u8, applied: Mark) -> Option<Frame>;
}

// ===== impl History =====

impl Log for History {
    fn head(&self) -> Seq {
        self.head()
    }

    fn published_after(&self, position: Seq) -> Option<Time> {
        self.published_after(position)
    }

    fn id(&self, seq: Seq) -> EventId {
        self.id(seq)
    }

    fn id_of(&self, seat: &Seat, round: u8) -> EventId {
        let id = self.id(seat.cursor);
        // An id of the history would count as that of a client that has re-read.
        if seat.is_current(round) { id } else { id.uncovered() }
    }

    #[inline]
    fn skip(&self, position: Seq, filter: Filter) -> Seq {
        self.skip(position, filter)
    }

    #[inline]
    fn interests(&self, position: Seq, filter: Filter) -> bool {
        self.interests(position, filter)
    }

    #[inline]
    fn deliverable(&self, seat: &Seat, round: u8) -> Option<usize> {
        let count = usize::try_from(self.head().since(seat.cursor)).unwrap_or(usize::MAX);
        let near = count <= EVENTS_PER_WRITE && self.covers(seat.cursor);
        (near && seat.is_current(round)).then_some(count)
    }

    fn push_newest(&self, count: usize, events: &mut Vec<(Seq, Frame)>) {
        let newest = self.newest(count);
        let numbers = (self.head().0 + 1 - newest.len() as u64..).map(Seq);
        events.extend(numbers.zip(newest.map(|event| event.frame.clone())));
    }

    fn next(&self, seat: &Seat, round: u8, commands: Option<&Commands>) -> Option<(Seq, Frame)> {
        if seat.cursor == self.head() {
            return None;
        }
        let seq = seat.cursor + 1;
        let frame = if seat.is_current(round) {
            self.get(seq)?.frame.clone()
        } else {
            commands?.event(seq, self)?
        };
        Some((seq, frame))
    }

    fn restarts(&self, seat: &Seat, _: u8) -> bool {
        seat.cursor != self.head() || seat.is_reread_due()
    }

    fn restarts_at_first(&self, seat: &Seat, round: u8) -> bool {
        !seat.is_current(round)
    }

    fn restart(&self) -> Seq {
        self.head()
    }

    fn connected(&mut self, keepalive_s: u32, applied: Option<Mark>) -> Frame {
        self.reread(keepalive_s, applied)
    }

    fn greeting_id(
        &self,
        seat: &Seat,
        greeting: Greeting,
        resumes: Option<EventId>,
        applied: Option<Mark>,
    ) -> EventId {
        self.greeting_id(seat.cursor, greeting, resumes, applied)
    }

    fn ping(&mut self, seat: &Seat, round: u8) -> Frame {
        self.ping(seat.cursor, seat.is_current(round))
    }

    fn ping_in_log(&mut self, seat: &Seat, round: u8, applied: Mark) -> Option<Frame> {
        // An id of the log would count as that of a client that has re-read.
        seat.is_current(round).then(|| self.ping_in_log(seat.cursor, applied)).flatten()
    }
}
