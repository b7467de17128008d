//! One channel, of an org or of a topic: what it feeds, with the seats, behind one lock; for an org also its burst
//! window. What has to be done once the lock is released is returned.

#[cfg(feature = "server")]
pub(super) mod state;

use std::sync::Arc;

use smallvec::SmallVec;

use super::backlog::Backlog;
use super::coalesce::{Burst, Coalescer, Kept};
use super::feed::{Feed, Feeds, OrgFeeds, View};
use super::filter::KeyBits;
use super::history::Event;
use super::keys::Keys;
use super::seat::Seat;
use super::seat_ref::SeatRef;
use super::seats::SeatKey;
use super::shard::{Common, Dirty, ShardId};
use super::timers::Timer;
use super::topic::TopicFeed;
use crate::ids::{EventId, OrgName, Seq, StreamHash, Topic, TopicName};
use crate::metrics::CloseReason;
use crate::sync::Mutex;
use crate::time::{Tick, Time};
use crate::wire::Frame;

/// One channel. Its registry and its subscriptions hold it; inboxes and wheels refer to it.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) org: OrgName,
    /// `None` for that of the org itself.
    pub(crate) topic: Option<TopicName>,
    /// Whether the org may have public streams.
    pub(crate) public: bool,
    pub(crate) common: Arc<Common>,
    pub(crate) state: Mutex<State>,
}

/// What the lock protects.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) feeds: Feeds,
    pub(super) coalescer: Coalescer,
    /// Until when the channel was in use; meaningless while it has seats.
    idle_since: Time,
    /// Every stream ends once it has received what there is, for this reason.
    pub(crate) closing: Option<CloseReason>,
    /// It has left its registry: a subscriber that found it before has to look it up again.
    pub(crate) removed: bool,
    /// Publishes to it since they were taken last.
    publishes: u32,
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The event with this id was appended to the history; if it is too long, it is a `connected` in its place.
    Appended(EventId),
    /// The keys were added to those that are held for the event with this id.
    Joined(EventId),
    /// The keys are the first that are held for the event with this id, until this time.
    Held(EventId, Time),
}

// ===== impl Channel =====

impl Channel {
    pub(crate) fn new(org: OrgName, common: Arc<Common>, now: Time) -> Self {
        let epoch = common.epoch_of(|| StreamHash::of_members(org.as_str()));
        let member = Feed::new(View::Member, epoch, common.memory.clone());
        let state = State::new(Feeds::Org(OrgFeeds { member, public: None }), now);
        let public = common.config.public.shows(&org);
        Self { public, org, topic: None, common, state: Mutex::new(state) }
    }

    pub(crate) fn of_topic(topic: &Topic, common: Arc<Common>, now: Time) -> Self {
        let backlog = match &common.log {
            Some(log) => Backlog::filled(topic, log, &common),
            None => Backlog::new(common.new_epoch(), common.topics.memory.clone()),
        };
        let state = State::new(Feeds::Topic(Box::new(TopicFeed::new(backlog))), now);
        let Topic { org, name } = topic.clone();
        Self { public: false, org, topic: Some(name), common, state: Mutex::new(state) }
    }

    /// The topic, if it is that of one.
    pub(crate) fn topic(&self) -> Option<Topic> {
        let name = self.topic.clone()?;
        Some(Topic { org: self.org.clone(), name })
    }

    pub(crate) fn publish(&self, keys: &Keys<'_>, now: Time) -> Outcome {
        self.publish_in(&mut self.state.lock(), keys, now)
    }

    #[inline(always)] // where there is no log it has one caller, and is as if written there
    pub(super) fn publish_in(&self, state: &mut State, keys: &Keys<'_>, now: Time) -> Outcome {
        state.count_publishes(1);
        let coalesce = self.common.config.coalesce;
        if coalesce.is_zero() || !state.coalescer.is_open(now) {
            state.coalescer.open(now.after(coalesce));
            return Outcome::Appended(self.append(state.feeds.org_mut(), keys.iter(), now));
        }
        let id = state.feeds.org_mut().member.history.next_id();
        let keys_max = self.common.config.keys_max;
        let first = state.coalescer.hold(keys, keys_max, |key| self.shows(key));
        if first { Outcome::Held(id, state.coalescer.closes()) } else { Outcome::Joined(id) }
    }

    /// Appends what the burst window holds. Returns whether it held anything.
    pub(crate) fn release(&self, now: Time) -> bool {
        self.release_in(&mut self.state.lock(), now)
    }

    pub(super) fn release_in(&self, state: &mut State, now: Time) -> bool {
        let Some(burst) = state.coalescer.release() else { return false };
        state.coalescer.open(now.after(self.common.config.coalesce));
        let feeds = state.feeds.org_mut();
        self.append_burst(feeds, &burst, now);
        feeds.release();
        true
    }

