//! What one view of a channel remembers: a ring of encoded events, and which positions it covers.

#[cfg(feature = "server")]
pub(super) mod state;

use std::collections::VecDeque;
use std::sync::Arc;

use super::base::Base;
use super::encoded_at::EncodedAt;
use super::filter::{Filter, KeyBits};
use super::hints::Hints;
use super::seats::is_sparse;
use crate::ids::{Epoch, EventId, Mark, Seq};
use crate::time::Time;
use crate::wire::{self, Counted, Frame, MemoryUse};

/// One event, encoded.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) frame: Frame,
    pub(crate) published: Time,
}

/// The events `head - len + 1 ..= head` of one epoch. Its bytes are those that it has allocated.
#[derive(Debug)]
pub(crate) struct History {
    epoch: Epoch,
    head: Seq,
    events: VecDeque<Event>,
    /// Bytes of the events' frames.
    frames: usize,
    /// The bytes of the ring, and of the hints, in the memory of the histories of all orgs. The frames count themselves,
    /// also those that streams still refer to.
    ring: Counted,
    /// `connected` at the head.
    reread: EncodedAt,
    /// What is kept for filtered streams, while there are any.
    hints: Option<Box<Hints>>,
    /// What is known of the log that several servers share, if there is one: then ids are of its records.
    base: Option<Box<Base>>,
}

// ===== impl History =====

impl History {
    pub(crate) fn new(epoch: Epoch, memory: Arc<MemoryUse>) -> Self {
        Self {
            epoch,
            head: Seq(0),
            events: VecDeque::new(),
            frames: 0,
            ring: Counted::new(memory),
            reread: EncodedAt::default(),
            hints: None,
            base: None,
        }
    }

    pub(crate) fn append(&mut self, event: Event) {
        self.head = self.head + 1;
        self.frames += event.frame.cost();
        if self.events.len() == self.events.capacity() {
            // Doubling would leave half of a large ring empty.
            self.events.reserve_exact(self.events.len() / 4 + 1);
            self.count_ring();
        }
        self.events.push_back(event);
        if self.hints.is_some() {
            self.change_hints(|hints| hints.push(KeyBits::UNKNOWN));
        }
    }

    /// Moves the head without an event, so that no earlier position is covered: what was published has too many keys or
    /// bytes for an event, and every client has to re-read.
    pub(crate) fn lose(&mut self) {
        self.head = self.head + 1;
        self.clear();
        if self.base.is_some() {
            self.lose_in_log();
        }
    }

    /// Begins another epoch, so that no id from before it is covered, without a change of positions. The events are
    /// kept for streams that have still to take them, if there are any.
    pub(crate) fn renew(&mut self, epoch: Epoch, has_streams: bool) {
        self.epoch = epoch;
        self.reread.clear();
        if let Some(hints) = &mut self.hints {
            hints.renew();
        }
        if !has_streams {
            self.clear();
        }
    }

    pub(crate) fn memory(&self) -> &Arc<MemoryUse> {
        self.ring.memory()
    }

    /// The event on which a client re-reads everything. It puts the client at the head. `keepalive_s` is the same in
    /// each call.
    pub(crate) fn reread(&mut self, keepalive_s: u32, applied: Option<Mark>) -> Frame {
        let (id, memory) = (self.id_at_head(applied), self.ring.memory());
        self.reread.get(id.seq, || Frame::connected_in(memory, id, keepalive_s))
    }

    /// Removes the oldest event, if there is one, and gives back memory as the ring empties.
    pub(crate) fn evict(&mut self) {
        let Some(event) = self.events.pop_front() else { return };
        self.frames -= event.frame.cost();
        let length = self.events.len();
        if self.base.is_some() {
            self.forget_in_log(&event);
        }
        if self.hints.is_some() {
            self.change_hints(|hints| hints.truncate(length));
        }
        // The last event makes room for the next one.
        if length > 0 && is_sparse(length, self.events.capacity()) {
            self.events.shrink_to_fit();
            self.count_ring();
        }
    }

    /// Removes what was published before `oldest`, and gives back its memory.
    pub(crate) fn expire(&mut self, oldest: Time) {
        while self.events.front().is_some_and(|event| event.published < oldest) {
            self.evict();
        }
        if self.events.is_empty() {
            self.clear();
        }
    }

    /// Whether every event after `position` is remembered, so that a client there can be brought up to date
    /// without a loss.
    pub(crate) fn covers(&self, position: Seq) -> bool {
        (self.start()..=self.head).contains(&position)
    }

    /// The position of a client that comes back with this id; `None` if it is not covered. `has` is whether the tail of
    /// the log has a record.
    pub(crate) fn resume(&self, id: EventId, has: impl FnOnce(Mark) -> bool) -> Option<Seq> {
        match &self.base {
            None => (id.epoch == self.epoch && self.covers(id.seq)).then_some(id.seq),
            Some(base) => self.resume_in_log(id, base, has),
        }
    }

