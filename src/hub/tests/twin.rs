//! One org as a list of all events of each view, and what its subscribers receive.

use super::KEEPALIVE;
use crate::hub::View;
use crate::ids::{Epoch, EventId, Seq};
use crate::wire;

/// An org with a channel.
pub(super) struct TwinOrg {
    pub(super) member: TwinFeed,
    /// From the first public stream on.
    pub(super) public: Option<TwinFeed>,
    pub(super) closes: u64,
    pub(super) held: Option<Vec<String>>,
    /// When the last subscriber left.
    pub(super) idle_since: u64,
    limits: Limits,
}

/// The events of one view.
pub(super) struct TwinFeed {
    pub(super) epoch: Epoch,
    pub(super) events: Vec<TwinEvent>,
    /// Events that are too old to be delivered again.
    expired: usize,
    /// Events that were dropped by a reread without streams.
    cleared: usize,
    /// The last command to re-read, while it is remembered.
    pub(super) command: Option<TwinCommand>,
    limits: Limits,
}

/// What streams that have not re-read receive.
#[derive(Clone, Copy)]
pub(super) struct TwinCommand {
    /// Events before it.
    barrier: usize,
    /// Events from this one on are kept for them, beside those before the barrier.
    kept_from: usize,
    /// When every stream has had its turn: two windows after the last command, since a pass may go on for one.
    pub(super) over_at: u64,
}

/// `None` where the keys were too many for an event.
pub(super) struct TwinEvent {
    pub(super) keys: Option<Vec<String>>,
    published: u64,
    epoch: Epoch,
}

#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) coalesce: u64,
    pub(super) history: usize,
    pub(super) age: u64,
    pub(super) keys_max: usize,
}

/// What a subscriber receives next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Event(String),
    Nothing,
    End,
}

/// Keys with even numbers are public.
pub(super) fn visible(keys: &[String], view: View) -> Vec<String> {
    let shown = |key: &&String| view == View::Member || key.starts_with("even");
    keys.iter().filter(shown).cloned().collect()
}

pub(super) fn add(union: &mut Vec<String>, keys: &[String]) {
    for key in keys {
        if !union.contains(key) {
            union.push(key.clone());
        }
    }
}

// ===== impl TwinOrg =====

impl TwinOrg {
    pub(super) fn new(member: Epoch, now: u64, limits: Limits) -> Self {
        let member = TwinFeed::new(member, limits);
        Self { member, public: None, closes: 0, held: None, idle_since: now, limits }
    }

    pub(super) fn feed(&self, view: View) -> Option<&TwinFeed> {
        match view {
            View::Member => Some(&self.member),
            View::Public => self.public.as_ref(),
            View::Topic => None,
        }
    }

    /// The feed of a view, which a public stream opens with this epoch.
    pub(super) fn open(&mut self, view: View, epoch: Epoch) -> &mut TwinFeed {
        match view {
            View::Member => &mut self.member,
            View::Public => self.public.get_or_insert_with(|| TwinFeed::new(epoch, self.limits)),
            View::Topic => unreachable!("an org has no such view"),
        }
    }

    pub(super) fn feeds(&self) -> impl Iterator<Item = &TwinFeed> {
        std::iter::once(&self.member).chain(&self.public)
    }

    pub(super) fn publish(&mut self, keys: &[String], now: u64) {
        let open = self.held.is_some() || now < self.closes;
        if open && self.limits.coalesce > 0 {
            add(self.held.get_or_insert_default(), keys);
        } else {
            let mut unique = Vec::new();
            add(&mut unique, keys);
            self.append(&unique, now);
        }
    }

    /// Appends the held keys as an event.
    pub(super) fn release(&mut self, now: u64) {
        if let Some(held) = self.held.take() {
            self.append(&held, now);
        }
    }

    pub(super) fn expire(&mut self, now: u64) {
        self.member.expire(now);
        self.public.iter_mut().for_each(|feed| feed.expire(now));
    }

    /// Bytes of the events in its histories.
    pub(super) fn bytes(&self) -> usize {
        self.feeds().map(TwinFeed::bytes).sum()
    }

    fn append(&mut self, keys: &[String], now: u64) {
        self.closes = now + self.limits.coalesce;
        self.member.append(keys.to_vec(), now);
        let public = visible(keys, View::Public);
        if let Some(feed) = self.public.as_mut().filter(|_| !public.is_empty()) {
            feed.append(public, now);
        }
    }
}