    /// Appends what is left of a burst to the feeds that show it.
    pub(super) fn append_burst(&self, feeds: &mut OrgFeeds, burst: &Burst, now: Time) {
        let keys = burst.keys.iter().map(AsRef::as_ref);
        match burst.kept {
            Kept::All => _ = self.append(feeds, keys, now),
            Kept::Public => {
                feeds.member.lose();
                self.append_public(feeds, keys, now);
            }
            Kept::Nothing => feeds.iter_mut().for_each(|(_, feed)| feed.lose()),
        }
    }

    /// The feed of a view of an org, a new one if this is the first use of it.
    pub(crate) fn feed<'s>(&self, state: &'s mut State, view: View, now: Time) -> &'s mut Feed {
        match view {
            View::Member => &mut state.feeds.org_mut().member,
            View::Public => self.public_feed(state, now),
            View::Topic => unreachable!("an org has no feed of a topic"),
        }
    }

    fn public_feed<'s>(&self, state: &'s mut State, now: Time) -> &'s mut Feed {
        if state.feeds.org_mut().public.is_none() {
            let epoch = self.common.epoch_of(|| StreamHash::of_public(self.org.as_str()));
            let feed = Feed::new(View::Public, epoch, self.common.memory.clone());
            state.feeds.org_mut().public = Some(Box::new(feed));
            self.fill(state, View::Public, now);
        }
        state.feeds.org_mut().public.as_deref_mut().expect("it has just been created")
    }

    /// Marks the seats of every shard as dirty for which there is something new. Returns the shards on which they
    /// were clean.
    pub(crate) fn mark_dirty(&self) -> SmallVec<[(ShardId, Dirty); 8]> {
        let mut state = self.state.lock();
        let State { feeds, closing, .. } = &mut *state;
        let mut marked = SmallVec::new();
        match feeds {
            Feeds::Org(feeds) => {
                feeds
                    .iter_mut()
                    .for_each(|(_, feed)| feed.mark_dirty(closing.is_some(), &mut marked));
            }
            Feeds::Topic(topic) => topic.feed.mark_dirty(closing.is_some(), &mut marked),
        }
        marked
    }

    /// The shards on which it has seats.
    pub(crate) fn shards(&self) -> SmallVec<[ShardId; 8]> {
        let state = self.state.lock();
        let views = [View::Member, View::Public, View::Topic].into_iter();
        let shards = views.filter_map(|view| state.feeds.shards(view));
        let shards = shards.flat_map(|shards| (0..).map(ShardId).zip(shards));
        shards.filter_map(|(shard, seats)| (seats.len() > 0).then_some(shard)).collect()
    }

    /// Removes events that are too old. Returns whether the channel has been idle for so long that no client
    /// can resume.
    pub(crate) fn expire(&self, now: Time) -> bool {
        let age = self.common.config.history_age;
        let mut state = self.state.lock();
        for (_, feed) in state.feeds.org_mut().iter_mut() {
            if let Some(oldest) = now.before(age) {
                feed.history.expire(oldest);
            }
            feed.expire_commands(now);
        }
        state.idle_since().is_some_and(|since| now >= since.after(age))
    }

    /// The time since which the channel has had neither seats nor a held burst; `None` while it has.
    pub(crate) fn idle_since(&self) -> Option<Time> {
        self.state.lock().idle_since()
    }

    /// Marks an idle channel as removed. Returns whether it was idle: then the caller, which holds the lock of
    /// its partition, removes it from the registry.
    pub(crate) fn retire(&self) -> bool {
        let mut state = self.state.lock();
        state.removed = state.idle_since().is_some();
        state.removed
    }

    /// Appends these keys to the feeds that show any of them. Returns the id of the members' event.
    fn append<'k>(
        &self,
        feeds: &mut OrgFeeds,
        keys: impl Iterator<Item = &'k str> + Clone,
        now: Time,
    ) -> EventId {
        let id = self.append_to(feeds, View::Member, keys.clone(), now);
        self.append_public(feeds, keys, now);
        id
    }

    /// Appends those of these keys that the public sees to its feed, if it has one.
    pub(super) fn append_public<'k>(
        &self,
        feeds: &mut OrgFeeds,
        keys: impl Iterator<Item = &'k str> + Clone,
        now: Time,
    ) {
        if feeds.public.as_ref().is_none_or(|feed| !feed.history.is_fresh()) {
            return;
        }
        let mut visible = keys.filter(|key| self.shows(key)).peekable();
        if visible.peek().is_some() {
            self.append_to(feeds, View::Public, visible, now);
        }
    }

    /// Appends an event to the feed of a view, which exists. Where it is too large, subscribers have to re-read
    /// everything.
    pub(super) fn append_to<'k>(
        &self,
        feeds: &mut OrgFeeds,
        view: View,
        keys: impl Iterator<Item = &'k str> + Clone,
        now: Time,
    ) -> EventId {
        let Common { config, memory, .. } = &*self.common;
        let feed = feeds.get_mut(view).expect(EXISTS);
        let id = feed.history.next_id();
        let bits = feed.has_filters().then(|| KeyBits::of(keys.clone()));
        let Some(frame) = Frame::invalidate_in(memory, id, keys, config.event_bytes_max) else {
            feed.lose();
            return id;
        };
        let history = &mut feed.history;
        let event = Event { frame, published: now };
        if let Some(oldest) = now.before(config.history_age) {
            history.expire(oldest);
        }
        while history.len() > 0 && history.len() >= config.history_events {
            history.evict();
        }
        feeds.make_room(view, Some(event.frame.cost()), config, memory);
        let feed = feeds.get_mut(view).expect(EXISTS);
        feed.history.append(event);
        if let Some(bits) = bits {
            feed.history.hint(bits);
        }
        feed.keep_uncovered(now);
        // Its ring may have grown, and what is kept for a reread counts too.
        feeds.make_room(view, None, config, memory);
        id
    }

    /// Whether the org's public streams show the key.
    pub(super) fn shows(&self, key: &str) -> bool {
        self.public && self.common.config.public.keys.allows(key)
    }

    /// Changes a seat, if it is still taken, and sets a stall timer if `change` returns that one is needed.
    pub(super) fn block<T>(
        self: &Arc<Self>,
        shard: ShardId,
        key: SeatKey,
        change: impl FnOnce(&mut Seat, Tick) -> (bool, T),
    ) -> Option<T> {
        let at = self.common.shard(shard);
        let tick = at.tick();
        let (stalls_at, value) = {
            let mut state = self.state.lock();
            let seat = state.feeds.seat_mut(shard, key)?;
            let (needs_timer, value) = change(seat, tick);
            (needs_timer.then(|| seat.stalls_after(tick, &self.common)), value)
        };
        if let Some(stalls_at) = stalls_at {
            at.set_timer(stalls_at, Timer::stall(SeatRef::new(self, key)));
        }
        Some(value)
    }
}

