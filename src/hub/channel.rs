//! One org's channel: its history, the window that unions bursts, and its seats. Everything here is
//! behind one lock and returns what has to be done once it is released.

use std::sync::Arc;

use indexmap::IndexSet;
use smallvec::SmallVec;

use super::history::{Event, History};
use super::keys::Keys;
use super::seat::Seats;
use super::shard::Common;
use crate::config::HubConfig;
use crate::ids::{Epoch, EventId, OrgName, Time};
use crate::sync::{Mutex, Ordering};
use crate::wire::Frame;

/// One org's channel. It is reached through the registry, from its subscriptions, and from the wheel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) org: OrgName,
    /// Whether a public stream of it may exist.
    pub(crate) public: bool,
    pub(crate) common: Arc<Common>,
    pub(crate) state: Mutex<State>,
}

/// What the lock protects.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) history: History,
    window: Coalescer,
    /// The seats by shard; a shard that never had one may be missing.
    pub(crate) shards: SmallVec<[Seats; 2]>,
    /// When the last seat was freed; meaningless while there are any.
    pub(crate) idle_since: Time,
    /// Every stream ends once it has been handed what there is.
    pub(crate) closing: bool,
    /// It has left the registry; who found it before that has to look again.
    pub(crate) removed: bool,
}

/// The time after an event in which publishes are held back and become one event.
#[derive(Debug)]
struct Coalescer {
    closes: Time,
    held: Option<Box<IndexSet<Box<str>>>>,
    /// More keys were held than one event may have.
    overflowed: bool,
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is the event with this id, which is in the history now.
    Appended(EventId),
    /// It will be part of the event with this id, which already waited.
    Joined(EventId),
    /// It will be part of the event with this id, which has to be released at this time.
    Held(EventId, Time),
}

// ===== impl Channel =====

impl Channel {
    pub(crate) fn new(org: OrgName, common: Arc<Common>, epoch: Epoch, now: Time) -> Self {
        let state = State {
            history: History::new(epoch),
            window: Coalescer { closes: Time(0), held: None, overflowed: false },
            shards: SmallVec::new(),
            idle_since: now,
            closing: false,
            removed: false,
        };
        Self { public: common.config.public.shows(&org), org, common, state: Mutex::new(state) }
    }

    pub(crate) fn publish(&self, keys: &Keys<'_>, now: Time) -> Outcome {
        let mut state = self.state.lock();
        let coalesce = self.common.config.coalesce;
        let quiet = state.window.held.is_none() && now >= state.window.closes;
        if coalesce.is_zero() || quiet {
            state.window.closes = now.after(coalesce);
            return Outcome::Appended(self.append(&mut state, keys.iter(), now));
        }
        let id = state.history.id(state.history.head() + 1);
        let first = state.window.hold(keys, self.common.config.keys_max);
        if first { Outcome::Held(id, state.window.closes) } else { Outcome::Joined(id) }
    }

    /// Releases what the window holds, if it holds anything.
    pub(crate) fn release(&self, now: Time) {
        let mut state = self.state.lock();
        let Some(held) = state.window.held.take() else { return };
        state.window.closes = now.after(self.common.config.coalesce);
        if std::mem::take(&mut state.window.overflowed) {
            let before = state.history.bytes();
            state.history.lose();
            self.common.history_bytes.fetch_sub(before as u64, Ordering::Relaxed);
        } else {
            self.append(&mut state, held.iter().map(AsRef::as_ref), now);
        }
    }

    /// The shards that have to sweep because of a change, each only if it does not know yet.
    pub(crate) fn mark_dirty(&self) -> SmallVec<[usize; 8]> {
        let mut state = self.state.lock();
        let shards = state.shards.iter_mut().enumerate();
        shards.filter_map(|(shard, seats)| seats.mark_dirty().then_some(shard)).collect()
    }

