//! What one channel remembers: a ring of encoded events, and the question whether a position is
//! still covered by it.

use std::collections::VecDeque;

use crate::ids::{Epoch, EventId, Time};
use crate::wire::Frame;

/// Which of an org's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum View {
    /// Sees every key.
    Member,
    /// Sees the keys on the public allowlist.
    Public,
}

/// One event, encoded for everyone who may see it.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) member: Frame,
    /// `None` where no key of it is public.
    pub(crate) public: Option<Frame>,
    pub(crate) published: Time,
}

/// The events `head - len + 1 ..= head` of one epoch. Its size in bytes is that of the frames.
#[derive(Debug)]
pub(crate) struct History {
    epoch: Epoch,
    head: u64,
    events: VecDeque<Event>,
    bytes: usize,
    /// `connected` at the head, once somebody needed it.
    reread: Option<(u64, Frame)>,
}

// ===== impl Event =====

impl Event {
    pub(crate) fn seen_by(&self, view: View) -> Option<&Frame> {
        match view {
            View::Member => Some(&self.member),
            View::Public => self.public.as_ref(),
        }
    }

    fn bytes(&self) -> usize {
        let public = self.public.as_ref().filter(|frame| !frame.shares_memory_with(&self.member));
        self.member.chunked().len() + public.map_or(0, |frame| frame.chunked().len())
    }
}

// ===== impl History =====

impl History {
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self { epoch, head: 0, events: VecDeque::new(), bytes: 0, reread: None }
    }

    pub(crate) fn append(&mut self, event: Event) {
        self.head += 1;
        self.bytes += event.bytes();
        self.events.push_back(event);
    }

    /// Moves the head without an event to show for it, so that no earlier position is covered: what
    /// happened is too much to tell, and everyone has to re-read.
    pub(crate) fn lose(&mut self) {
        self.head += 1;
        self.events = VecDeque::new();
        self.bytes = 0;
    }

    /// The event that tells a live stream to re-read, which then holds the head.
    pub(crate) fn reread(&mut self) -> &Frame {
        let (head, id) = (self.head, self.id(self.head));
        if self.reread.as_ref().is_none_or(|(seq, _)| *seq != head) {
            self.reread = None;
        }
        &self.reread.get_or_insert_with(|| (head, Frame::connected(id))).1
    }

    /// Forgets the oldest event, if there is one.
    pub(crate) fn evict(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= event.bytes();
        }
    }

    /// Forgets what was published before `oldest`, and the memory it took.
    pub(crate) fn expire(&mut self, oldest: Time) {
        while self.events.front().is_some_and(|event| event.published < oldest) {
            self.evict();
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
    }

    /// Whether everything after `position` is remembered, so that who holds it can be brought up to
    /// date without a loss.
    pub(crate) fn covers(&self, position: u64) -> bool {
        (self.head - self.events.len() as u64..=self.head).contains(&position)
    }

    /// Whether `id` was given out by this run and is still covered.
    pub(crate) fn covers_id(&self, id: EventId) -> bool {
        id.epoch == self.epoch && self.covers(id.seq)
    }

    /// The event with this number, if it is remembered.
    pub(crate) fn get(&self, seq: u64) -> Option<&Event> {
        let oldest = self.head - self.events.len() as u64;
        let index = seq.checked_sub(oldest + 1)?;
        self.events.get(usize::try_from(index).ok()?)
    }

    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    pub(crate) fn id(&self, seq: u64) -> EventId {
        EventId { epoch: self.epoch, seq }
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
