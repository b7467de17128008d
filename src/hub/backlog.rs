//! What a topic keeps: its newest events of each class, the bulk ones and the others, and which positions these cover.

#[cfg(feature = "server")]
pub(super) mod state;

use std::collections::VecDeque;
use std::sync::Arc;

use super::command::Commands;
use super::encoded_at::EncodedAt;
use super::filter::Filter;
use super::log::Log;
use super::seat::Seat;
use super::seats::is_sparse;
use super::sweep::EVENTS_PER_WRITE;
use super::topic::Start;
use crate::config::HubConfig;
use crate::ids::{Epoch, EventId, Mark, Seq, StreamHash};
use crate::time::Time;
use crate::wire::{self, Counted, Frame, Greeting, MemoryUse, Message};

/// Events of one epoch in their order, always with the newest one. A bulk event may be missing between them, without
/// notice.
///
/// Bulk events may be older than others that are gone. So a stream that was notified of the gap is behind these, while
/// it receives what is kept, and must not be notified again. It has missed something if the last event that is gone, and
/// was not bulk, comes after its cursor, and has gone since it was notified: each such event begins a new round of the
/// [`Seats`](super::seats::Seats).
#[derive(Debug)]
pub(crate) struct Backlog {
    epoch: Epoch,
    head: Seq,
    events: VecDeque<Kept>,
    /// How many of them are bulk.
    bulk: usize,
    /// The last event that is gone and was not bulk.
    gone: Seq,
    /// Bytes of the events' frames.
    frames: usize,
    /// The bytes of the ring, in the memory of all topics. The frames count themselves, also those that streams still
    /// refer to.
    ring: Counted,
    /// `connected` before the oldest event.
    connected: EncodedAt,
    /// Where it is in the log that servers share, if there is one.
    log: Option<Box<InLog>>,
}

/// Where a backlog is in a log that servers share. Its events have ids of that log's records.
#[derive(Debug)]
struct InLog {
    stream: StreamHash,
    /// A client that has everything up to this record has missed nothing that is gone, but for bulk events. An earlier
    /// id is not covered.
    base: Mark,
    /// The position of the last record that it has followed, whether that had something for it or not.
    through: u64,
    /// The keepalive with the id of the log's last record.
    ping: EncodedAt,
}

/// One event.
#[derive(Debug)]
struct Kept {
    seq: Seq,
    bulk: bool,
    published: Time,
    frame: Frame,
}

// ===== impl Backlog =====

impl Backlog {
    pub(crate) fn new(epoch: Epoch, memory: Arc<MemoryUse>) -> Self {
        Self {
            epoch,
            head: Seq(0),
            events: VecDeque::new(),
            bulk: 0,
            gone: Seq(0),
            frames: 0,
            ring: Counted::new(memory),
            connected: EncodedAt::default(),
            log: None,
        }
    }

    /// One of a topic in a log, for which what came before `base` is unknown. It gets what came since, up to the record
    /// at `through`.
    pub(super) fn in_log(
        stream: StreamHash,
        base: Mark,
        through: u64,
        memory: Arc<MemoryUse>,
    ) -> Self {
        let log = Some(Box::new(InLog { stream, base, through, ping: EncodedAt::default() }));
        Self { log, ..Self::new(stream.epoch(), memory) }
    }

    /// Appends an event, for which the oldest of its class, and then those that need too much memory, give way.
    pub(crate) fn append(&mut self, message: &Message, now: Time, config: &HubConfig) -> EventId {
        self.append_with(None, message, now, config)
    }

    /// The same with an id of the log.
    pub(super) fn append_from_log(
        &mut self,
        id: EventId,
        message: &Message,
        now: Time,
        config: &HubConfig,
    ) {
        self.append_with(Some(id), message, now, config);
    }

