//! A browser that keeps the contract.

use std::task::{Poll, Waker};

use super::world::{Database, KEYS, ORGS, key_name};
use crate::hub::{Filter, Hub, Subscription, View};
use crate::ids::{EventId, StreamHash};
use crate::time::Time;
use crate::wire::Greeting;

pub(super) struct Browser {
    pub(super) org: usize,
    pub(super) view: View,
    /// The only key that it wants.
    pub(super) only: Option<usize>,
    pub(super) id: Option<EventId>,
    pub(super) copies: [u64; KEYS],
    pub(super) stream: Option<Stream>,
}

pub(super) struct Stream {
    pub(super) node: usize,
    subscription: Subscription,
    /// It begins with this, which it has not received yet.
    greeting: Option<Greeting>,
}

// ===== impl Browser =====

impl Browser {
    pub(super) fn new(org: usize, view: View, only: Option<usize>) -> Self {
        Self { org, view, only, id: None, copies: [0; KEYS], stream: None }
    }

    /// Opens a stream. Returns whether it resumes.
    pub(super) fn open(&mut self, hub: &Hub, node: usize, now: Time) -> bool {
        self.stream = None;
        let org = ORGS[self.org].parse().expect("a name");
        let opened = hub.subscribe(&org, self.view, self.id, now);
        let (mut subscription, greeting) = opened.expect("not closing");
        if let Some(only) = self.only {
            let filter = Filter::new([key_name(only).as_str()], hub.config());
            subscription.set_filter(filter.expect("a filter"));
        }
        self.stream = Some(Stream { node, subscription, greeting: Some(greeting) });
        greeting == Greeting::Resumed
    }

    /// Receives the beginning of its stream, and so many events.
    pub(super) fn receive(&mut self, database: &Database, events: usize) {
        let Some(stream) = &mut self.stream else { return };
        if let Some(greeting) = stream.greeting.take() {
            let (greeting, id) = stream.subscription.begin(greeting, self.id);
            if greeting == Greeting::Connected {
                self.copies = database[self.org];
            }
            self.id = Some(id);
        }
        for _ in 0..events {
            let Some(stream) = &mut self.stream else { return };
            match stream.subscription.poll_next(Waker::noop()) {
                Poll::Pending => return,
                Poll::Ready(None) => self.stream = None,
                Poll::Ready(Some(frame)) => self.take(&frame.payload(), database),
            }
        }
    }

    /// Receives a keepalive, at any time.
    pub(super) fn keepalive(&mut self) {
        if let Some(Stream { subscription, greeting: None, .. }) = &self.stream {
            let frame = subscription.keepalive_frame();
            self.id = id(&frame.payload()).or(self.id);
        }
    }

    fn take(&mut self, payload: &[u8], database: &Database) {
        let text = std::str::from_utf8(payload).expect("UTF-8");
        self.id = id(payload).or(self.id);
        if text.contains("event: connected\n") {
            self.copies = database[self.org];
        } else if text.contains("event: invalidate\n") {
            let names = (0..KEYS).filter(|key| text.contains(&format!("\"{}\"", key_name(*key))));
            names.for_each(|key| self.copies[key] = database[self.org][key]);
        }
    }

    pub(super) fn stream_hash(&self) -> StreamHash {
        match self.view {
            View::Member => StreamHash::of_members(ORGS[self.org]),
            View::Public | View::Topic => StreamHash::of_public(ORGS[self.org]),
        }
    }

    /// Whether it is shown a key.
    pub(super) fn sees(&self, key: usize) -> bool {
        let shown = self.view == View::Member || key.is_multiple_of(2);
        shown && self.only.is_none_or(|only| only == key)
    }
}

fn id(payload: &[u8]) -> Option<EventId> {
    let text = std::str::from_utf8(payload).expect("UTF-8");
    let id = text.lines().find_map(|line| line.strip_prefix("id: "))?;
    Some(id.parse().expect("an id"))
}
