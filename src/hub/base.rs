//! What a feed knows of the log that several servers share. Without a log it has none of this, and its ids count its own
//! events.
//!
//! With a log, the id of an event is that of its last record, and is read back from its encoded frame; cursors count
//! events as they do without.

use std::sync::Arc;

use super::encoded_at::EncodedAt;
use super::history::{Event, History};
use crate::ids::{Epoch, EventId, Mark, Seq, StreamHash};
use crate::wire::{Frame, Greeting, MemoryUse};

/// Where a feed begins to cover ids of the log, and how far it has followed it.
#[derive(Debug)]
pub(crate) struct Base {
    /// The names of the stream's ids.
    pub(super) stream: StreamHash,
    /// A client that has everything up to this record is at `seq`. No earlier id is covered.
    mark: Mark,
    /// The position of that client. Events up to there, if any are kept, are for streams that have still to re-read.
    seq: Seq,
    /// The last record that the feed has followed. What is appended next has its id.
    next: Mark,
    /// There was a record since the feed was filled from the log, which its events do not show yet.
    fresh: bool,
    /// The last record before those of which a burst window may hold keys, if it may: what is held comes after it.
    held: Option<Mark>,
    /// The keepalive with the id of the log's last record.
    ping: EncodedAt,
}

// ===== impl Base =====

impl Base {
    /// A feed without events, of which a client that has everything up to `mark` has missed nothing.
    pub(super) fn new(stream: StreamHash, mark: Mark) -> Self {
        Self {
            stream,
            mark,
            seq: Seq(0),
            next: mark,
            fresh: false,
            held: None,
            ping: EncodedAt::default(),
        }
    }

    /// A record is about to be appended. Nothing changes if the feed has it already.
    pub(super) fn follow(&mut self, mark: Mark) {
        if mark.position > self.next.position {
            (self.next, self.fresh) = (mark, true);
        }
    }

    /// The feed has been filled up to this record.
    pub(super) fn fill(&mut self, mark: Mark) {
        (self.next, self.fresh) = (mark, false);
    }

    /// The event with this id is gone, and with it what was before.
    pub(super) fn forget(&mut self, seq: Seq, id: EventId) {
        if seq > self.seq {
            (self.seq, self.mark) = (seq, Mark::of(id, self.stream));
        }
    }

    /// What was appended last is no event, and clients have to re-read it: they are at `seq` then.
    pub(super) fn lose(&mut self, seq: Seq) {
        (self.seq, self.mark) = (seq, self.next);
    }

    /// No id from before this record is covered, which may be one of another log.
    pub(super) fn renew(&mut self, seq: Seq, mark: Mark) {
        (self.seq, self.mark) = (seq, mark);
        self.ping.clear();
    }

    /// The log begins anew with this record.
    pub(super) fn restart(&mut self, mark: Mark) {
        (self.next, self.fresh) = (mark, false);
    }

    /// The keepalive with the id of this record, encoded once for all streams.
    pub(super) fn ping(&mut self, mark: Mark, memory: &Arc<MemoryUse>) -> Frame {
        let id = mark.id(self.stream, 0);
        self.ping.get(id.seq, || Frame::ping_in(memory, id))
    }

    /// Bytes of its frame.
    #[cfg(all(any(test, fuzzing), not(nudged_loom)))]
    pub(super) fn frames(&self) -> usize {
        self.ping.cost()
    }
}

// ===== impl History =====

impl History {
    /// The position of a client that comes back with this id. What proves the id is the record's tag, in the tail or in
    /// the id of an event that is kept.
    #[cold]
    pub(super) fn resume_in_log(
        &self,
        id: EventId,
        base: &Base,
        has: impl FnOnce(Mark) -> bool,
    ) -> Option<Seq> {
        let mark = Mark::of(id, base.stream);
        if mark.tag == 0 || mark.position < base.mark.position {
            return None;
        }
        let seq = self.last_up_to(mark.position, base);
        let is_kept = seq > base.seq && self.id(seq) == id;
        (is_kept || mark.is(base.mark) || has(mark)).then_some(seq)
    }

    /// The last position that is covered of a client that has everything up to this position of the log.
    fn last_up_to(&self, position: u64, base: &Base) -> Seq {
        let (mut first, mut beyond) = (base.seq.0, self.head().0 + 1);
        while beyond - first > 1 {
            let middle = first + (beyond - first) / 2;
            let event = self.get(Seq(middle)).expect("events after the base are kept");
            if event.frame.id().seq.0 <= position { first = middle } else { beyond = middle }
        }
        Seq(first)
    }

    /// The id of a position: that of the event before it. One that is not covered has an id that resumes nothing.
    #[cold]
    pub(super) fn id_in_log(&self, seq: Seq, base: &Base) -> EventId {
        if seq == base.seq {
            return base.mark.id(base.stream, 0);
        }
        let event = self.get(seq).map(|event| event.frame.id());
        event.unwrap_or_else(|| Mark::NONE.id(base.stream, 0))
    }

