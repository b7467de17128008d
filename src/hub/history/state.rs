//! A history outlives its process.

use std::collections::VecDeque;

use super::{Event, History};
use crate::hub::shard::Common;
use crate::hub::state::{EventState, FeedState, Passed, RestoreError, SAVED_BYTES_MAX, SEQ_MAX};
use crate::ids::{Epoch, EventId, Seq};
use crate::time::Time;
use crate::wire::Frame;

/// Which events a history remembers: those of this epoch after `start`, up to `head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) struct Range {
    pub(in crate::hub) epoch: Epoch,
    pub(in crate::hub) start: Seq,
    pub(in crate::hub) head: Seq,
}

impl History {
    /// Which events would be saved. Those from before the last command to re-read are left out: no id covers them, and a
    /// stream that has still to take them gets `connected` in their place.
    pub(in crate::hub) fn range(&self) -> Range {
        let Self { epoch, head, events, frames, .. } = self;
        let is_older = |event: &Event| event.frame.id().epoch != *epoch;
        let mut first = events.partition_point(is_older);
        if *frames > SAVED_BYTES_MAX {
            let mut bytes = 0;
            let fits = |event: &&Event| {
                bytes += event.frame.cost();
                bytes <= SAVED_BYTES_MAX
            };
            first = first.max(events.len() - events.iter().rev().take_while(fits).count());
        }
        Range { epoch: *epoch, start: Seq(head.0 - (events.len() - first) as u64), head: *head }
    }

    /// What it remembers of the events after `known`.
    pub(in crate::hub) fn save(&self, known: Seq, now: Time) -> FeedState {
        let from = self.range().start.max(known);
        let Self {
            epoch,
            head,
            events,
            frames: _, // counted again
            ring: _,   // counted again
            reread: _, // encoded again
            hints: _,  // saves writes only: an event of which nothing is known passes every filter
            base: _,   // with a log the next process follows that, and nothing is saved
        } = self;
        let count = usize::try_from(head.0.saturating_sub(from.0)).unwrap_or(usize::MAX);
        let first = events.len().saturating_sub(count);
        let event = |Event { frame, published }: &Event| EventState {
            age_ms: now.0.saturating_sub(published.0),
            text: frame.bytes(false).to_vec(),
        };
        FeedState {
            epoch: epoch.0,
            head: head.0,
            events: events.range(first..).map(event).collect(),
        }
    }

    /// The same history, as far as the limits allow: of what is missing, no position is covered.
    pub(in crate::hub) fn restore(
        state: FeedState,
        passed: Passed,
        common: &Common,
    ) -> Result<Self, RestoreError> {
        let mut history = Self::new(Epoch(state.epoch), common.memory.clone());
        history.append_saved(state, passed, common)?;
        Ok(history)
    }

    /// Goes on as the history that was saved later: that one has its events after `start` up to its own head, and then
    /// these.
    pub(in crate::hub) fn restore_newer(
        &mut self,
        start: Seq,
        state: FeedState,
        passed: Passed,
        common: &Common,
    ) -> Result<(), RestoreError> {
        let events = state.events.len() as u64;
        if self.epoch != Epoch(state.epoch) || start.0.saturating_add(events) > state.head {
            return Err(RestoreError::Numbers);
        }
        while !self.events.is_empty() && self.start() < start {
            self.evict();
        }
        self.append_saved(state, passed, common)
    }

    /// Appends events up to this head. Without those that are missing between, none before is covered.
    fn append_saved(
        &mut self,
        state: FeedState,
        passed: Passed,
        common: &Common,
    ) -> Result<(), RestoreError> {
        let FeedState { epoch, head, events } = state;
        let before = head.checked_sub(events.len() as u64).filter(|before| *before >= self.head.0);
        if head > SEQ_MAX || before.is_none() {
            return Err(RestoreError::Numbers);
        }
        let (epoch, config) = (Epoch(epoch), &common.config);
        let oldest = passed.now().before(config.history_age).unwrap_or_default();
        let keeps = |event: &EventState| {
            let is_young = passed.time(event.age_ms).is_some_and(|time| time >= oldest);
            is_young && event.text.len() <= config.event_bytes_max
        };
        let kept = events.iter().rev().take_while(|event| keeps(event)).count();
        let kept = kept.min(config.history_events.max(1));
        let first = events.len() - kept;
        if head - kept as u64 > self.head.0 {
            self.clear();
        }
        while !self.events.is_empty() && self.events.len() + kept > config.history_events {
            self.evict();
        }
        if self.events.is_empty() {
            self.events = VecDeque::with_capacity(kept);
            self.count_ring();
        }
        self.head = Seq(head - kept as u64);
        let numbers = (self.head.0 + 1..).map(Seq);
        for (seq, EventState { age_ms, text }) in numbers.zip(events.into_iter().skip(first)) {
            let id = EventId { epoch, seq };
            let frame =
                Frame::restored_in(&common.memory, id, &text).map_err(RestoreError::Event)?;
            self.append(Event { frame, published: passed.time(age_ms).unwrap_or_default() });
        }
        Ok(())
    }

    /// Where a stream goes on that has everything up to this id; `None` if it has to re-read everything. `has` is whether
    /// the tail of the log has a record.
    pub(in crate::hub) fn take_up(
        &self,
        id: EventId,
        has: impl FnOnce(crate::ids::Mark) -> bool,
    ) -> Option<Seq> {
        if self.base.is_some() {
            return self.resume(id, has);
        }
        // One that is not covered finds that out by itself.
        (id.epoch == self.epoch && id.seq <= self.head).then_some(id.seq)
    }
}
