//! One org's channel: its history, its burst window, and its seats, behind one lock. What has to be done
//! once the lock is released is returned.

use std::sync::Arc;

use smallvec::SmallVec;

use super::coalesce::{Burst, Coalescer};
use super::history::{Event, History, View};
use super::keys::Keys;
use super::seat::{Seat, SeatKey, Seats};
use super::seat_ref::SeatRef;
use super::shard::{Common, ShardId};
use super::timers::Timer;
use crate::ids::{Epoch, EventId, OrgName, Seq};
use crate::sync::Mutex;
use crate::time::{Tick, Time};
use crate::wire::Frame;

/// One org's channel. The registry and its subscriptions hold it; inboxes and wheels refer to it.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) org: OrgName,
    /// Whether the org may have public streams.
    pub(crate) public: bool,
    pub(crate) common: Arc<Common>,
    pub(crate) state: Mutex<State>,
}

/// What the lock protects.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) history: History,
    coalescer: Coalescer,
    /// The seats by shard; a shard that never had one may be missing.
    pub(crate) shards: SmallVec<[Seats; 2]>,
    /// How many of the seats are of public streams.
    public_seats: u32,
    /// When the last seat was freed; meaningless while there are any.
    pub(crate) idle_since: Time,
    /// Every stream ends once it has received what there is.
    pub(crate) closing: bool,
    /// It has left the registry: a subscriber that found it before has to look its org up again.
    pub(crate) removed: bool,
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
    pub(crate) fn new(org: OrgName, common: Arc<Common>, epoch: Epoch, now: Time) -> Self {
        let state = State {
            history: History::new(epoch, common.memory.clone()),
            coalescer: Coalescer::default(),
            shards: SmallVec::new(),
            public_seats: 0,
            idle_since: now,
            closing: false,
            removed: false,
        };
        Self { public: common.config.public.shows(&org), org, common, state: Mutex::new(state) }
    }

    pub(crate) fn publish(&self, keys: &Keys<'_>, now: Time) -> Outcome {
        let mut state = self.state.lock();
        let coalesce = self.common.config.coalesce;
        if coalesce.is_zero() || !state.coalescer.is_open(now) {
            state.coalescer.open(now.after(coalesce));
            return Outcome::Appended(self.append(&mut state, keys.iter(), now));
        }
        let id = state.history.id(state.history.head() + 1);
        let first = state.coalescer.hold(keys, self.common.config.keys_max);
        if first { Outcome::Held(id, state.coalescer.closes()) } else { Outcome::Joined(id) }
    }

    /// Appends what the burst window holds, if it holds anything.
    pub(crate) fn release(&self, now: Time) {
        let mut state = self.state.lock();
        let Some(burst) = state.coalescer.release() else { return };
        state.coalescer.open(now.after(self.common.config.coalesce));
        match burst {
            Burst::Keys(keys) => {
                self.append(&mut state, keys.iter().map(AsRef::as_ref), now);
            }
            Burst::TooMany => state.history.lose(),
        }
    }

    /// Marks the seats of every shard as dirty. Returns the shards on which they were clean.
    pub(crate) fn mark_dirty(&self) -> SmallVec<[ShardId; 8]> {
        let mut state = self.state.lock();
        let shards = (0..).map(ShardId).zip(&mut state.shards);
        shards.filter_map(|(shard, seats)| seats.mark_dirty().then_some(shard)).collect()
    }

    /// The shards on which it has seats.
    pub(crate) fn shards(&self) -> SmallVec<[ShardId; 8]> {
        let state = self.state.lock();
        let shards = (0..).map(ShardId).zip(&state.shards);
        shards.filter_map(|(shard, seats)| (seats.len() > 0).then_some(shard)).collect()
    }

    /// Removes events that are too old. Returns whether the channel has been idle for so long that no client
    /// can resume.
    pub(crate) fn expire(&self, now: Time) -> bool {
        let age = self.common.config.history_age;
        let mut state = self.state.lock();
        if let Some(oldest) = now.before(age) {
            state.history.expire(oldest);
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

    fn append<'k>(
        &self,
        state: &mut State,
        keys: impl Iterator<Item = &'k str> + Clone,
        now: Time,
    ) -> EventId {
        let common = &self.common;
        let id = state.history.id(state.history.head() + 1);
        let max = common.config.event_bytes_max;
        let Some(member) = Frame::invalidate_in(&common.memory, id, keys.clone(), max) else {
            state.history.lose();
            return id;
        };
        let public = self.public.then(|| public_variant(common, id, keys, &member)).flatten();
        let event = Event { member, public, published: now };
        self.make_room(&mut state.history, &event, now);
        state.history.append(event);
        // Its ring may have grown.
        while state.history.len() > 1 && self.is_over(&state.history, 0) {
            state.history.evict();
        }
        id
    }

    /// Removes the events for which the history has no room besides this one.
    fn make_room(&self, history: &mut History, event: &Event, now: Time) {
        let config = &self.common.config;
        if let Some(oldest) = now.before(config.history_age) {
            history.expire(oldest);
        }
        let cost = event.cost();
        while history.len() > 0
            && (history.len() >= config.history_events || self.is_over(history, cost))
        {
            history.evict();
        }
    }

    /// Whether the history, with so many bytes more, or all of them together have more than they may. These bytes are
    /// counted in the total already.
    fn is_over(&self, history: &History, more: usize) -> bool {
        let Common { config, memory, .. } = &*self.common;
        history.bytes() + more > config.history_bytes
            || memory.bytes() > config.history_bytes_total as u64
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
            let seat = state.seat_mut(shard, key)?;
            let (needs_timer, value) = change(seat, tick);
            (needs_timer.then(|| seat.stalls_after(tick, &self.common)), value)
        };
        if let Some(stalls_at) = stalls_at {
            at.set_timer(stalls_at, Timer::stall(SeatRef::new(self, key)));
        }
        Some(value)
    }
}

