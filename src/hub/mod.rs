//! Who gets what. The hub maps organisations to channels and takes subscriptions and publishes; it
//! knows no HTTP, no socket, no runtime, and no clock: `now` is passed in.
//!
//! ```text
//! publish ──► Channel: append to History ──► mark its shards dirty ──► wake their drivers, once each
//! driver  ──► Sweep: walk the channel's seats on this shard ──► wake (or write to) who is behind
//! stream  ──► Subscription: take what lies between the cursor and the head
//! ```
//!
//! Locks, outermost first: registry partition or either wheel, channel. An inbox is locked alone. None is held
//! while a waker is woken or dropped.

mod channel;
mod drain;
mod history;
mod keys;
mod registry;
mod seat;
mod shard;
mod subscription;
mod sweep;
mod timers;
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
use self::drain::DrainWindow;
use self::registry::Partition;
use self::shard::{Common, Shard};
use crate::config::HubConfig;
use crate::ids::{Epoch, EventId, OrgName, Time};
use crate::metrics::{self, Counters};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::wire::Greeting;

pub use self::history::View;
pub use self::keys::{InvalidKeys, Keys};
pub use self::subscription::Subscription;
pub use self::timers::Deadline;
pub(crate) use self::{
    drain::{Drain, Pace},
    history::Event,
    seat::shrink_if_sparse,
    shard::SeatRef,
    subscription::{Frames, Taken},
    sweep::{Batch, SEATS_PER_TURN, Sweep, WriteKind, WriteOp},
    timers::{SeatHandle, Timer},
};

/// A handle on the hub, through one of its shards. Cloning shares the hub.
///
/// A shard is one worker's share: what is published and subscribed through a handle is driven by the
/// driver of its shard, see [`drive`](crate::stream::drive).
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    shard: usize,
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
#[non_exhaustive]
pub enum SubscribeError {
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
    partitions: [Mutex<Partition>; PARTITIONS],
    hasher: RandomState,
    next_epoch: AtomicU64,
    /// Nobody is taken in any more.
    closing: AtomicBool,
    /// Every channel knows.
    closed: AtomicBool,
    /// Over which time streams end, if not at once.
    drain: Mutex<Option<DrainWindow>>,
}

/// Parts of the registry, each behind its own lock; one of them is tidied at every tick. One is
/// enough for loom, which would explore them all.
const PARTITIONS: usize = if cfg!(nudged_loom) { 1 } else { 64 };

// ===== impl Hub =====

impl Hub {
    /// A hub with one shard, for an application that drives it itself.
    pub fn new(config: HubConfig) -> Self {
        Self::with_shards(config, 1)
    }

    /// A hub with several shards (1 to 65,536); the handle is on the first.
    pub fn with_shards(config: HubConfig, shards: usize) -> Self {
        let common = Common {
            config,
            shards: (0..shards).map(|_| Shard::new()).collect(),
            history_bytes: AtomicU64::new(0),
        };
        let hasher = RandomState::new();
        // The standard library's hasher is seeded by the operating system: no two runs share epochs.
        let next_epoch = AtomicU64::new(hasher.hash_one("epoch"));
        let shared = Shared {
            common: Arc::new(common),
            partitions: std::array::from_fn(|_| Mutex::new(Partition::default())),
            hasher,
            next_epoch,
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            drain: Mutex::new(None),
        };
        Self { shared: Arc::new(shared), shard: 0 }
    }

    /// The same hub through another shard.
    pub fn on_shard(&self, shard: usize) -> Self {
        assert!(shard < self.shared.common.shards.len(), "shard {shard} does not exist");
        Self { shared: self.shared.clone(), shard }
    }

    /// Takes a seat. A client that comes back with an id that is still covered is resumed from
    /// there, any other starts at the head.
    ///
    /// # Errors
    /// [`SubscribeError`]: the hub was told to close, or the org has [as many streams as it
    /// may](HubConfig::org_streams_max).
    pub fn subscribe(
        &self,
        org: &OrgName,
        view: View,
        last_event_id: Option<EventId>,
        now: Time,
    ) -> Result<(Subscription, Greeting), SubscribeError> {
        loop {
            let channel = self.channel(org, now);
            let mut state = channel.state.lock();
            // Closing marks every channel in the registry, so the flag is looked at under the lock.
            if self.shared.closing.load(Ordering::Acquire) {
                return Err(SubscribeError::Closing);
            }
            if state.removed {
                continue;
            }
            if let Some(max) = self.config().org_streams_max.filter(|max| state.seats() >= *max) {
                return Err(SubscribeError::OrgFull { max });
            }
            let resumed = last_event_id.filter(|id| state.history.covers_id(*id));
            let position = resumed.map_or_else(|| state.history.head(), |id| id.seq);
            let subscription = Subscription::new(&channel, &mut state, self.shard, view, position);
            drop(state);
            subscription.arm();
            let greeting = resumed.map_or(Greeting::Connected, |_| Greeting::Resumed);
            return Ok((subscription, greeting));
        }
    }

