//! The hub maps organisations and their topics to channels, and takes subscriptions and publishes. It knows no HTTP, no
//! socket, no runtime, and no clock: `now` is passed in.
//!
//! ```text
//! publish ──► Channel: append to the Histories ──► mark its shards dirty ──► wake their drivers, once each
//! driver  ──► Sweep: visit the channel's seats on this shard ──► wake (or write to) those that are behind
//! stream  ──► Subscription: take what lies between the cursor and the head
//! ```
//!
//! Locks, outermost first: that of applying records of a shared log, registry partition or either wheel, channel, list of
//! idle topics. An inbox, the list of closed topics, and the state of a shared log are locked alone or innermost. But for
//! the first, which only an upgrade waits for, none is held while a waker is woken or
//! dropped.

mod backlog;
mod base;
mod batch;
#[cfg(feature = "server")]
mod busiest;
mod channel;
mod coalesce;
mod command;
mod command_passes;
mod drain;
mod driver;
mod encoded_at;
mod feed;
mod filter;
mod hints;
mod history;
mod keys;
#[cfg(feature = "server")]
mod largest;
mod log;
mod pass;
mod pauses;
#[cfg(feature = "server")]
mod perform;
mod position;
#[cfg(feature = "server")]
pub(crate) mod record;
mod registry;
mod rivals;
mod seat;
mod seat_ref;
mod seats;
mod shard;
#[cfg(feature = "server")]
mod shared;
#[cfg(not(feature = "server"))]
#[path = "no_shared.rs"]
mod shared;
mod source;
#[cfg(feature = "server")]
pub(crate) mod state;
mod steps;
mod subscription;
mod sweep;
mod timers;
mod topic;
mod topics;
pub(crate) mod wheel;

#[cfg(all(test, nudged_loom))]
mod loom;
#[cfg(all(any(test, fuzzing), not(nudged_loom)))]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use self::channel::{Channel, Outcome};
use self::command::Reached;
use self::pass::Window;
use self::registry::{PARTITIONS, Registry};
use self::shard::{Common, Shard, ShardId};
use self::topics::Topics;
use crate::config::HubConfig;
use crate::ids::{EventId, OrgName};
use crate::metrics::{self, CloseReason, Counters};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::time::Time;
use crate::wire::Greeting;

#[cfg(feature = "server")]
pub(crate) use self::busiest::{Busiest, Busy, Numbers, Ranks, Visits};
pub use self::feed::View;
pub use self::filter::{Filter, InvalidFilter};
pub use self::keys::{InvalidKeys, Keys};
#[cfg(feature = "server")]
pub(crate) use self::perform::{CannotPerform, Performed};
pub use self::position::{Position, Positions};
#[cfg(feature = "server")]
pub use self::shared::{Applied, TailUse};
pub use self::subscription::Subscription;
pub use self::timers::Deadline;
pub use self::topic::Start;
pub(crate) use self::{
    batch::{Batch, SEATS_PER_TURN, SocketId, WriteKind, WriteOp},
    command::RereadAll,
    command_passes::CommandPasses,
    drain::Drain,
    driver::ShardDriver,
    pass::Pace,
    seat_ref::{SeatHandle, SeatRef},
    seats::{is_sparse, shrink_if_sparse},
    subscription::{Frames, Taken},
    sweep::Sweep,
    timers::Timer,
};

/// A handle to the hub, through one of its shards. Cloning shares the hub.
///
/// A shard is one worker's share: streams that are opened through a handle are served by the driver of its
/// shard, see [`drive`](crate::stream::drive).
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    shard: ShardId,
}

/// The result of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The id of the event that carries the keys; `None` if the org has neither subscribers nor clients that
    /// could resume.
    pub id: Option<EventId>,
}

/// Why a subscription was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The hub is closing.
    Closing,
    /// The org has as many streams of this view as it may have.
    OrgFull {
        /// The limit.
        max: usize,
    },
    /// The topic has as many streams as it may have.
    TopicFull {
        /// The limit.
        max: usize,
    },
    /// The view is [`View::Topic`], and no topic is named: [`Hub::subscribe_topic`] opens streams of topics.
    NoTopic,
}

#[derive(Debug)]
struct Shared {
    common: Arc<Common>,
    registry: Registry,
    topics: Topics,
    /// Subscriptions are refused from now on.
    closing: AtomicBool,
    /// Every channel is marked as closing.
    closed: AtomicBool,
    /// Over which time streams end, if not at once.
    drain: Mutex<Option<Window>>,
    /// The last command to all streams to re-read everything: its number, which counts them, and its window.
    reread: Mutex<Option<(u64, Window)>>,
    /// Its number; 0 before the first.
    rereads: AtomicU64,
}

// ===== impl Hub =====

impl Hub {
    /// A hub with one shard, for an application that drives it itself.
    pub fn new(config: HubConfig) -> Self {
        Self::with_shards(config, 1)
    }

    /// A hub with several shards (1 to 65,536); the handle is on the first.
    pub fn with_shards(config: HubConfig, shards: usize) -> Self {
        Self::with_common(Common::new(config, shards))
    }

