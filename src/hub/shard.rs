//! One worker's share of the hub. Other threads leave work in a shard's inbox and wake its driver; the
//! driver alone does it, at its own pace.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::{Arc, Weak};
use std::task::Waker;

use super::channel::Channel;
use super::feed::View;
use super::pauses::Pauses;
use super::seat_ref::SeatRef;
use super::shared::SharedLog;
use super::timers::Timer;
use super::topics::TopicsUse;
use super::wheel::Wheel;
use crate::config::{HubConfig, whole_seconds};
use crate::ids::{Epoch, Mark, StreamHash};
#[cfg(feature = "server")]
use crate::metrics::CloseReason;
use crate::metrics::Counters;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};
use crate::time::{Tick, Time};
use crate::wire::MemoryUse;

/// What all channels and shards of a hub share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) config: HubConfig,
    pub(crate) shards: Box<[Shard]>,
    /// The memory of all histories, and of events that were evicted and that streams still refer to.
    pub(crate) memory: Arc<MemoryUse>,
    pub(crate) topics: TopicsUse,
    /// The log that several servers share, if the hub follows one.
    pub(crate) log: Option<SharedLog>,
    epochs: RandomState,
    epochs_begun: AtomicU64,
}

/// The number of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ShardId(pub(crate) u16);

/// One worker's share.
#[derive(Debug)]
pub(crate) struct Shard {
    id: ShardId,
    inbox: Mutex<Inbox>,
    keepalives: Mutex<Wheel<SeatRef>>,
    /// A wheel of its own, so that a stream without a timer pays nothing for it.
    timers: Mutex<Wheel<Timer>>,
    /// The streams that end with their token, in ticks of the wall clock.
    expiries: Mutex<Wheel<Timer>>,
    /// Taken seats; together with a wheel's length, the number of its stale entries.
    seats: AtomicU32,
    /// Whole seconds, as the driver last counted them.
    tick: AtomicU32,
    pub(crate) pauses: Pauses,
    pub(crate) counters: Counters,
    /// Every stream of the shard has been made to end, and no seat will be taken any more.
    pub(crate) drained: AtomicBool,
}

/// Work for the shard's driver. The lists have at most one entry for a channel's view or a channel, and keep none
/// alive: a channel with seats is held by its subscriptions, one with a held burst by the registry.
#[derive(Debug, Default)]
struct Inbox {
    dirty: VecDeque<(Weak<Channel>, Dirty)>,
    /// Burst windows to close, by time, and by a number that keeps the times apart.
    windows: BTreeMap<(Time, u64), Weak<Channel>>,
    windows_opened: u64,
    /// Seats that a command is for.
    commands: VecDeque<(Weak<Channel>, View)>,
    /// The shard's driver has ended, and closes no window any more.
    ended: bool,
    driver: Option<Waker>,
}

/// The seats that a channel has for a view, to be swept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dirty {
    pub(crate) view: View,
    /// The time of the first event that they have to be visited for, if there is one.
    pub(crate) since: Option<Time>,
}

/// Timers that a seat may have at once: an age, a stall, and one in a drain.
const TIMERS_PER_SEAT: usize = 3;

// ===== impl Shard =====

impl Shard {
    fn new(id: ShardId) -> Self {
        Self {
            id,
            inbox: Mutex::new(Inbox::default()),
            keepalives: Mutex::new(Wheel::new()),
            timers: Mutex::new(Wheel::new()),
            expiries: Mutex::new(Wheel::new()),
            seats: AtomicU32::new(0),
            tick: AtomicU32::new(0),
            pauses: Pauses::default(),
            counters: Counters::default(),
            drained: AtomicBool::new(false),
        }
    }

    pub(crate) fn tick(&self) -> Tick {
        Tick(self.tick.load(Ordering::Relaxed))
    }

    pub(crate) fn set_tick(&self, tick: Tick) {
        self.tick.store(tick.0, Ordering::Relaxed);
    }