    /// Tells every subscriber of `org` that it holds stale keys. Without a channel there is neither
    /// a subscriber nor anyone with an id to come back with, so nothing is kept.
    pub fn publish(&self, org: &OrgName, keys: &Keys<'_>, now: Time) -> Published {
        metrics::add(&self.shard().counters.published, 1);
        let channel = self.partition(org).lock().get(org).cloned();
        let Some(channel) = channel else { return Published { id: None } };
        let id = match channel.publish(keys, now) {
            Outcome::Appended(id) => {
                self.common().schedule(&channel);
                id
            }
            Outcome::Held(id, closes) => {
                metrics::add(&self.shard().counters.coalesced, 1);
                self.shard().push_window(closes, channel);
                id
            }
            Outcome::Joined(id) => {
                metrics::add(&self.shard().counters.coalesced, 1);
                id
            }
        };
        Published { id: Some(id) }
    }

    /// Ends every stream once it has been handed what there is, and takes in no more.
    pub fn close(&self, now: Time) {
        self.shared.closing.store(true, Ordering::Release);
        for partition in &self.shared.partitions {
            let channels: Vec<_> = partition.lock().channels().cloned().collect();
            for channel in channels {
                channel.release(now);
                channel.state.lock().closing = true;
                self.common().schedule(&channel);
            }
        }
        // A stream that was being taken in counts as a seat before it can wait, and it either waited
        // before its channel knew or will see what its channel knows. So from here on a driver that
        // finds no seat will not be needed by one.
        self.shared.closed.store(true, Ordering::Release);
        self.common().shards.iter().for_each(Shard::wake);
    }

    /// Ends every stream once it has been handed what there is, and takes in no more, as
    /// [`Hub::close`] does, but spreads the ends evenly over `window` from `now` on, so that the
    /// clients do not come back as a herd. Until its turn comes a stream goes on as before.
    pub fn drain(&self, now: Time, window: Duration) {
        *self.shared.drain.lock() = Some(DrainWindow { from: now, to: now.after(window) });
        self.shared.closing.store(true, Ordering::Release);
        self.common().shards.iter().for_each(Shard::wake);
    }

    /// Whether the hub was told to close or to drain.
    pub fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// Whether the shard's driver may end: the hub is closed or the shard drained, and the shard's last
    /// stream has ended.
    pub(crate) fn is_over(&self) -> bool {
        let told = self.shared.closed.load(Ordering::Acquire)
            || self.shard().drained.load(Ordering::Acquire);
        told && self.seats_on_shard() == 0
    }

    /// Whether each shard's driver has ticked since `tick`, or has ended because all was over.
    pub(crate) fn is_driven_since(&self, tick: u32) -> bool {
        (0..self.common().shards.len())
            .map(|shard| self.on_shard(shard))
            .all(|shard| shard.shard().tick() >= tick || shard.is_over())
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

    /// The counters of every shard.
    pub(crate) fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.common().shards.iter().map(|shard| &shard.counters)
    }

    /// Has the shard's driver woken at the next work, or when all is over. Returns whether there is
    /// some, or it is, already, and when the next window closes.
    pub(crate) fn register(&self, driver: &Waker) -> (bool, Option<Time>) {
        let (dirty, closes) = self.shard().register(driver);
        (dirty || self.is_over(), closes)
    }

    /// Wakes the shard's driver, for work that the hub does not know of.
    pub(crate) fn wake_driver(&self) {
        self.shard().wake();
    }

    /// Seats that are taken through this shard.
    pub(crate) fn seats_on_shard(&self) -> usize {
        self.shard().seats.load(Ordering::Relaxed) as usize
    }

    /// The counters of this shard.
    pub(crate) fn shard_counters(&self) -> &Counters {
        &self.shard().counters
    }

    /// Forgets, in one part of the registry, the history that is too old and the orgs that nobody
    /// can come back to. Every part has its turn once in as many ticks as there are parts.
    pub(crate) fn tidy(&self, tick: u32, now: Time) {
        self.shared.partitions[tick as usize % PARTITIONS].lock().tidy(now, self.idle_max());
    }

    fn channel(&self, org: &OrgName, now: Time) -> Arc<Channel> {
        let mut partition = self.partition(org).lock();
        if let Some(channel) = partition.get(org) {
            return channel.clone();
        }
        let epoch = Epoch(self.shared.next_epoch.fetch_add(1, Ordering::Relaxed));
        let channel = Arc::new(Channel::new(org.clone(), self.shared.common.clone(), epoch, now));
        partition.insert(channel.clone(), self.idle_max());
        channel
    }

    fn partition(&self, org: &OrgName) -> &Mutex<Partition> {
        let hash = self.shared.hasher.hash_one(org);
        &self.shared.partitions[usize::try_from(hash % PARTITIONS as u64).expect("a partition")]
    }

    fn sum(&self, of: impl Fn(&Channel) -> usize) -> usize {
        let partition = |partition: &Mutex<Partition>| {
            partition.lock().channels().map(|c| of(c)).sum::<usize>()
        };
        self.shared.partitions.iter().map(partition).sum()
    }

    /// Idle orgs in one part of the registry.
    fn idle_max(&self) -> usize {
        self.config().idle_channels_max / PARTITIONS
    }

    fn common(&self) -> &Common {
        &self.shared.common
    }

    fn shard(&self) -> &Shard {
        &self.shared.common.shards[self.shard]
    }
}

impl Drop for Shared {
    /// Channels know their shards, and a shard with work knows its channels.
    fn drop(&mut self) {
        self.common.shards.iter().for_each(Shard::forget_work);
    }
}
