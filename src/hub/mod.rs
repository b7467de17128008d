//! Who gets what. The hub maps organisations to channels and takes subscriptions and publishes; it
//! knows no HTTP, no socket, no runtime, and no clock: `now` is passed in.
//!
//! ```text
//! publish ──► Channel: append to History ──► mark its lanes dirty ──► wake their drivers, once each
//! driver  ──► Sweep: walk the channel's seats on this lane ──► wake (or write to) who is behind
//! stream  ──► Subscription: take what lies between the cursor and the head
//! ```
//!
//! Locks, outermost first: registry shard or either wheel, channel. An inbox is locked alone. None is held
//! while a waker is woken or dropped.

mod channel;
mod deadline;
mod drain;
mod history;
mod keys;
mod lane;
mod seat;
mod shard;
mod subscription;
mod sweep;
pub(crate) mod wheel;

#[cfg(all(test, nudged_loom))]
mod loom;
#[cfg(all(any(test, fuzzing), not(nudged_loom)))]
pub(crate) mod tests;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use self::channel::{Channel, Outcome};
use self::drain::Window;
use self::lane::{Common, Lane};
use self::shard::Shard;
use crate::config::HubConfig;
use crate::ids::{Epoch, EventId, OrgName, Time};
use crate::metrics::{self, Counters};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::wire::Greeting;

pub use self::deadline::Deadline;
pub use self::history::View;
pub use self::keys::{InvalidKeys, Keys};
pub use self::subscription::Subscription;
pub(crate) use self::{
    deadline::{Alarm, Watch},
    drain::{Drain, Pace},
    history::Event,
    lane::SeatRef,
    seat::give_back_memory,
    subscription::{Frames, Taken},
    sweep::{SEATS_A_TURN, Sweep, Task, Turn, Write},
};

/// A handle on the hub, through one of its lanes. Cloning shares the hub.
///
/// A lane is one worker's share: what is published and subscribed through a handle is driven by the
/// driver of its lane, see [`drive`](crate::stream::drive).
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    lane: usize,
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The id of the event that carries the keys; `None` where there is nobody who could ever ask
    /// for it.
    pub id: Option<EventId>,
}

/// Why somebody is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTakenIn {
    /// The hub is closing.
    Closing,
    /// The org has as many streams as one may have.
    OrgFull {
        /// So many.
        max: usize,
    },
}

#[derive(Debug)]
struct Shared {
    common: Arc<Common>,
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    next_epoch: AtomicU64,
    /// Nobody is taken in any more.
    closing: AtomicBool,
    /// Every channel knows.
    closed: AtomicBool,
    /// Over which time streams end, if not at once.
    drain: Mutex<Option<Window>>,
}

/// Parts of the registry, each behind its own lock; one of them is tidied at every tick. One is
/// enough for loom, which would explore them all.
const SHARDS: usize = if cfg!(nudged_loom) { 1 } else { 64 };

// ===== impl Hub =====

impl Hub {
    /// A hub with one lane, for an application that drives it itself.
    pub fn new(config: HubConfig) -> Self {
        Self::with_lanes(config, 1)
    }

    /// A hub with several lanes (1 to 65,536); the handle is on the first.
    pub fn with_lanes(config: HubConfig, lanes: usize) -> Self {
        let common = Common {
            config,
            lanes: (0..lanes).map(|_| Lane::new()).collect(),
            history_bytes: AtomicU64::new(0),
        };
        let hasher = RandomState::new();
        // The standard library's hasher is seeded by the operating system: no two runs share epochs.
        let next_epoch = AtomicU64::new(hasher.hash_one("epoch"));
        let shared = Shared {
            common: Arc::new(common),
            shards: std::array::from_fn(|_| Mutex::new(Shard::default())),
            hasher,
            next_epoch,
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            drain: Mutex::new(None),
        };
        Self { shared: Arc::new(shared), lane: 0 }
    }

    /// The same hub through another lane.
    pub fn on_lane(&self, lane: usize) -> Self {
        assert!(lane < self.shared.common.lanes.len(), "lane {lane} does not exist");
        Self { shared: self.shared.clone(), lane }
    }

    /// Takes a seat. A client that comes back with an id that is still covered is resumed from
    /// there, any other starts at the head.
    ///
    /// # Errors
    /// [`NotTakenIn`]: the hub was told to close, or the org has [as many streams as it
    /// may](HubConfig::org_streams_max).
    pub fn subscribe(
        &self,
        org: &OrgName,
        view: View,
        last_event_id: Option<EventId>,
        now: Time,
    ) -> Result<(Subscription, Greeting), NotTakenIn> {
        loop {
            let channel = self.channel(org, now);
            let mut state = channel.state.lock();
            // Closing marks every channel in the registry, so the flag is looked at under the lock.
            if self.shared.closing.load(Ordering::Acquire) {
                return Err(NotTakenIn::Closing);
            }
            if state.removed {
                continue;
            }
            if let Some(max) = self.config().org_streams_max.filter(|max| state.seats() >= *max) {
                return Err(NotTakenIn::OrgFull { max });
            }
            let resumed = last_event_id.filter(|id| state.history.covers_id(*id));
            let position = resumed.map_or_else(|| state.history.head(), |id| id.seq);
            let subscription = Subscription::new(&channel, &mut state, self.lane, view, position);
            drop(state);
            subscription.settle();
            let greeting = resumed.map_or(Greeting::Connected, |_| Greeting::Resumed);
            return Ok((subscription, greeting));
        }
    }

