//! A backlog outlives its process.

use std::collections::VecDeque;

use super::{Backlog, Kept};
use crate::hub::shard::Common;
use crate::hub::state::{KeptState, Passed, RestoreError, SAVED_BYTES_MAX, SEQ_MAX};
use crate::ids::{Epoch, EventId, Mark, Seq};
use crate::time::Time;
use crate::wire::Frame;

/// What a backlog remembers.
#[derive(Debug)]
pub(in crate::hub) struct SavedBacklog {
    pub(in crate::hub) epoch: u64,
    pub(in crate::hub) head: u64,
    pub(in crate::hub) gone: u64,
    pub(in crate::hub) events: Vec<KeptState>,
}

/// Which events a backlog remembers: those of this epoch up to `head`, of each class the newest ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) struct Range {
    pub(in crate::hub) epoch: Epoch,
    pub(in crate::hub) head: Seq,
    gone: Seq,
    pub(in crate::hub) first: First,
}

/// The first event of each class, or what would be the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) struct First {
    pub(in crate::hub) bulk: Seq,
    pub(in crate::hub) other: Seq,
}

impl Backlog {
    /// Which events would be saved.
    pub(in crate::hub) fn range(&self) -> Range {
        let first = |bulk: bool| {
            let mut saved = self.events.range(self.first_saved()..);
            saved.find(|event| event.bulk == bulk).map_or(self.head + 1, |event| event.seq)
        };
        let first = First { bulk: first(true), other: first(false) };
        Range { epoch: self.epoch, head: self.head, gone: self.gone, first }
    }

    fn first_saved(&self) -> usize {
        if self.frames <= SAVED_BYTES_MAX {
            return 0;
        }
        let mut bytes = 0;
        let fits = |event: &&Kept| {
            bytes += event.frame.cost();
            bytes <= SAVED_BYTES_MAX
        };
        self.events.len() - self.events.iter().rev().take_while(fits).count()
    }

    /// What it remembers, without the events up to `known`.
    pub(in crate::hub) fn save(&self, known: Seq, now: Time) -> SavedBacklog {
        let Self {
            epoch,
            head,
            events,
            bulk: _, // counted again
            gone,
            frames: _,    // counted again
            ring: _,      // counted again
            connected: _, // encoded again
            log: _,       // with a log the next process follows that, and nothing is saved
        } = self;
        let first = self.first_saved();
        let lost = events.range(..first).map(|event| event.seq).max();
        let after = events.partition_point(|event| event.seq <= known);
        let event = |Kept { seq, bulk, published, frame }: &Kept| KeptState {
            seq: seq.0,
            bulk: *bulk,
            age_ms: now.0.saturating_sub(published.0),
            text: frame.bytes(false).to_vec(),
        };
        SavedBacklog {
            epoch: epoch.0,
            head: head.0,
            gone: lost.unwrap_or_default().max(*gone).0,
            events: events.range(first.max(after)..).map(event).collect(),
        }
    }

    /// The same backlog, as far as the limits allow. An event that is longer than they do is gone, bulk or not.
    pub(in crate::hub) fn restore(
        saved: SavedBacklog,
        passed: Passed,
        common: &Common,
    ) -> Result<Self, RestoreError> {
        let mut backlog = Self::new(Epoch(saved.epoch), common.topics.memory.clone());
        backlog.events = VecDeque::with_capacity(saved.events.len());
        backlog.count_ring();
        backlog.append_saved(saved, passed, common)?;
        Ok(backlog)
    }

    /// Goes on as the backlog that was saved later: that one has its events from these on, and then those that come with
    /// it.
    pub(in crate::hub) fn restore_newer(
        &mut self,
        first: First,
        saved: SavedBacklog,
        passed: Passed,
        common: &Common,
    ) -> Result<(), RestoreError> {
        if self.epoch != Epoch(saved.epoch) {
            return Err(RestoreError::Numbers);
        }
        let is_gone = |event: &Kept| event.seq < if event.bulk { first.bulk } else { first.other };
        let Self { events, frames, bulk, .. } = self;
        events.retain(|event| {
            if is_gone(event) {
                *frames -= event.frame.cost();
                *bulk -= usize::from(event.bulk);
            }
            !is_gone(event)
        });
        self.append_saved(saved, passed, common)
    }

    /// Appends events up to this head.
    fn append_saved(
        &mut self,
        saved: SavedBacklog,
        passed: Passed,
        common: &Common,
    ) -> Result<(), RestoreError> {
        let SavedBacklog { epoch, head, gone, events } = saved;
        if head > SEQ_MAX || gone > head || head < self.head.0 {
            return Err(RestoreError::Numbers);
        }
        let config = &common.config;
        let mut last = self.head.0;
        let mut published = self.events.back().map_or(Time(0), |newest| newest.published);
        self.head = Seq(head);
        self.gone = self.gone.max(Seq(gone));
        for KeptState { seq, bulk, age_ms, text } in events {
            if seq <= last || seq > head {
                return Err(RestoreError::Numbers);
            }
            last = seq;
            if text.len() > config.topic_event_bytes_max {
                self.gone = self.gone.max(Seq(seq));
                continue;
            }
            let id = EventId { epoch: Epoch(epoch), seq: Seq(seq) };
            let memory = self.ring.memory();
            let frame = Frame::restored_in(memory, id, &text).map_err(RestoreError::Event)?;
            published = passed.time(age_ms).unwrap_or_default().max(published);
            self.frames += frame.cost();
            self.bulk += usize::from(bulk);
            self.events.push_back(Kept { seq: Seq(seq), bulk, published, frame });
        }
        if last < head {
            // The newest event is always kept, so what is missing there may be anything.
            self.gone = Seq(head);
        }
        self.limit(config.topic_events.max(1), config.topic_bytes);
        Ok(())
    }

    /// Removes what is beyond the limits, and gives back the memory that it took.
    fn limit(&mut self, events: usize, bytes: usize) {
        for bulk in [true, false] {
            while self.count(bulk) > events && self.evict(bulk) {}
        }
        while self.bytes() > bytes && self.give_way() {}
        self.events.shrink_to_fit();
        self.count_ring();
    }

    /// Where a stream goes on that has everything up to this id; `None` if it is not known what it has missed, and it has to
    /// get `connected`. `has` is whether the tail of the log has a record.
    pub(in crate::hub) fn take_up(
        &self,
        id: EventId,
        has: impl FnOnce(Mark) -> bool,
    ) -> Option<Seq> {
        if self.log.is_some() {
            return self.position_of(id, has);
        }
        (id.epoch == self.epoch && id.seq <= self.head).then_some(id.seq)
    }
}