    /// Seats that are taken on this shard.
    pub(crate) fn seats(&self) -> usize {
        self.seats.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn add_seat(&self) {
        self.seats.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove_seat(&self) {
        if self.seats.fetch_sub(1, Ordering::Relaxed) == 1 {
            // The driver may be waiting for the last one.
            self.wake();
        }
    }

    /// Has the seat looked at by `tick`, in case its stream is silent by then.
    pub(crate) fn set_keepalive(&self, tick: Tick, seat: SeatRef) {
        let mut wheel = self.keepalives.lock();
        wheel.insert(tick, seat);
        self.purge_keepalives(&mut wheel);
    }

    /// Has a timer fire at `tick`.
    pub(crate) fn set_timer(&self, tick: Tick, timer: Timer) {
        let mut wheel = self.timers.lock();
        wheel.insert(tick, timer);
        self.purge_timers(&mut wheel);
    }

    /// Has a timer fire once the wall clock is about to reach `expires`. `expiring` is what expires now: that clock
    /// may have been set back since the driver looked.
    pub(crate) fn set_expiry(&self, expires: Tick, expiring: Tick, timer: Timer) {
        let mut wheel = self.expiries.lock();
        wheel.rewind(expiring);
        wheel.insert(expires, timer);
        wheel.purge(self.seats(), 1, |timer| timer.seat.is_taken(self.id));
    }

    /// Takes the timers out of the wheel whose tokens expire at this tick of the wall clock or earlier.
    pub(crate) fn take_expiries(&self, tick: Tick, due: &mut Vec<Timer>) {
        let mut wheel = self.expiries.lock();
        wheel.rewind(tick);
        wheel.advance(tick, |timer| due.push(timer));
    }

    /// Takes the seats out of the wheel that have to be looked at.
    pub(crate) fn take_keepalives(&self, tick: Tick, due: &mut Vec<SeatRef>) {
        let mut wheel = self.keepalives.lock();
        wheel.advance(tick, |seat| due.push(seat));
        self.purge_keepalives(&mut wheel);
    }

    /// Takes the timers out of the wheel that have to fire.
    pub(crate) fn take_timers(&self, tick: Tick, due: &mut Vec<Timer>) {
        let mut wheel = self.timers.lock();
        wheel.advance(tick, |timer| due.push(timer));
        self.purge_timers(&mut wheel);
    }

    pub(crate) fn put_keepalives(&self, seats: impl Iterator<Item = (Tick, SeatRef)>) {
        let mut wheel = self.keepalives.lock();
        seats.for_each(|(tick, seat)| wheel.insert(tick, seat));
    }

    pub(crate) fn put_timers(&self, timers: impl Iterator<Item = (Tick, Timer)>) {
        let mut wheel = self.timers.lock();
        timers.for_each(|(tick, timer)| wheel.insert(tick, timer));
    }

    /// Gives the deadlines of all seats to `deadline`, and the expiries to `expiry`, stale ones too.
    #[cfg(feature = "server")]
    pub(super) fn each_deadline(
        &self,
        mut deadline: impl FnMut(&SeatRef, Tick, CloseReason),
        mut expiry: impl FnMut(&SeatRef, Tick),
    ) {
        for (tick, timer) in self.timers.lock().iter() {
            if let Some(reason) = timer.reason() {
                deadline(&timer.seat, tick, reason);
            }
        }
        self.expiries.lock().iter().for_each(|(tick, timer)| expiry(&timer.seat, tick));
    }

    /// The time is at least that.
    #[cfg(feature = "server")]
    pub(crate) fn advance_tick(&self, tick: Tick) {
        self.tick.fetch_max(tick.0, Ordering::Relaxed);
    }

    /// Timers in the wheel, stale ones too.
    #[cfg(all(test, not(nudged_loom)))]
    pub(crate) fn timers(&self) -> usize {
        self.timers.lock().len()
    }

    fn purge_keepalives(&self, wheel: &mut Wheel<SeatRef>) {
        wheel.purge(self.seats(), 1, |seat| seat.is_taken(self.id));
    }

    fn purge_timers(&self, wheel: &mut Wheel<Timer>) {
        wheel.purge(self.seats(), TIMERS_PER_SEAT, |timer| timer.seat.is_taken(self.id));
    }

    /// Leaves seats of a channel, which have been marked dirty, to be swept.
    pub(crate) fn push_dirty(&self, channel: &Arc<Channel>, dirty: Dirty) {
        let dirty = (Arc::downgrade(channel), dirty);
        self.post(|inbox| inbox.dirty.push_back(dirty));
    }

    /// Leaves the seats that a channel has for a view, which a command is for.
    pub(crate) fn push_command(&self, channel: &Arc<Channel>, view: View) {
        let command = (Arc::downgrade(channel), view);
        self.post(|inbox| inbox.commands.push_back(command));
    }

    /// Leaves a burst window to close. Returns whether there is a driver that will.
    fn push_window(&self, closes: Time, channel: &Arc<Channel>) -> bool {
        let channel = Arc::downgrade(channel);
        self.post(|inbox| {
            if !inbox.ended {
                inbox.windows_opened += 1;
                inbox.windows.insert((closes, inbox.windows_opened), channel);
            }
            !inbox.ended
        })
    }

    /// The driver ends. Returns the burst windows that it leaves.
    pub(crate) fn end(&self) -> impl Iterator<Item = (Time, Arc<Channel>)> {
        let mut inbox = self.inbox.lock();
        inbox.ended = true;
        let windows = mem::take(&mut inbox.windows).into_iter();
        windows.filter_map(|((closes, _), channel)| Some((closes, channel.upgrade()?)))
    }

    /// The next channel to sweep.
    pub(crate) fn pop_dirty(&self) -> Option<(Arc<Channel>, Dirty)> {
        self.pop(|inbox| inbox.dirty.pop_front())
    }

    /// The next seats that a command is for.
    pub(crate) fn pop_command(&self) -> Option<(Arc<Channel>, View)> {
        self.pop(|inbox| inbox.commands.pop_front())
    }

    /// A channel whose burst window has closed by now.
    pub(crate) fn pop_window(&self, now: Time) -> Option<Arc<Channel>> {
        let (channel, ()) = self.pop(|inbox| {
            let window = inbox.windows.first_entry().filter(|window| window.key().0 <= now)?;
            Some((window.remove(), ()))
        })?;
        Some(channel)
    }

    /// Has `driver` woken at the next work. Returns whether a channel is dirty already, and when the
    /// next burst window closes.
    pub(crate) fn register(&self, driver: &Waker) -> (bool, Option<Time>) {
        let mut inbox = self.inbox.lock();
        inbox.driver = Some(driver.clone());
        let closes = inbox.windows.first_key_value().map(|((closes, _), _)| *closes);
        (!inbox.dirty.is_empty() || !inbox.commands.is_empty(), closes)
    }

    /// Wakes the driver without work.
    pub(crate) fn wake(&self) {
        self.post(|_| ());
    }

    /// Takes work out until it is for a channel that still exists.
    fn pop<T>(
        &self,
        take: impl Fn(&mut Inbox) -> Option<(Weak<Channel>, T)>,
    ) -> Option<(Arc<Channel>, T)> {
        loop {
            let (channel, what) = take(&mut self.inbox.lock())?;
            if let Some(channel) = channel.upgrade() {
                return Some((channel, what));
            }
        }
    }

    /// The driver is woken after the lock is released.
    fn post<T>(&self, change: impl FnOnce(&mut Inbox) -> T) -> T {
        let (changed, driver) = {
            let mut inbox = self.inbox.lock();
            (change(&mut inbox), inbox.driver.take())
        };
        if let Some(driver) = driver {
            driver.wake();
        }
        changed
    }
}

// ===== impl ShardId =====

impl ShardId {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

// ===== impl Common =====

impl Common {
    pub(crate) fn new(config: HubConfig, shards: usize) -> Self {
        let last = u16::try_from(shards - 1).expect("1 to 65,536 shards");
        let shards = (0..=last).map(ShardId).map(Shard::new).collect();
        let (epochs, epochs_begun) = (RandomState::new(), AtomicU64::new(0));
        let (memory, topics) = (Arc::default(), TopicsUse::default());
        Self { config, shards, memory, topics, log: None, epochs, epochs_begun }
    }

    /// The epoch of a new run. The hasher is seeded by the operating system, so that no two runs share one, and that
    /// those of a public stream tell nothing of what else there is.
    pub(crate) fn new_epoch(&self) -> Epoch {
        let begun = self.epochs_begun.fetch_add(1, Ordering::Relaxed);
        Epoch(self.epochs.hash_one(begun))
    }

    /// What the ids of a stream begin with: its name, where they are of a log.
    pub(crate) fn epoch_of(&self, stream: impl FnOnce() -> StreamHash) -> Epoch {
        if self.log.is_some() { stream().epoch() } else { self.new_epoch() }
    }

    /// The last record of the log that has reached every stream, if anything proves it.
    pub(crate) fn applied(&self) -> Option<Mark> {
        self.log.as_ref()?.applied().filter(|mark| mark.tag != 0)
    }

    /// Whether this very record is one of the last ones of the log.
    #[cold]
    pub(crate) fn has_mark(&self, mark: Mark) -> bool {
        self.log.as_ref().is_some_and(|log| log.has(mark))
    }

    pub(crate) fn shard(&self, id: ShardId) -> &Shard {
        &self.shards[id.index()]
    }

    /// Leaves the channel to every shard on which it has subscribers of a view that has something new.
    pub(crate) fn schedule(&self, channel: &Arc<Channel>) {
        for (shard, dirty) in channel.mark_dirty() {
            self.shard(shard).push_dirty(channel, dirty);
        }
    }

    /// Leaves a burst window to this shard's driver. If that has ended, it is left to one that delivers to the
    /// channel, and closed at once if there is none.
    pub(crate) fn push_window(
        &self,
        shard: ShardId,
        closes: Time,
        channel: &Arc<Channel>,
        now: Time,
    ) {
        let push = |shard: ShardId| self.shard(shard).push_window(closes, channel);
        if !push(shard) && !channel.shards().into_iter().any(push) {
            channel.release(now);
            self.schedule(channel);
        }
    }

    /// The tick at which a seat that was touched at `tick` is looked at next: after 75 to 100 % of a period, so that
    /// subscribers that connected at once do not need their keepalives at once. A tick is rounded down, so the silence
    /// is at most as long as drawn, and as late as the driver.
    pub(crate) fn keepalive_at(&self, tick: Tick) -> Tick {
        tick.after(fastrand::u32(self.keepalive_min()..=self.keepalive_max()))
    }

    /// The ticks of silence from which a comment is due.
    pub(crate) fn keepalive_min(&self) -> u32 {
        let period = self.config.keepalive_seconds();
        (period - period / 4).min(self.keepalive_max())
    }

    /// The ticks of silence after which a comment is due in any case. The last second of a period is a reserve for a
    /// driver that is late.
    fn keepalive_max(&self) -> u32 {
        (self.config.keepalive_seconds() - 1).max(1)
    }

    /// The ticks after which a socket that takes nothing is stalled.
    pub(crate) fn stall_ticks(&self) -> u32 {
        whole_seconds(self.config.stall_timeout)
    }

    /// The same once the end of the stream is due in a drain.
    pub(crate) fn drain_ticks(&self) -> u32 {
        whole_seconds(self.config.drain_grace).min(self.stall_ticks())
    }
}