    /// Tells every subscriber of `org` that it holds stale keys. Without a channel there is neither
    /// a subscriber nor anyone with an id to come back with, so nothing is kept.
    pub fn publish(&self, org: &OrgName, keys: &Keys<'_>, now: Time) -> Published {
        metrics::add(&self.lane().counters.published, 1);
        let channel = self.shard(org).lock().get(org).cloned();
        let Some(channel) = channel else { return Published { id: None } };
        let id = match channel.publish(keys, now) {
            Outcome::Appended(id) => {
                self.common().spread(&channel);
                id
            }
            Outcome::Held(id, closes) => {
                metrics::add(&self.lane().counters.coalesced, 1);
                self.lane().push_window(closes, channel);
                id
            }
            Outcome::Joined(id) => {
                metrics::add(&self.lane().counters.coalesced, 1);
                id
            }
        };
        Published { id: Some(id) }
    }

    /// Ends every stream once it has been handed what there is, and takes in no more.
    pub fn close(&self, now: Time) {
        self.shared.closing.store(true, Ordering::Release);
        for shard in &self.shared.shards {
            let channels: Vec<_> = shard.lock().channels().cloned().collect();
            for channel in channels {
                channel.release(now);
                channel.state.lock().closing = true;
                self.common().spread(&channel);
            }
        }
        // A stream that was being taken in counts as a seat before it can wait, and it either waited
        // before its channel knew or will see what its channel knows. So from here on a driver that
        // finds no seat will not be needed by one.
        self.shared.closed.store(true, Ordering::Release);
        self.common().lanes.iter().for_each(Lane::wake);
    }

    /// Ends every stream once it has been handed what there is, and takes in no more, as
    /// [`Hub::close`] does, but spreads the ends evenly over `window` from `now` on, so that the
    /// clients do not come back as a herd. Until its turn comes a stream goes on as before.
    pub fn drain(&self, now: Time, window: Duration) {
        *self.shared.drain.lock() = Some(Window { from: now, to: now.after(window) });
        self.shared.closing.store(true, Ordering::Release);
        self.common().lanes.iter().for_each(Lane::wake);
    }

    /// Whether the hub was told to close or to drain.
    pub fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// Whether the lane's driver may end: the hub is closed or the lane drained, and the lane's last
    /// stream has ended.
    pub(crate) fn is_over(&self) -> bool {
        let told = self.shared.closed.load(Ordering::Acquire)
            || self.lane().drained.load(Ordering::Acquire);
        told && self.seats_on_lane() == 0
    }

    /// Whether each lane's driver has ticked since `tick`, or has ended because all was over.
    pub(crate) fn is_driven_since(&self, tick: u32) -> bool {
        (0..self.common().lanes.len())
            .map(|lane| self.on_lane(lane))
            .all(|lane| lane.lane().tick() >= tick || lane.is_over())
    }

    /// Taken seats, counted in the slabs themselves.
    pub fn seats(&self) -> usize {
        self.sum(|channel| channel.state.lock().seats())
    }

    /// Orgs that are remembered.
    pub fn channels(&self) -> usize {
        self.sum(|_| 1)
    }

    /// What the public may see, and the limits of a publish.
    pub fn config(&self) -> &HubConfig {
        &self.common().config
    }

    /// The counters of every lane.
    pub(crate) fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.common().lanes.iter().map(|lane| &lane.counters)
    }

    /// Has the lane's driver woken at the next work, or when all is over. Returns whether there is
    /// some, or it is, already, and when the next window closes.
    pub(crate) fn register(&self, driver: &Waker) -> (bool, Option<Time>) {
        let (dirty, closes) = self.lane().register(driver);
        (dirty || self.is_over(), closes)
    }

    /// Wakes the lane's driver, for work that the hub does not know of.
    pub(crate) fn wake_driver(&self) {
        self.lane().wake();
    }

    /// Seats that are taken through this lane.
    pub(crate) fn seats_on_lane(&self) -> usize {
        self.lane().seats.load(Ordering::Relaxed) as usize
    }

    /// The counters of this lane.
    pub(crate) fn lane_counters(&self) -> &Counters {
        &self.lane().counters
    }

    /// Forgets, in one part of the registry, the history that is too old and the orgs that nobody
    /// can come back to. Every part has its turn once in as many ticks as there are parts.
    pub(crate) fn tidy(&self, tick: u32, now: Time) {
        self.shared.shards[tick as usize % SHARDS].lock().tidy(now, self.idle_max());
    }

    fn channel(&self, org: &OrgName, now: Time) -> Arc<Channel> {
        let mut shard = self.shard(org).lock();
        if let Some(channel) = shard.get(org) {
            return channel.clone();
        }
        let epoch = Epoch(self.shared.next_epoch.fetch_add(1, Ordering::Relaxed));
        let channel = Arc::new(Channel::new(org.clone(), self.shared.common.clone(), epoch, now));
        shard.insert(channel.clone(), self.idle_max());
        channel
    }

    fn shard(&self, org: &OrgName) -> &Mutex<Shard> {
        let hash = self.shared.hasher.hash_one(org);
        &self.shared.shards[usize::try_from(hash % SHARDS as u64).expect("a shard")]
    }

    fn sum(&self, of: impl Fn(&Channel) -> usize) -> usize {
        let shard = |shard: &Mutex<Shard>| shard.lock().channels().map(|c| of(c)).sum::<usize>();
        self.shared.shards.iter().map(shard).sum()
    }

    /// Idle orgs in one part of the registry.
    fn idle_max(&self) -> usize {
        self.config().idle_channels_max / SHARDS
    }

    fn common(&self) -> &Common {
        &self.shared.common
    }

    fn lane(&self) -> &Lane {
        &self.shared.common.lanes[self.lane]
    }
}

impl Drop for Shared {
    /// Channels know their lanes, and a lane with work knows its channels.
    fn drop(&mut self) {
        self.common.lanes.iter().for_each(Lane::forget_work);
    }
}
