//! Topics: channels of named events, with their payloads, which begin with what is kept, may be closed, and may be had
//! by one stream alone.

#[cfg(feature = "server")]
mod state;

use std::sync::Arc;

use super::Hub;
use super::SubscribeError;
use super::backlog::Backlog;
use super::channel::{Channel, State};
use super::feed::{Feed, Feeds, View};
use super::rivals::Rivals;
use super::subscription::Subscription;
use super::topics::IdleKey;
use crate::ids::{EventId, Topic};
use crate::metrics::{self, CloseReason};
use crate::time::Time;
use crate::wire::{Greeting, Message};

/// Where a stream of a topic begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With all that is kept.
    All,
    /// With what is published from now on.
    Now,
    /// After the event with this id, if nothing that followed is gone but bulk events; as [`All`](Self::All) otherwise.
    After(EventId),
    /// With what was published at this time or after it.
    Since(Time),
}

/// What the channel of a topic has beside the seats.
#[derive(Debug)]
pub(crate) struct TopicFeed {
    pub(crate) feed: Feed<Backlog>,
    pub(super) rivals: Rivals,
    /// Its place among the idle topics, while it has no seats.
    idle: Option<IdleKey>,
}

/// How a stream becomes the only one of its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exclusive {
    /// At once.
    Now,
    /// Once the log that servers share has this claim.
    Claim(u64),
}

// ===== impl Start =====

impl Start {
    /// The id that the client came with.
    pub(crate) fn last_id(self) -> Option<EventId> {
        if let Self::After(id) = self { Some(id) } else { None }
    }
}

// ===== impl Hub =====

impl Hub {
    /// Takes a seat at a topic. An `exclusive` stream ends all others of the topic: they get nothing that is published
    /// from now on. When they have gone: [`Subscription::poll_sole`]. A hub that follows a log has no such streams: there
    /// they claim their topics in it.
    ///
    /// # Errors
    /// [`SubscribeError`]: the hub is closing, or the topic has as many streams [as it
    /// may](crate::config::HubConfig::topic_streams_max), unless this one takes their place.
    pub fn subscribe_topic(
        &self,
        topic: &Topic,
        start: Start,
        exclusive: bool,
        now: Time,
    ) -> Result<(Subscription, Greeting), SubscribeError> {
        if exclusive {
            self.assert_alone();
        }
        self.open_topic(topic, start, exclusive.then_some(Exclusive::Now), now)
    }

    pub(super) fn open_topic(
        &self,
        topic: &Topic,
        start: Start,
        exclusive: Option<Exclusive>,
        now: Time,
    ) -> Result<(Subscription, Greeting), SubscribeError> {
        loop {
            let channel = self.shared.topics.get_or_create(topic, now);
            let mut state = channel.state.lock();
            // Closing marks every channel that there is, so the flag is read under the channel's lock.
            if self.is_closing() {
                return Err(SubscribeError::Closing);
            }
            if state.removed {
                continue;
            }
            let Feeds::Topic(feed) = &mut state.feeds else { unreachable!("{NOT_AN_ORG}") };
            let open = match exclusive {
                None => feed.feed.seats() - feed.rivals.left(),
                Some(Exclusive::Now) => 0,
                Some(Exclusive::Claim(_)) => feed.rivals.claims(),
            };
            let max = self.config().topic_streams_max.filter(|_| exclusive != Some(Exclusive::Now));
            if let Some(max) = max.filter(|max| open >= *max) {
                return Err(SubscribeError::TopicFull { max });
            }
            let is_known = |mark| self.shared.common.has_mark(mark);
            let (greeting, position) = feed.feed.history.start(start, is_known);
            feed.unlist(&channel);
            let replaced = (exclusive == Some(Exclusive::Now)).then(|| feed.replace(&channel));
            let mut subscription =
                Subscription::new(&channel, &mut state, self.shard, View::Topic, position);
            if exclusive.is_some() {
                subscription.set_exclusive();
            }
            if let Some(Exclusive::Claim(number)) = exclusive {
                state.claim(number, subscription.place());
            }
            drop(state);
            subscription.arm();
            if let Some(replaced) = replaced {
                replaced.notify(&channel);
            }
            return Ok((subscription, greeting));
        }
    }

    /// Publishes an event to a topic, which begins with it if there is none. Returns its id. A hub that follows a log has
    /// its events from there, as with [`Hub::publish`].
    pub fn publish_message(&self, topic: &Topic, message: &Message, now: Time) -> EventId {
        self.assert_alone();
        metrics::add(&self.shard_counters().published, 1);
        let (channel, id) = loop {
            let channel = self.shared.topics.get_or_create(topic, now);
            if let Some(id) = channel.post(message, now) {
                break (channel, id);
            }
        };
        self.shared.common.schedule(&channel);
        self.shared.topics.evict_excess();
        self.shared.topics.evict_for(&channel);
        channel.evict_own();
        id
    }

