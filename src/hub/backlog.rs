//! What a topic keeps: its newest events of each class, the bulk ones and the others, and which positions these cover.

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
use crate::ids::{Epoch, EventId, Seq};
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
        }
    }

    /// Appends an event, for which the oldest of its class, and then those that need too much memory, give way.
    pub(crate) fn append(&mut self, message: &Message, now: Time, config: &HubConfig) -> EventId {
        let bulk = message.is_bulk();
        while self.count(bulk) >= config.topic_events.max(1) && self.evict(bulk) {}
        self.head = self.head + 1;
        let id = self.id(self.head);
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

    /// Where a stream begins.
    pub(crate) fn start(&self, start: Start) -> (Greeting, Seq) {
        match start {
            Start::After(id) if self.covers_id(id) => (Greeting::Resumed, id.seq),
            Start::All | Start::After(_) => (Greeting::Connected, self.restart()),
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
        self.ring.bytes() + self.connected.cost()
    }

    /// Whether `id` is of this run, and what was published after it is kept, but for bulk events.
    fn covers_id(&self, id: EventId) -> bool {
        id.epoch == self.epoch && (self.gone..=self.head).contains(&id.seq)
    }

    /// Whether the seat has been notified of all that it misses.
    fn covers(&self, seat: &Seat, round: u8) -> bool {
        seat.cursor >= self.gone || seat.is_current(round)
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
        } else {
            self.gone = event.seq;
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

    /// The index of the first event after the seat's cursor.
    fn next_index(&self, seat: &Seat) -> usize {
        // Most often it is the newest.
        if seat.cursor + 1 == self.head {
            return self.events.len() - 1;
        }
        self.events.partition_point(|event| event.seq <= seat.cursor)
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

    fn id(&self, seq: Seq) -> EventId {
        EventId { epoch: self.epoch, seq }
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
        let count = self.events.len() - self.next_index(seat);
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
        let event = self.events.get(self.next_index(seat))?;
        Some((event.seq, event.frame.clone()))
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

    fn connected(&mut self, keepalive_s: u32) -> Frame {
        let restart = self.restart();
        let (id, memory) = (self.id(restart), self.ring.memory());
        self.connected.get(restart, || Frame::connected_in(memory, id, keepalive_s))
    }

    fn ping(&mut self, _: &Seat, _: u8) -> Frame {
        Frame::ping()
    }
}