    #[cold]
    pub(super) fn next_id_in_log(base: &Base) -> EventId {
        base.next.id(base.stream, 0)
    }

    /// This event, which was the oldest one, is gone.
    #[cold]
    pub(super) fn forget_in_log(&mut self, event: &Event) {
        let seq = Seq(self.head().0 - self.len() as u64);
        if let Some(base) = self.base_mut() {
            base.forget(seq, event.frame.id());
        }
    }

    /// What was appended last is no event.
    #[cold]
    pub(super) fn lose_in_log(&mut self) {
        let head = self.head();
        if let Some(base) = self.base_mut() {
            base.lose(head);
        }
    }

    /// The last record that it shows.
    fn last_mark(&self, base: &Base) -> Mark {
        if self.head() == base.seq {
            base.mark
        } else {
            Mark::of(self.id(self.head()), base.stream)
        }
    }

    /// The id of a client that has read everything since the record `applied` reached every stream. Without a log, or
    /// before its first record, it is that of the head.
    pub(super) fn id_at_head(&self, applied: Option<Mark>) -> EventId {
        match (self.base(), applied) {
            (Some(base), Some(applied)) => {
                applied.or_later(self.last_mark(base)).id(base.stream, 0)
            }
            _ => self.id(self.head()),
        }
    }

    /// The id with which a stream at this position begins. A client that resumes has come with the id `resumes`.
    pub(super) fn greeting_id(
        &self,
        seq: Seq,
        greeting: Greeting,
        resumes: Option<EventId>,
        applied: Option<Mark>,
    ) -> EventId {
        let Some(base) = self.base() else { return self.id(seq) };
        // What the burst window holds comes after what a client has that reads nothing now.
        let has_all =
            seq == self.head() && (greeting == Greeting::Connected || base.held.is_none());
        if has_all {
            return self.id_at_head(applied);
        }
        // Its own id is proven. That of the event before its position may be of a record that nothing proves.
        resumes.unwrap_or_else(|| self.id(seq))
    }

    /// The keepalive of a stream at this position, if it has received all that the log had up to this record. While the
    /// burst window holds something, the last record before that takes its place: a client that comes back with it gets
    /// what is held. That is no step back, as nothing later had been applied when the first key was held.
    pub(super) fn ping_in_log(&mut self, seq: Seq, applied: Mark) -> Option<Frame> {
        let head = self.head();
        let base = self.base()?;
        if seq != head {
            return None;
        }
        let mark = base.held.unwrap_or(applied).or_later(self.last_mark(base));
        // One without a tag would take the place of one that resumes.
        if mark.tag == 0 {
            return None;
        }
        let memory = self.memory().clone();
        self.base_mut().as_mut().map(|base| base.ping(mark, &memory))
    }

    /// Whether what is appended next is something new. Without a log it is.
    pub(super) fn is_fresh(&self) -> bool {
        self.base().is_none_or(|base| base.fresh)
    }

    /// The burst window holds keys of a record that comes after this one.
    #[cfg(feature = "server")]
    pub(super) fn hold(&mut self, before: Mark) {
        if let Some(base) = self.base_mut() {
            base.held.get_or_insert(before);
        }
    }

    /// The burst window holds nothing any more.
    pub(super) fn release(&mut self) {
        if let Some(base) = self.base_mut() {
            base.held = None;
        }
    }

    /// No id from before this record is covered. Returns the epoch, which stays.
    pub(super) fn renew_in_log(&mut self, mark: Mark) -> Epoch {
        let head = self.head();
        let base = self.base_mut().as_mut().expect(IN_LOG);
        base.renew(head, mark);
        base.stream.epoch()
    }
}

#[cfg(feature = "server")]
impl History {
    /// It has no events yet. A client that has everything up to this record has missed none.
    pub(super) fn begin_in_log(&mut self, mark: Mark) {
        let stream = StreamHash::of_epoch(self.id(Seq(0)).epoch);
        *self.base_mut() = Some(Box::new(Base::new(stream, mark)));
    }

    /// It has been filled with what the log has up to this record, also with what the burst window still holds.
    pub(super) fn end_fill(&mut self, mark: Mark) {
        self.base_mut().as_mut().expect(IN_LOG).fill(mark);
    }

    /// Whether it has not followed the log up to this record.
    pub(super) fn is_before(&self, mark: Mark) -> bool {
        self.base().is_some_and(|base| mark.position > base.next.position)
    }

    /// What is appended from now on is of this record. Nothing changes if it has that already.
    pub(super) fn follow(&mut self, mark: Mark) {
        self.base_mut().as_mut().expect(IN_LOG).follow(mark);
    }

    /// The log begins anew with this record. Returns whether that is news.
    pub(super) fn restart_in_log(&mut self, mark: Mark) -> bool {
        let head = self.head();
        let base = self.base_mut().as_mut().expect(IN_LOG);
        let is_known = base.mark.is(mark) && base.seq == head;
        base.restart(mark);
        !is_known
    }
}

const IN_LOG: &str = "the hub follows a log";