    /// Ends a topic: its streams get what there is, then `closed` with this reason, and end. What it kept is gone, and
    /// what is published next begins anew. Returns the number of streams, 0 for a topic that there is not.
    pub fn close_topic(&self, topic: &Topic, reason: &str, now: Time) -> usize {
        self.assert_alone();
        let message = Message::closed(reason);
        let close = |channel: &Arc<Channel>| Some(channel.close(&message, now));
        let Some((channel, streams)) = self.shared.topics.close(topic, close) else { return 0 };
        self.shared.common.schedule(&channel);
        streams
    }

    /// Topics that are kept.
    pub fn topics(&self) -> usize {
        self.shared.topics.len()
    }

    /// Bytes of memory for what topics keep, and for events that are gone and that streams have still to write.
    pub fn topics_bytes(&self) -> u64 {
        self.shared.common.topics.memory.bytes()
    }
}

// ===== impl Channel =====

impl Channel {
    /// Appends an event. `None` if the topic has left the registry.
    fn post(self: &Arc<Self>, message: &Message, now: Time) -> Option<EventId> {
        let mut state = self.state.lock();
        if state.removed {
            return None;
        }
        state.use_until(now);
        state.count_publishes(1);
        let id = state.append_message(message, now, self)?;
        state.list_if_idle(self);
        Some(id)
    }

    /// While topics keep too much, removes its events but for the newest.
    pub(super) fn evict_own(&self) {
        let (memory, max) = (&self.common.topics.memory, self.common.config.topics_bytes_total);
        if memory.bytes() <= max as u64 {
            return;
        }
        let mut state = self.state.lock();
        let Feeds::Topic(feed) = &mut state.feeds else { return };
        feed.change(|backlog| while memory.bytes() > max as u64 && backlog.give_way() {});
    }

    /// Ends every stream after this last event. The caller holds the registry's lock, and removes the topic from it.
    fn close(self: &Arc<Self>, message: &Message, now: Time) -> usize {
        let mut state = self.state.lock();
        state.append_message(message, now, self);
        state.closing.get_or_insert(CloseReason::Closed);
        state.removed = true;
        state.list_if_idle(self);
        state.seats()
    }

    /// Marks a topic as removed, if it has been idle under this key until now. Returns whether it has.
    pub(super) fn retire_topic(&self, key: IdleKey) -> bool {
        let mut state = self.state.lock();
        let Feeds::Topic(feed) = &mut state.feeds else { return false };
        let is_idle = feed.idle.take_if(|idle| *idle == key).is_some();
        state.removed |= is_idle;
        is_idle
    }
}

// ===== impl State =====

impl State {
    fn append_message(
        &mut self,
        message: &Message,
        now: Time,
        channel: &Channel,
    ) -> Option<EventId> {
        let Feeds::Topic(feed) = &mut self.feeds else { return None };
        Some(feed.change(|backlog| backlog.append(message, now, &channel.common.config)))
    }

    /// Lists a topic without seats among the idle ones, at the place that its last use gives it; one that has no event
    /// is over as soon as its last stream.
    pub(super) fn list_if_idle(&mut self, channel: &Arc<Channel>) {
        let since = self.last_use();
        let (removed, seats) = (self.removed, self.seats());
        let Feeds::Topic(feed) = &mut self.feeds else { return };
        feed.unlist(channel);
        if seats == 0 && !removed {
            let expires = match feed.feed.history.is_empty() {
                true => Time(0),
                false => since.after(channel.common.config.topic_age),
            };
            feed.idle = Some(channel.common.topics.add_idle(expires, channel));
        }
    }
}

// ===== impl TopicFeed =====

impl TopicFeed {
    pub(super) fn new(backlog: Backlog) -> Self {
        Self { feed: Feed::of(View::Topic, backlog), rivals: Rivals::default(), idle: None }
    }

    /// Takes it out of the idle topics: it is in use, or its place among them is about to change.
    pub(super) fn unlist(&mut self, channel: &Channel) {
        if let Some(key) = self.idle.take() {
            channel.common.topics.remove_idle(key);
        }
    }

    /// Changes what is kept. If an event is gone that clients have to be notified of, a new round of the seats begins.
    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut Backlog) -> T) -> T {
        let Feed { history, shards, .. } = &mut self.feed;
        let gone = history.gone();
        let changed = change(history);
        if history.gone() != gone {
            shards.iter_mut().for_each(super::seats::Seats::begin_round);
        }
        changed
    }
}

const NOT_AN_ORG: &str = "the registry of topics has no orgs";
