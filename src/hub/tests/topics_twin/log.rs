//! A topic as a list of all events ever published to it, of which the hub keeps some.

use super::Limits;
use crate::ids::{Epoch, EventId, Seq};
use crate::wire;

/// One run of a topic.
pub(super) struct Log {
    pub(super) topic: usize,
    pub(super) epoch: Epoch,
    events: Vec<Logged>,
    /// Every event up to this one of whose loss streams are notified is gone, or may be.
    lost: u64,
    /// Its last event is `closed`.
    pub(super) closed: bool,
    /// When it was used last, at the earliest and at the latest: a stream's end counts in whole seconds.
    pub(super) used: (u64, u64),
}

struct Logged {
    bulk: bool,
    /// Without the line of its id.
    lines: String,
    published: u64,
    kept: bool,
}

// ===== impl Log =====

impl Log {
    pub(super) fn new(topic: usize, epoch: Epoch, now: u64) -> Self {
        Self { topic, epoch, events: Vec::new(), lost: 0, closed: false, used: (now, now) }
    }

    pub(super) fn head(&self) -> u64 {
        self.events.len() as u64
    }

    pub(super) fn id(&self, seq: u64) -> EventId {
        EventId { epoch: self.epoch, seq: Seq(seq) }
    }

    pub(super) fn append(&mut self, bulk: bool, lines: String, now: u64) {
        self.events.push(Logged { bulk, lines, published: now, kept: true });
        self.use_at(now);
    }

    pub(super) fn use_at(&mut self, now: u64) {
        self.used = (self.used.0.max(now), self.used.1.max(now));
    }

    /// A stream ended, which the hub dates back to its last tick.
    pub(super) fn leave(&mut self, tick: u64, now: u64) {
        self.used = (self.used.0.max(tick * 1_000), self.used.1.max(now));
    }

    /// Takes note of what the hub keeps, and checks what it has dropped.
    pub(super) fn keep(&mut self, kept: &[u64], limits: Limits) {
        let head = self.head();
        let newly_lost: Vec<u64> =
            self.kept().map(|(seq, _)| seq).filter(|seq| !kept.contains(seq)).collect();
        for seq in kept {
            assert!(self.event(*seq).kept, "{seq} is back after it was dropped");
        }
        assert!(head == 0 || kept.contains(&head), "the newest event {head} is dropped: {kept:?}");
        let counts =
            [true, false].map(|bulk| kept.iter().filter(|seq| self.is_bulk(**seq) == bulk).count());
        assert!(counts.iter().all(|count| *count <= limits.events), "{counts:?} of {limits:?}");
        let lost = newly_lost.iter().copied().filter(|seq| !self.event(*seq).bulk).max();
        for seq in newly_lost {
            self.check_drop(seq, kept, counts, limits);
            self.events[index(seq)].kept = false;
        }
        self.lost = self.lost.max(lost.unwrap_or(0));
        let bytes: usize = kept.iter().map(|seq| self.cost(*seq)).sum();
        assert!(bytes <= limits.bytes || kept == [head], "{bytes} bytes are kept of {limits:?}");
    }

    /// An event was dropped, for which there has to be a reason.
    fn check_drop(&self, seq: u64, kept: &[u64], [bulk, others]: [usize; 2], limits: Limits) {
        let event = self.event(seq);
        let is_oldest = |seq: u64| {
            kept.iter().filter(|other| self.event(**other).bulk == event.bulk).all(|o| *o > seq)
        };
        assert!(is_oldest(seq), "{seq} is dropped before an older one of its class: {kept:?}");
        if event.bulk {
            assert!(bulk == limits.events || !limits.count_only(), "{seq}: {kept:?}");
        } else if others < limits.events {
            assert!(!limits.count_only(), "{seq} is dropped with {others} kept: {kept:?}");
            let other_bulk = kept.iter().filter(|other| self.event(**other).bulk);
            let newest_only = other_bulk.into_iter().all(|other| *other == self.head());
            assert!(newest_only, "{seq} is dropped before bulk events: {kept:?}");
        }
    }

    /// The text of an event.
    pub(super) fn text(&self, seq: u64) -> String {
        format!("id: {}\n{}", self.id(seq), self.event(seq).lines)
    }

    pub(super) fn cost(&self, seq: u64) -> usize {
        let text = self.text(seq);
        wire::cost(format!("{:x}\r\n{text}\r\n", text.len()).len())
    }

    /// The events that are kept, each with whether it is bulk.
    pub(super) fn kept(&self) -> impl Iterator<Item = (u64, bool)> {
        let numbered = (1..).zip(&self.events);
        numbered.filter(|(_, event)| event.kept).map(|(seq, event)| (seq, event.bulk))
    }

    /// The next event that is kept.
    pub(super) fn next(&self, after: u64) -> Option<u64> {
        self.kept().map(|(seq, _)| seq).find(|seq| *seq > after)
    }

    /// Whether every event behind `position` that must not vanish is kept.
    pub(super) fn covers(&self, position: u64) -> bool {
        (self.lost..=self.head()).contains(&position)
    }

    /// Up to which event there may be a loss.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// The position before the first event that was published then or later.
    pub(super) fn since(&self, time: u64) -> u64 {
        self.events.iter().take_while(|event| event.published < time).count() as u64
    }

    fn event(&self, seq: u64) -> &Logged {
        &self.events[index(seq)]
    }

    pub(super) fn is_bulk(&self, seq: u64) -> bool {
        self.event(seq).bulk
    }
}

fn index(seq: u64) -> usize {
    usize::try_from(seq - 1).expect("few")
}