    fn with_common(common: Common) -> Self {
        let common = Arc::new(common);
        let shared = Shared {
            registry: Registry::new(common.clone()),
            topics: Topics::new(common.clone()),
            common,
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            drain: Mutex::new(None),
            reread: Mutex::new(None),
            rereads: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), shard: ShardId(0) }
    }

    /// The same hub through another shard.
    pub fn on_shard(&self, shard: usize) -> Self {
        assert!(shard < self.shared.common.shards.len(), "shard {shard} does not exist");
        let shard = ShardId(u16::try_from(shard).expect("the hub has at most 65,536 shards"));
        Self { shared: self.shared.clone(), shard }
    }

    /// Takes a seat. A client that comes back with an id that the history covers resumes from there; any other
    /// starts at the newest event. Streams of topics open with [`Self::subscribe_topic`].
    ///
    /// # Errors
    /// [`SubscribeError`]: the hub is closing, the org has as many streams of this view [as it
    /// may](HubConfig::org_streams_max), or the view is [`View::Topic`].
    pub fn subscribe(
        &self,
        org: &OrgName,
        view: View,
        last_event_id: Option<EventId>,
        now: Time,
    ) -> Result<(Subscription, Greeting), SubscribeError> {
        if view == View::Topic {
            return Err(SubscribeError::NoTopic);
        }
        loop {
            let channel = self.shared.registry.get_or_create(org, now);
            let mut state = channel.state.lock();
            // Closing marks every channel in the registry, so the flag is read under the channel's lock.
            if self.is_closing() {
                return Err(SubscribeError::Closing);
            }
            if state.removed {
                continue;
            }
            if let Some(max) = self.org_max(view).filter(|max| state.seats_of(view) >= *max) {
                return Err(SubscribeError::OrgFull { max });
            }
            let history = &channel.feed(&mut state, view, now).history;
            let has = |mark| self.shared.common.has_mark(mark);
            let resumed = last_event_id.and_then(|id| history.resume(id, has));
            let position = resumed.unwrap_or_else(|| history.head());
            let subscription = Subscription::new(&channel, &mut state, self.shard, view, position);
            drop(state);
            subscription.arm();
            let greeting = resumed.map_or(Greeting::Connected, |_| Greeting::Resumed);
            return Ok((subscription, greeting));
        }
    }

    /// Notifies every subscriber of `org` that its copies of `keys` are stale. An org without a channel has
    /// neither subscribers nor clients that could resume, so nothing is kept.
    ///
    /// # Panics
    /// In a debug build, if the hub follows a log (`Hub::with_log`): the keys have to be appended to the log, or no other
    /// server would deliver them. The same holds for [`Self::publish_message`], [`Self::close_topic`],
    /// [`Self::end_members`], [`Self::reread`] and [`Self::reread_all`].
    pub fn publish(&self, org: &OrgName, keys: &Keys<'_>, now: Time) -> Published {
        self.assert_alone();
        let counters = self.shard_counters();
        metrics::add(&counters.published, 1);
        let Some(channel) = self.shared.registry.get(org) else { return Published { id: None } };
        let id = match channel.publish(keys, now) {
            Outcome::Appended(id) => {
                self.shared.common.schedule(&channel);
                id
            }
            Outcome::Held(id, closes) => {
                metrics::add(&counters.coalesced, 1);
                self.shared.common.push_window(self.shard, closes, &channel, now);
                id
            }
            Outcome::Joined(id) => {
                metrics::add(&counters.coalesced, 1);
                id
            }
        };
        Published { id: Some(id) }
    }

    /// Ends every stream once it has received what there is, and refuses new ones.
    pub fn close(&self, now: Time) {
        self.shared.closing.store(true, Ordering::Release);
        for channels in (0..).map_while(|partition| self.shared.all_channels_of(partition)) {
            for channel in channels {
                channel.release(now);
                channel.state.lock().closing.get_or_insert(CloseReason::Drained);
                self.shared.common.schedule(&channel);
            }
        }
        // Any concurrent `subscribe` either counts its seat before its channel is marked, or observes
        // `closing`. So from here on a driver that finds no seat may end.
        self.shared.closed.store(true, Ordering::Release);
        self.shared.wake_drivers();
    }

    /// Ends every stream once it has received what there is, and refuses new ones, as [`Hub::close`]
    /// does, but spreads the ends evenly over `window` from `now` on, so that the clients do not all reconnect
    /// at once. Until its end is due a stream continues as before.
    pub fn drain(&self, now: Time, window: Duration) {
        *self.shared.drain.lock() = Some(Window::from(now, window));
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake_drivers();
    }

    /// Ends the member streams of `org` that are open now, evenly over `window` from `now` on, each with a new
    /// reconnection time, so that each client comes back with its next token, and is refused without one. Until its end
    /// is due a stream continues as before, and then gets no further event: its client resumes. Returns their number.
    pub fn end_members(&self, org: &OrgName, now: Time, window: Duration) -> usize {
        self.assert_alone();
        self.command(org, |channel| channel.command_end(Window::from(now, window)))
    }

    /// Has every client of `org` re-read everything: those of the streams that are open now get `connected`, evenly
    /// over `window` from `now` on, and no id from before resumes. Until then a stream continues as before. Returns the
    /// number of streams.
    pub fn reread(&self, org: &OrgName, now: Time, window: Duration) -> usize {
        self.assert_alone();
        self.command(org, |channel| channel.command_reread(Window::from(now, window), true))
    }

    /// The same for every org, evenly over all streams. It visits every org before it returns.
    pub fn reread_all(&self, now: Time, window: Duration) -> usize {
        let mut all = self.reread_all_in_parts(now, window);
        while all.step() {}
        all.streams()
    }

    /// The same in steps, between which the caller can let other tasks run.
    pub(crate) fn reread_all_in_parts(&self, now: Time, window: Duration) -> RereadAll<'_> {
        self.assert_alone();
        RereadAll::new(self, Window::from(now, window))
    }

    /// Gives a command to the streams of an org, which the shards' drivers carry out. Returns how many it is for.
    fn command(&self, org: &OrgName, command: impl Fn(&Channel) -> Option<Reached>) -> usize {
        loop {
            let Some(channel) = self.shared.registry.get(org) else { return 0 };
            let Some(Reached { streams, passes }) = command(&channel) else { continue };
            for (shard, view) in passes {
                self.shared.common.shard(shard).push_command(&channel, view);
            }
            return streams;
        }
    }

    /// Whether [`Hub::close`] or [`Hub::drain`] has been called.
    pub fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// Taken seats, counted in the slabs themselves.
    pub fn seats(&self) -> usize {
        let orgs = self.shared.registry.sum(|channel| channel.state.lock().seats());
        orgs + self.shared.topics.seats()
    }

    /// The same for one view.
    #[cfg(feature = "server")]
    fn seats_of(&self, view: View) -> usize {
        let channels = (0..).map_while(|partition| self.shared.all_channels_of(partition));
        channels.flatten().map(|channel| channel.state.lock().seats_of(view)).sum()
    }

    /// Orgs that are remembered.
    pub fn channels(&self) -> usize {
        self.shared.registry.sum(|_| 1)
    }

    /// Bytes of memory for the histories of orgs, and for events that are gone and that streams have still to write.
    pub fn history_bytes(&self) -> u64 {
        self.shared.common.memory.bytes()
    }

    /// Its configuration.
    pub fn config(&self) -> &HubConfig {
        &self.shared.common.config
    }

    /// Has the time of every shard begin at `now`, for a clock that does: what its drivers miss from there on is a pause.
    #[cfg(feature = "server")]
    pub(crate) fn begin(&self, now: Time) {
        self.shared.common.shards.iter().for_each(|shard| shard.advance_tick(now.tick()));
    }

    /// The shard of this handle, for its driver.
    pub(crate) fn driver(&self) -> ShardDriver {
        ShardDriver::new(self.clone())
    }

    /// Wakes the shard's driver, for work that the hub does not know of.
    pub(crate) fn wake_driver(&self) {
        self.shard().wake();
    }

    /// Whether each shard's driver has ticked since `time`, or has ended with its last stream.
    pub(crate) fn is_driven_since(&self, time: Time) -> bool {
        let mut shards = self.shared.common.shards.iter();
        shards.all(|shard| shard.tick() >= time.tick() || self.shared.is_over(shard))
    }

    /// The end of the shard's last pause. No client is judged by silence of this length before it.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn resumed(&self, silence: Duration) -> Time {
        self.shard().pauses.last(silence)
    }

    /// The counters of every shard.
    pub(crate) fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.shared.common.shards.iter().map(|shard| &shard.counters)
    }

    /// The counters of this shard.
    pub(crate) fn shard_counters(&self) -> &Counters {
        &self.shard().counters
    }

    /// The limit of streams of one org with this view.
    fn org_max(&self, view: View) -> Option<usize> {
        match view {
            View::Member => self.config().org_streams_max,
            View::Public => self.config().org_public_streams_max,
            View::Topic => None,
        }
    }

    /// What is published has to be known to every server that follows the log, if there is one.
    fn assert_alone(&self) {
        debug_assert!(self.shared.common.log.is_none(), "it has to be in the log");
    }

    fn shard(&self) -> &Shard {
        self.shared.common.shard(self.shard)
    }
}

// ===== impl Shared =====

impl Shared {
    /// Whether the shard's driver may end: the hub is closed or the shard drained, and the shard's last stream
    /// has ended.
    fn is_over(&self, shard: &Shard) -> bool {
        let ends = self.closed.load(Ordering::Acquire) || shard.drained.load(Ordering::Acquire);
        ends && shard.seats() == 0
    }

    /// The channels of one partition of the orgs, and then of one of the topics; `None` behind the last one.
    fn all_channels_of(&self, partition: usize) -> Option<Vec<Arc<Channel>>> {
        let orgs = self.registry.channels_of(partition);
        orgs.or_else(|| self.topics.channels_of(partition.checked_sub(PARTITIONS)?))
    }

    fn wake_drivers(&self) {
        self.common.shards.iter().for_each(Shard::wake);
    }
}