/// The event with the public keys only: the same frame if all keys are public, `None` if none is. It is no longer than
/// the member's.
fn public_variant<'k>(
    common: &Common,
    id: EventId,
    keys: impl Iterator<Item = &'k str> + Clone,
    member: &Frame,
) -> Option<Frame> {
    let allowed = |key: &&str| common.config.public.keys.allows(key);
    if keys.clone().all(|key| allowed(&key)) {
        return Some(member.clone());
    }
    let mut visible = keys.filter(allowed).peekable();
    visible.peek()?;
    Frame::invalidate_in(&common.memory, id, visible, usize::MAX)
}

// ===== impl State =====

impl State {
    /// Takes a seat.
    pub(crate) fn take_seat(
        &mut self,
        shard: ShardId,
        view: View,
        position: Seq,
        tick: Tick,
    ) -> SeatKey {
        self.public_seats += u32::from(view == View::Public);
        self.seats_mut(shard).insert(position, tick)
    }

    /// Frees a seat, which was taken for this view.
    pub(crate) fn free_seat(&mut self, shard: ShardId, view: View, key: SeatKey) -> Option<Seat> {
        let seat = self.shards[shard.index()].remove(key)?;
        self.public_seats -= u32::from(view == View::Public);
        Some(seat)
    }

    /// Subscribers of this view.
    pub(crate) fn seats_of(&self, view: View) -> usize {
        match view {
            View::Member => self.seats() - self.public_seats as usize,
            View::Public => self.public_seats as usize,
        }
    }

    /// The seats of a shard, which it adds if they are missing.
    pub(crate) fn seats_mut(&mut self, shard: ShardId) -> &mut Seats {
        while self.shards.len() <= shard.index() {
            self.shards.push(Seats::default());
        }
        &mut self.shards[shard.index()]
    }

    /// The seat with this key, unless it has been freed.
    pub(crate) fn seat_mut(&mut self, shard: ShardId, key: SeatKey) -> Option<&mut Seat> {
        self.shards.get_mut(shard.index())?.get_mut(key)
    }

    fn idle_since(&self) -> Option<Time> {
        (self.seats() == 0 && !self.coalescer.is_holding()).then_some(self.idle_since)
    }

    /// Subscribers on all shards, counted in the slabs.
    pub(crate) fn seats(&self) -> usize {
        self.shards.iter().map(Seats::len).sum()
    }
}
