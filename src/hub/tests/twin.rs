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
    limits: Limits,
}

/// `None` where the keys were too many for an event.
pub(super) struct TwinEvent {
    pub(super) keys: Option<Vec<String>>,
    published: u64,
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
        }
    }

    /// The feed of a view, which a public stream opens with this epoch.
    pub(super) fn open(&mut self, view: View, epoch: Epoch) -> &mut TwinFeed {
        match view {
            View::Member => &mut self.member,
            View::Public => self.public.get_or_insert_with(|| TwinFeed::new(epoch, self.limits)),
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
        Self { epoch, events: Vec::new(), expired: 0, limits }
    }

    pub(super) fn covers(&self, position: usize) -> bool {
        (self.oldest()..=self.events.len()).contains(&position)
    }

    /// The next event after `position`, which is advanced.
    pub(super) fn next(&self, position: &mut usize, closing: bool) -> Next {
        let head = self.events.len();
        if !self.covers(*position) {
            *position = head;
            let id = self.id(head);
            let data = format!("{{\"keepalive\":{KEEPALIVE}}}");
            return Next::Event(format!("id: {id}\nevent: connected\ndata: {data}\n\n"));
        }
        if *position < head {
            *position += 1;
            return Next::Event(
                self.text(*position).expect("a covered position is before no loss"),
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
        self.events.push(TwinEvent { keys: (!lost).then_some(keys), published: now });
        // A loss discards the whole history at once.
        if !lost {
            self.expire(now);
        }
    }

    /// Bytes of the events in its history, each with its chunk framing.
    fn bytes(&self) -> usize {
        let size = |text: String| wire::cost(format!("{:x}\r\n{text}\r\n", text.len()).len());
        (self.oldest() + 1..=self.events.len()).map(|seq| self.text(seq).map_or(0, size)).sum()
    }

    /// The number of events before the oldest in the history.
    fn oldest(&self) -> usize {
        let lost = self.events.iter().rposition(|event| event.keys.is_none());
        let beyond = self.events.len().saturating_sub(self.limits.history);
        beyond.max(self.expired).max(lost.map_or(0, |at| at + 1))
    }

    fn text(&self, seq: usize) -> Option<String> {
        let keys = serde_json::to_string(self.events[seq - 1].keys.as_ref()?).expect("strings");
        let id = self.id(seq);
        Some(format!("id: {id}\nevent: invalidate\ndata: {{\"keys\":{keys}}}\n\n"))
    }
}