    fn append_with(
        &mut self,
        id: Option<EventId>,
        message: &Message,
        now: Time,
        config: &HubConfig,
    ) -> EventId {
        let bulk = message.is_bulk();
        while self.count(bulk) >= config.topic_events.max(1) && self.evict(bulk) {}
        self.head = self.head + 1;
        let id = id.unwrap_or(EventId { epoch: self.epoch, seq: self.head });
        let frame = Frame::message_in(self.ring.memory(), id, message);
        // Publishers read the clock before they come to the lock.
        let published = self.events.back().map_or(now, |newest| newest.published.max(now));
        self.frames += frame.cost();
        if self.events.len() == self.events.capacity() {
            // Doubling would leave half of a large ring empty.
            self.events.reserve_exact(self.events.len() / 4 + 1);
            self.count_ring();
        }
        self.events.push_back(Kept { seq: self.head, bulk, published, frame });
        self.bulk += usize::from(bulk);
        while self.bytes() > config.topic_bytes && self.give_way() {}
        id
    }

    /// Removes the event that is missed least: the oldest bulk event, or else the oldest one, but not the newest of
    /// all. Returns whether there was one.
    pub(crate) fn give_way(&mut self) -> bool {
        let newest = self.events.back().is_some_and(|newest| newest.bulk);
        let has = |bulk: bool| self.count(bulk) > usize::from(newest == bulk);
        let bulk = has(true);
        (bulk || has(false)) && self.evict(bulk)
    }

    /// What came before this record is unknown, also whether it was an event: every stream is notified of that, and
    /// then gets what is kept.
    pub(super) fn lose(&mut self, mark: Mark) {
        self.head = self.head + 1;
        self.gone = self.head;
        self.rebase(mark);
    }

    /// Follows the record at this position. Returns whether it has not done so yet.
    pub(super) fn follow(&mut self, position: u64) -> bool {
        let Some(log) = &mut self.log else { return false };
        let is_new = position > log.through;
        log.through = log.through.max(position);
        is_new
    }

    /// The log begins anew with this record, whose position may be that of another one: what came before it is unknown.
    pub(super) fn cut(&mut self, mark: Mark) {
        self.lose(mark);
        if let Some(log) = &mut self.log {
            log.through = mark.position;
        }
    }