// ===== impl TwinFeed =====

impl TwinFeed {
    fn new(epoch: Epoch, limits: Limits) -> Self {
        Self { epoch, events: Vec::new(), expired: 0, cleared: 0, command: None, limits }
    }

    /// Everything has to be re-read, by then.
    pub(super) fn reread(&mut self, epoch: Epoch, over_at: u64, has_streams: bool) {
        let barrier = self.events.len();
        self.epoch = epoch;
        if has_streams {
            self.command = Some(TwinCommand { barrier, kept_from: barrier, over_at });
        } else {
            self.cleared = barrier;
        }
    }

    /// The next event for a stream that has not re-read, and whether it does so with it.
    pub(super) fn next_stale(
        &self,
        position: &mut usize,
        due: bool,
        closing: bool,
    ) -> (Next, bool) {
        let head = self.events.len();
        if self.covers(*position) {
            let seq = *position + 1;
            let is_kept = |last: TwinCommand| seq <= last.barrier || seq > last.kept_from;
            if *position < head && self.command.is_some_and(is_kept) {
                *position = seq;
                return (Next::Event(self.text(seq, true).expect("covered")), false);
            }
            if *position == head && !due {
                return (if closing { Next::End } else { Next::Nothing }, false);
            }
        }
        *position = head;
        (Next::Event(self.connected()), true)
    }

    fn connected(&self) -> String {
        let id = self.id(self.events.len());
        format!("id: {id}\nevent: connected\ndata: {{\"keepalive\":{KEEPALIVE}}}\n\n")
    }

    pub(super) fn covers(&self, position: usize) -> bool {
        (self.oldest()..=self.events.len()).contains(&position)
    }

    /// The next event after `position`, which is advanced.
    pub(super) fn next(&self, position: &mut usize, closing: bool) -> Next {
        let head = self.events.len();
        if !self.covers(*position) {
            *position = head;
            return Next::Event(self.connected());
        }
        if *position < head {
            *position += 1;
            return Next::Event(
                self.text(*position, false).expect("a covered position is before no loss"),
            );
        }
        if closing { Next::End } else { Next::Nothing }
    }

    pub(super) fn id(&self, position: usize) -> EventId {
        EventId { epoch: self.epoch, seq: Seq(position as u64) }
    }

    fn expire(&mut self, now: u64) {
        let old = |event: &TwinEvent| event.published + self.limits.age < now;
        self.expired = self.events.iter().take_while(|event| old(event)).count();
    }

    fn append(&mut self, keys: Vec<String>, now: u64) {
        let lost = keys.len() > self.limits.keys_max;
        let (keys, epoch) = ((!lost).then_some(keys), self.epoch);
        self.events.push(TwinEvent { keys, published: now, epoch });
        if let Some(last) = self.command.as_mut().filter(|last| now > last.over_at + 1_000) {
            last.kept_from = self.events.len();
        }
        // A loss discards the whole history at once.
        if !lost {
            self.expire(now);
        }
    }

    /// Bytes of the events in its history, each with its chunk framing.
    fn bytes(&self) -> usize {
        let size = |text: String| wire::cost(format!("{:x}\r\n{text}\r\n", text.len()).len());
        (self.oldest() + 1..=self.events.len())
            .map(|seq| self.text(seq, false).map_or(0, size))
            .sum()
    }

    /// The number of events before the oldest in the history.
    fn oldest(&self) -> usize {
        let lost = self.events.iter().rposition(|event| event.keys.is_none());
        let beyond = self.events.len().saturating_sub(self.limits.history);
        beyond.max(self.expired).max(self.cleared).max(lost.map_or(0, |at| at + 1))
    }

    /// An event, for a stream that has re-read, or for one that has not.
    fn text(&self, seq: usize, stale: bool) -> Option<String> {
        let event = &self.events[seq - 1];
        let keys = serde_json::to_string(event.keys.as_ref()?).expect("strings");
        let id = EventId { epoch: event.epoch, seq: Seq(seq as u64) };
        let is_after = self.command.is_some_and(|last| seq > last.barrier);
        let id = if stale && is_after { id.uncovered() } else { id };
        Some(format!("id: {id}\nevent: invalidate\ndata: {{\"keys\":{keys}}}\n\n"))
    }
}