const EXISTS: &str = "the feed has an event to append";

// ===== impl State =====

impl State {
    fn new(feeds: Feeds, now: Time) -> Self {
        let coalescer = Coalescer::default();
        Self { feeds, coalescer, idle_since: now, closing: None, removed: false, publishes: 0 }
    }

    /// Takes a seat in a feed. The caller has made sure that the feed exists.
    pub(crate) fn take_seat(
        &mut self,
        shard: ShardId,
        view: View,
        position: Seq,
        tick: Tick,
    ) -> SeatKey {
        self.feeds.seats_mut(shard, view).insert(position, tick)
    }

    /// Frees a seat.
    pub(crate) fn free_seat(&mut self, shard: ShardId, key: SeatKey) -> Option<Seat> {
        self.feeds.free_seat(shard, key)
    }

    /// Counts publishes.
    pub(super) fn count_publishes(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.publishes = self.publishes.saturating_add(count);
    }

    /// Publishes since this was last called.
    #[cfg(feature = "server")]
    pub(super) fn take_publishes(&mut self) -> u32 {
        std::mem::take(&mut self.publishes)
    }

    /// Subscribers of this view.
    pub(crate) fn seats_of(&self, view: View) -> usize {
        self.feeds.seats_of(view)
    }

    /// Subscribers of all views.
    pub(crate) fn seats(&self) -> usize {
        self.feeds.seats()
    }

    /// Notes that the channel is in use until `now`.
    pub(crate) fn use_until(&mut self, now: Time) {
        self.idle_since = self.idle_since.max(now);
    }

    /// Until when the channel was in use; meaningless while it has seats.
    pub(crate) fn last_use(&self) -> Time {
        self.idle_since
    }

    fn idle_since(&self) -> Option<Time> {
        (self.seats() == 0 && !self.coalescer.is_holding()).then_some(self.idle_since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that is small enough lies in what is left of the word of the others.
    #[test]
    fn to_count_publishes_costs_a_channel_no_memory() {
        struct Uncounted {
            _feeds: Feeds,
            _coalescer: Coalescer,
            _idle_since: Time,
            _closing: Option<CloseReason>,
            _removed: bool,
        }
        assert_eq!(size_of::<State>(), size_of::<Uncounted>());
    }
}
