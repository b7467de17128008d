//! One org as a list of all its events, and what its subscribers receive.

use super::KEEPALIVE;
use crate::hub::View;
use crate::ids::{Epoch, EventId, Seq};
use crate::wire;

/// An org with a channel.
pub(super) struct TwinOrg {
    pub(super) epoch: Epoch,
    pub(super) events: Vec<TwinEvent>,
    /// Events that are too old to be delivered again.
    expired: usize,
    pub(super) closes: u64,
    pub(super) held: Option<Vec<String>>,
    /// When the last subscriber left.
    pub(super) idle_since: u64,
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
    pub(super) fn new(epoch: Epoch, now: u64, limits: Limits) -> Self {
        let (events, closes, held) = (Vec::new(), 0, None);
        Self { epoch, events, expired: 0, closes, held, idle_since: now, limits }
    }

    /// The number of the event that will carry the keys.
    pub(super) fn publish(&mut self, keys: &[String], now: u64) -> usize {
        let seq = self.events.len() + 1;
        let open = self.held.is_some() || now < self.closes;
        if open && self.limits.coalesce > 0 {
            add(self.held.get_or_insert_default(), keys);
        } else {
            let mut unique = Vec::new();
            add(&mut unique, keys);
            self.append(Some(unique), now);
        }
        seq
    }

    /// Appends the held keys as an event.
    pub(super) fn release(&mut self, now: u64) {
        if let Some(held) = self.held.take() {
            self.append((held.len() <= self.limits.keys_max).then_some(held), now);
        }
    }

    pub(super) fn expire(&mut self, now: u64) {
        let old = |event: &TwinEvent| event.published + self.limits.age < now;
        self.expired = self.events.iter().take_while(|event| old(event)).count();
    }

    pub(super) fn covers(&self, position: usize) -> bool {
        (self.oldest()..=self.events.len()).contains(&position)
    }

    /// The next event after `position`, which is advanced.
    pub(super) fn next(&self, position: &mut usize, view: View, closing: bool) -> Next {
        let head = self.events.len();
        if !self.covers(*position) {
            *position = head;
            let id = self.id(head);
            let data = format!("{{\"keepalive\":{KEEPALIVE}}}");
            return Next::Event(format!("id: {id}\nevent: connected\ndata: {data}\n\n"));
        }
        while *position < head {
            *position += 1;
            if let Some(text) = self.text(*position, view) {
                return Next::Event(text);
            }
        }
        if closing { Next::End } else { Next::Nothing }
    }

    /// Bytes of the events in its history: each with its chunk framing, once if both views of it are the same.
    pub(super) fn bytes(&self) -> usize {
        let size = |text: String| wire::cost(format!("{:x}\r\n{text}\r\n", text.len()).len());
        let both = |seq| {
            let (member, public) = (self.text(seq, View::Member), self.text(seq, View::Public));
            let public = public.filter(|public| Some(public) != member.as_ref());
            member.map_or(0, size) + public.map_or(0, size)
        };
        (self.oldest() + 1..=self.events.len()).map(both).sum()
    }

    pub(super) fn id(&self, position: usize) -> EventId {
        EventId { epoch: self.epoch, seq: Seq(position as u64) }
    }

    fn append(&mut self, keys: Option<Vec<String>>, now: u64) {
        let lost = keys.is_none();
        self.closes = now + self.limits.coalesce;
        self.events.push(TwinEvent { keys, published: now });
        // A loss discards the whole history at once.
        if !lost {
            self.expire(now);
        }
    }

    /// The number of events before the oldest in the history.
    fn oldest(&self) -> usize {
        let lost = self.events.iter().rposition(|event| event.keys.is_none());
        let beyond = self.events.len().saturating_sub(self.limits.history);
        beyond.max(self.expired).max(lost.map_or(0, |at| at + 1))
    }

    fn text(&self, seq: usize, view: View) -> Option<String> {
        let keys = visible(self.events[seq - 1].keys.as_ref()?, view);
        let json = serde_json::to_string(&keys).expect("strings");
        let id = self.id(seq);
        (!keys.is_empty())
            .then(|| format!("id: {id}\nevent: invalidate\ndata: {{\"keys\":{json}}}\n\n"))
    }
}