    /// Where a stream begins. `is_known` tells whether the log has this very record.
    pub(crate) fn start(
        &self,
        start: Start,
        is_known: impl FnOnce(Mark) -> bool,
    ) -> (Greeting, Seq) {
        match start {
            Start::After(id) => match self.position_of(id, is_known) {
                Some(seq) => (Greeting::Resumed, seq),
                None => (Greeting::Connected, self.restart()),
            },
            Start::All => (Greeting::Connected, self.restart()),
            Start::Now => (Greeting::Connected, self.head),
            Start::Since(time) => {
                let first = self.events.partition_point(|event| event.published < time);
                let first = self.events.get(first).map(|event| event.seq);
                (Greeting::Connected, first.map_or(self.head, before))
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The last event that is gone and was not bulk.
    pub(crate) fn gone(&self) -> Seq {
        self.gone
    }

    /// Bytes that it has allocated for its events.
    pub(crate) fn bytes(&self) -> usize {
        self.frames + self.ring.bytes()
    }

    /// The numbers of the events that are kept.
    #[cfg(all(test, not(nudged_loom)))]
    pub(crate) fn numbers(&self) -> impl Iterator<Item = Seq> {
        self.events.iter().map(|event| event.seq)
    }

    /// Bytes that it has allocated beside the frames of its events.
    #[cfg(all(test, not(nudged_loom)))]
    pub(crate) fn overhead(&self) -> usize {
        let ping = self.log.as_ref().map_or(0, |log| log.ping.cost());
        self.ring.bytes() + self.connected.cost() + ping
    }

    /// The position of a client with this id, if what was published after it is kept, but for bulk events.
    fn position_of(&self, id: EventId, is_known: impl FnOnce(Mark) -> bool) -> Option<Seq> {
        if let Some(log) = &self.log {
            return self.position_in(log, id, is_known);
        }
        let covered = id.epoch == self.epoch && (self.gone..=self.head).contains(&id.seq);
        covered.then_some(id.seq)
    }

    fn position_in(
        &self,
        log: &InLog,
        id: EventId,
        is_known: impl FnOnce(Mark) -> bool,
    ) -> Option<Seq> {
        let mark = Mark::of(id, log.stream);
        if mark.tag == 0 {
            return None;
        }
        // Events before that may be bulk ones, or of records that the log has lost.
        let first = self.events.partition_point(|event| event.seq <= self.gone);
        let after = |event: &Kept| event.position() > id.seq.0;
        let end = first + self.events.range(first..).take_while(|event| !after(event)).count();
        let before = self.events.range(first..end);
        let same = before.clone().rev().take_while(|event| event.position() == id.seq.0);
        if let Some(event) = same.into_iter().find(|event| event.frame.id() == id) {
            return Some(event.seq);
        }
        let covered = mark.position >= log.base.position && is_known(mark);
        covered.then(|| before.last().map_or(self.gone, |event| event.seq))
    }

    /// The id of a client that has what there was up to this position.
    fn id_in(&self, log: &InLog, seq: Seq) -> EventId {
        let next = self.events.partition_point(|event| event.seq <= seq);
        let last = next.checked_sub(1).and_then(|index| self.events.get(index));
        if let Some(id) = last.filter(|event| event.seq > self.gone) {
            return id.frame.id();
        }
        // A client that has the record at the base has all of its events.
        let is_split =
            self.events.get(next).is_some_and(|event| event.position() <= log.base.position);
        if seq >= self.gone && !is_split {
            return log.base.id(log.stream, 0);
        }
        let uncovered = Mark { tag: 0, position: log.base.position };
        last.map_or_else(|| uncovered.id(log.stream, 0), |event| event.frame.id())
    }

    /// The same where everything up to this record has been published: a client that is at the head has all of it.
    fn id_at(&self, seq: Seq, applied: Option<Mark>) -> EventId {
        match (&self.log, applied) {
            (Some(log), Some(applied)) if seq == self.head && self.has_all_of(applied) => {
                applied.id(log.stream, 0)
            }
            _ => self.id(seq),
        }
    }

    /// Whether no event is of a later record than this, which has been published.
    fn has_all_of(&self, applied: Mark) -> bool {
        let last = self.events.back().filter(|event| event.seq > self.gone);
        let base = self.log.as_ref().map_or(0, |log| log.base.position);
        applied.position >= last.map_or(base, Kept::position)
    }

    /// The base of what is kept is now this record.
    fn rebase(&mut self, mark: Mark) {
        if let Some(log) = &mut self.log {
            log.base = mark;
            log.ping.clear();
            self.connected.clear();
        }
    }

    /// Whether the seat has been notified of all that it misses, and need not be notified again.
    fn covers(&self, seat: &Seat, round: u8) -> bool {
        seat.is_current(round) || seat.cursor >= self.gone && !seat.is_reread_due()
    }

    /// Events of one class.
    fn count(&self, bulk: bool) -> usize {
        if bulk { self.bulk } else { self.events.len() - self.bulk }
    }

    /// Removes the oldest event of a class, if there is one, and gives back memory as the ring empties.
    fn evict(&mut self, bulk: bool) -> bool {
        let Some(index) = self.events.iter().position(|event| event.bulk == bulk) else {
            return false;
        };
        let Some(event) = self.events.remove(index) else { return false };
        self.frames -= event.frame.cost();
        if bulk {
            self.bulk -= 1;
        } else if event.seq > self.gone {
            // Of those before, streams have been notified.
            self.gone = event.seq;
            if let Some(log) = &self.log {
                self.rebase(Mark::of(event.frame.id(), log.stream));
            }
        }
        // The last event makes room for the next one.
        if !self.is_empty() && is_sparse(self.events.len(), self.events.capacity()) {
            self.events.shrink_to_fit();
            self.count_ring();
        }
        true
    }

    /// Counts the ring's memory, which has changed.
    fn count_ring(&mut self) {
        self.ring.set(wire::block(self.events.capacity() * size_of::<Kept>()));
    }

    /// The index of the first event after a position.
    fn index_after(&self, position: Seq) -> usize {
        // Most often it is the newest.
        if self.events.back().is_some_and(|newest| newest.seq == position + 1) {
            return self.events.len() - 1;
        }
        self.events.partition_point(|event| event.seq <= position)
    }
}

// ===== impl Kept =====

impl Kept {
    /// The position of its record in the log.
    fn position(&self) -> u64 {
        self.frame.id().seq.0
    }
}

/// The position before an event.
fn before(seq: Seq) -> Seq {
    Seq(seq.0 - 1)
}

impl Log for Backlog {
    fn head(&self) -> Seq {
        self.head
    }

    fn published_after(&self, position: Seq) -> Option<Time> {
        Some(self.events.get(self.index_after(position))?.published)
    }

    fn id(&self, seq: Seq) -> EventId {
        match &self.log {
            None => EventId { epoch: self.epoch, seq },
            Some(log) => self.id_in(log, seq),
        }
    }

    fn id_of(&self, seat: &Seat, _: u8) -> EventId {
        self.id(seat.cursor)
    }

    /// Its streams have no filters.
    fn skip(&self, position: Seq, _: Filter) -> Seq {
        position
    }

    fn interests(&self, _: Seq, _: Filter) -> bool {
        true
    }

    fn deliverable(&self, seat: &Seat, round: u8) -> Option<usize> {
        let count = self.events.len() - self.index_after(seat.cursor);
        (count <= EVENTS_PER_WRITE && self.covers(seat, round)).then_some(count)
    }

    fn push_newest(&self, count: usize, events: &mut Vec<(Seq, Frame)>) {
        let newest = self.events.range(self.events.len().saturating_sub(count)..);
        events.extend(newest.map(|event| (event.seq, event.frame.clone())));
    }

    fn next(&self, seat: &Seat, round: u8, _: Option<&Commands>) -> Option<(Seq, Frame)> {
        if seat.cursor == self.head || !self.covers(seat, round) {
            return None;
        }
        let index = self.index_after(seat.cursor);
        let event = self.events.get(index)?;
        // What comes after the last one is lost, and was notified.
        let seq = if index + 1 == self.events.len() { self.head } else { event.seq };
        Some((seq, event.frame.clone()))
    }

    fn restarts(&self, seat: &Seat, round: u8) -> bool {
        !self.covers(seat, round)
    }

    fn restarts_at_first(&self, seat: &Seat, round: u8) -> bool {
        !self.covers(seat, round)
    }

    fn restart(&self) -> Seq {
        self.events.front().map_or(self.head, |event| before(event.seq))
    }

    fn connected(&mut self, keepalive_s: u32, applied: Option<Mark>) -> Frame {
        let restart = self.restart();
        let (id, memory) = (self.id_at(restart, applied), self.ring.memory());
        self.connected.get(restart, || Frame::connected_in(memory, id, keepalive_s))
    }

    fn greeting_id(
        &self,
        seat: &Seat,
        _: Greeting,
        resumes: Option<EventId>,
        applied: Option<Mark>,
    ) -> EventId {
        match (&self.log, resumes) {
            // Its own id is proven.
            (Some(_), Some(id)) if seat.cursor != self.head => id,
            _ => self.id_at(seat.cursor, applied),
        }
    }

    fn ping(&mut self, _: &Seat, _: u8) -> Frame {
        Frame::ping()
    }

    fn ping_in_log(&mut self, seat: &Seat, _: u8, applied: Mark) -> Option<Frame> {
        // At the head, a seat has been notified of all that it misses.
        if seat.cursor != self.head || !self.has_all_of(applied) || applied.tag == 0 {
            return None;
        }
        let (log, memory) = (self.log.as_mut()?, self.ring.memory());
        let id = applied.id(log.stream, 0);
        Some(log.ping.get(id.seq, || Frame::ping_in(memory, id)))
    }
}