    /// Forgets what is too old. Returns whether nothing is left that anyone could come back to.
    pub(crate) fn expire(&self, now: Time) -> bool {
        let age = self.common.config.history_age;
        let mut state = self.state.lock();
        let before = state.history.bytes();
        if let Some(oldest) = now.before(age) {
            state.history.expire(oldest);
        }
        self.account(before, state.history.bytes());
        state.idle_since().is_some_and(|since| now >= since.after(age))
    }

    /// Since when nobody has listened or been waited for; `None` while somebody is.
    pub(crate) fn idle_since(&self) -> Option<Time> {
        self.state.lock().idle_since()
    }

    /// Takes the channel out of use unless somebody has come back to it. Returns whether it did; the
    /// accepted holds the registry, from which the channel has to go then.
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
        let config = &self.common.config;
        let before = state.history.bytes();
        let id = state.history.id(state.history.head() + 1);
        let member = Frame::invalidate(id, keys.clone());
        let public = self.public.then(|| public_variant(config, id, keys, &member)).flatten();
        state.history.append(Event { member, public, published: now });
        self.trim(&mut state.history, before, now);
        id
    }

    /// Brings the history back within its bounds; the newest event always stays.
    fn trim(&self, history: &mut History, before: usize, now: Time) {
        let config = &self.common.config;
        if let Some(oldest) = now.before(config.history_age) {
            history.expire(oldest);
        }
        let used_by_others =
            self.common.history_bytes.load(Ordering::Relaxed).saturating_sub(before as u64);
        let left = (config.history_bytes_total as u64).saturating_sub(used_by_others);
        let bytes_max = config.history_bytes.min(usize::try_from(left).unwrap_or(usize::MAX));
        while history.len() > 1
            && (history.len() > config.history_events || history.bytes() > bytes_max)
        {
            history.evict();
        }
        self.account(before, history.bytes());
    }

    fn account(&self, before: usize, after: usize) {
        let total = &self.common.history_bytes;
        if after >= before {
            total.fetch_add((after - before) as u64, Ordering::Relaxed);
        } else {
            total.fetch_sub((before - after) as u64, Ordering::Relaxed);
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let bytes = self.state.lock().history.bytes();
        self.account(bytes, 0);
    }
}

/// The event with the keys that anyone may see: the same frame where that is all of them, `None`
/// where it is none.
fn public_variant<'k>(
    config: &HubConfig,
    id: EventId,
    keys: impl Iterator<Item = &'k str> + Clone,
    member: &Frame,
) -> Option<Frame> {
    let allowed = |key: &&str| config.public.keys.allows(key);
    if keys.clone().all(|key| allowed(&key)) {
        return Some(member.clone());
    }
    let mut visible = keys.filter(allowed).peekable();
    visible.peek()?;
    Some(Frame::invalidate(id, visible))
}

// ===== impl State =====

impl State {
    /// The seats of a shard, which this makes room for.
    pub(crate) fn seats_mut(&mut self, shard: usize) -> &mut Seats {
        while self.shards.len() <= shard {
            self.shards.push(Seats::default());
        }
        &mut self.shards[shard]
    }

    fn idle_since(&self) -> Option<Time> {
        (self.seats() == 0 && self.window.held.is_none()).then_some(self.idle_since)
    }

    /// Subscribers on all shards, counted in the slabs.
    pub(crate) fn seats(&self) -> usize {
        self.shards.iter().map(Seats::len).sum()
    }
}

// ===== impl Coalescer =====

impl Coalescer {
    /// Adds to what is held. Returns whether these are the first keys.
    fn hold(&mut self, keys: &Keys<'_>, keys_max: usize) -> bool {
        let first = self.held.is_none();
        let held = self.held.get_or_insert_default();
        if self.overflowed {
            return first;
        }
        for key in keys.iter() {
            if !held.contains(key) {
                held.insert(key.into());
            }
        }
        if held.len() > keys_max {
            self.overflowed = true;
            **held = IndexSet::new();
        }
        first
    }
}