    /// The time of the first event after this position that is remembered.
    pub(crate) fn published_after(&self, position: Seq) -> Option<Time> {
        let index = position.0.saturating_sub(self.start().0);
        Some(self.events.get(usize::try_from(index).ok()?)?.published)
    }

    /// The event with this number, if it is remembered.
    pub(crate) fn get(&self, seq: Seq) -> Option<&Event> {
        let index = seq.0.checked_sub(self.start().0 + 1)?;
        self.events.get(usize::try_from(index).ok()?)
    }

    /// The newest `count` events, oldest first; all if there are fewer.
    pub(crate) fn newest(&self, count: usize) -> impl ExactSizeIterator<Item = &Event> {
        self.events.range(self.events.len().saturating_sub(count)..)
    }

    /// Notes which keys the newest event has, for filtered streams.
    pub(super) fn hint(&mut self, bits: KeyBits) {
        self.change_hints(|hints| hints.set_newest(bits));
    }

    pub(super) fn has_hints(&self) -> bool {
        self.hints.is_some()
    }

    /// There is no filtered stream any more.
    pub(super) fn forget_hints(&mut self) {
        self.hints = None;
        self.count_ring();
    }

    /// The position to which a filtered stream at `position` can move, since no event up to there can interest it.
    pub(super) fn skip(&self, mut position: Seq, filter: Filter) -> Seq {
        while position < self.head && !self.may_interest(position + 1, filter) {
            position = position + 1;
        }
        position
    }

    /// Whether every event after `position` may interest a stream with this filter.
    pub(super) fn interests(&self, position: Seq, filter: Filter) -> bool {
        (position.0 + 1..=self.head.0).all(|seq| self.may_interest(Seq(seq), filter))
    }

    /// An event of which nothing is known may interest every stream.
    fn may_interest(&self, seq: Seq, filter: Filter) -> bool {
        let Some(hints) = &self.hints else { return true };
        filter.meets(hints.get(self.head.since(seq)))
    }

    /// The keepalive of a filtered stream at this position, which has its id; with `covered`, a client resumes there.
    pub(super) fn ping(&mut self, position: Seq, covered: bool) -> Frame {
        let id = self.id(position);
        let id = if covered { id } else { id.uncovered() };
        let memory = self.memory().clone();
        if position == self.head {
            self.change_hints(|hints| hints.ping(id, covered, &memory))
        } else {
            Frame::ping_in(&memory, id)
        }
    }

    /// The number of the newest event.
    pub(crate) fn head(&self) -> Seq {
        self.head
    }

    pub(crate) fn id(&self, seq: Seq) -> EventId {
        match &self.base {
            None => EventId { epoch: self.epoch, seq },
            Some(base) => self.id_in_log(seq, base),
        }
    }

    /// The id of the next event.
    pub(crate) fn next_id(&self) -> EventId {
        match &self.base {
            None => EventId { epoch: self.epoch, seq: self.head + 1 },
            Some(base) => Self::next_id_in_log(base),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Bytes that it has allocated for its events.
    pub(crate) fn bytes(&self) -> usize {
        self.frames + self.ring.bytes()
    }

    /// Bytes that it has allocated beside the frames of its events.
    #[cfg(all(any(test, fuzzing), not(nudged_loom)))]
    pub(crate) fn overhead(&self) -> usize {
        let hints = self.hints.as_ref().map_or(0, |hints| hints.frames());
        let base = self.base.as_ref().map_or(0, |base| base.frames());
        self.ring.bytes() + hints + base + self.reread.cost()
    }

    /// What is known of the log that several servers share.
    pub(super) fn base(&self) -> Option<&Base> {
        self.base.as_deref()
    }

    pub(super) fn base_mut(&mut self) -> &mut Option<Box<Base>> {
        &mut self.base
    }

    fn clear(&mut self) {
        self.events = VecDeque::new();
        self.frames = 0;
        if let Some(hints) = &mut self.hints {
            hints.truncate(0);
        }
        self.count_ring();
    }

    /// Changes what is kept for filtered streams.
    #[cold]
    fn change_hints<T>(&mut self, change: impl FnOnce(&mut Hints) -> T) -> T {
        let changed = change(self.hints.get_or_insert_default());
        self.count_ring();
        changed
    }

    /// Counts the memory of the ring and of the hints, which has changed.
    fn count_ring(&mut self) {
        let hints = self.hints.as_ref().map_or(0, |hints| hints.bytes());
        self.ring.set(wire::block(self.events.capacity() * size_of::<Event>()) + hints);
    }

    /// The position before the oldest event.
    fn start(&self) -> Seq {
        Seq(self.head.0 - self.events.len() as u64)
    }
}
