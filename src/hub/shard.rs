//! Shards: what one worker has to do. Other threads leave work in a shard's inbox and wake its driver;
//! the work itself is done by the driver alone, at its own pace.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use super::channel::Channel;
use super::seat::SeatKey;
use super::sweep::STALE_MAX;
use super::timers::Timer;
use super::wheel::Wheel;
use crate::config::HubConfig;
use crate::ids::Time;
use crate::metrics::Counters;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};

/// What every channel and shard of a hub shares.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) config: HubConfig,
    pub(crate) shards: Box<[Shard]>,
    /// Bytes in all histories.
    pub(crate) history_bytes: AtomicU64,
}

/// One worker's share of the hub.
#[derive(Debug)]
pub(crate) struct Shard {
    inbox: Mutex<Inbox>,
    pub(crate) wheel: Mutex<Wheel<SeatRef>>,
    /// Ends of streams: a wheel of their own, so that a stream without one pays nothing for it.
    pub(crate) timers: Mutex<Wheel<Timer>>,
    /// Seats taken on this shard; with the wheel's length it tells how much of the wheel is stale.
    pub(crate) seats: AtomicU32,
    /// Whole seconds, as the driver last counted them.
    tick: AtomicU32,
    pub(crate) counters: Counters,
    /// Every seat of the shard was told to end, and no other will be taken.
    pub(crate) drained: AtomicBool,
}

/// A seat as the wheel knows it. The channel may be gone, and the seat somebody else's, when its time
/// comes.
#[derive(Clone, Debug)]
pub(crate) struct SeatRef {
    pub(crate) channel: Weak<Channel>,
    pub(crate) key: SeatKey,
}

/// Work for the shard's driver. Both lists have at most one entry for a channel.
#[derive(Debug, Default)]
struct Inbox {
    dirty: VecDeque<Arc<Channel>>,
    /// Windows to close, by time, and by a number that keeps the times apart.
    windows: BTreeMap<(Time, u64), Arc<Channel>>,
    windows_opened: u64,
    driver: Option<Waker>,
}

// ===== impl Shard =====

impl Shard {
    pub(crate) fn new() -> Self {
        Self {
            inbox: Mutex::new(Inbox::default()),
            wheel: Mutex::new(Wheel::new()),
            timers: Mutex::new(Wheel::new()),
            seats: AtomicU32::new(0),
            tick: AtomicU32::new(0),
            counters: Counters::default(),
            drained: AtomicBool::new(false),
        }
    }

    pub(crate) fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    pub(crate) fn set_tick(&self, tick: u32) {
        self.tick.store(tick, Ordering::Relaxed);
    }

    /// Drops what freed seats left behind in this shard's wheel, once that outnumbers the living: each
    /// keeps its channel's memory.
    pub(crate) fn purge_keepalives(&self, shard: usize, wheel: &mut Wheel<SeatRef>) {
        let living = self.seats.load(Ordering::Relaxed) as usize;
        if wheel.len() > 2 * living + STALE_MAX {
            wheel.retain(|entry| entry.is_taken(shard));
        }
    }

    /// Leaves a channel to sweep. The accepted has marked the channel's seats dirty.
    pub(crate) fn push_dirty(&self, channel: Arc<Channel>) {
        self.post(|inbox| inbox.dirty.push_back(channel));
    }

    /// Leaves a window to close.
    pub(crate) fn push_window(&self, closes: Time, channel: Arc<Channel>) {
        self.post(|inbox| {
            inbox.windows_opened += 1;
            inbox.windows.insert((closes, inbox.windows_opened), channel);
        });
    }

    pub(crate) fn pop_dirty(&self) -> Option<Arc<Channel>> {
        self.inbox.lock().dirty.pop_front()
    }

    /// A channel whose window has closed by now.
    pub(crate) fn pop_window(&self, now: Time) -> Option<Arc<Channel>> {
        let mut inbox = self.inbox.lock();
        let window = inbox.windows.first_entry().filter(|window| window.key().0 <= now)?;
        Some(window.remove())
    }

    /// Has `driver` woken at the next work. Returns whether a channel is dirty already, and when the
    /// next window closes.
    pub(crate) fn register(&self, driver: &Waker) -> (bool, Option<Time>) {
        let mut inbox = self.inbox.lock();
        inbox.driver = Some(driver.clone());
        let closes = inbox.windows.first_key_value().map(|((closes, _), _)| *closes);
        (!inbox.dirty.is_empty(), closes)
    }

    /// Drops work that nobody will do.
    pub(crate) fn forget_work(&self) {
        let work = std::mem::take(&mut *self.inbox.lock());
        // A waker is in it, and no lock is held across the drop of one.
        drop(work);
    }

    /// Wakes the driver without work.
    pub(crate) fn wake(&self) {
        self.post(|_| ());
    }

    /// The driver is woken after the lock is released.
    fn post(&self, change: impl FnOnce(&mut Inbox)) {
        let driver = {
            let mut inbox = self.inbox.lock();
            change(&mut inbox);
            inbox.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

// ===== impl Common =====

impl Common {
    /// Tells every shard with subscribers of this channel to sweep it.
    pub(crate) fn schedule(&self, channel: &Arc<Channel>) {
        for shard in channel.mark_dirty() {
            self.shards[shard].push_dirty(channel.clone());
        }
    }

    /// The tick at which a seat that was touched at `tick` is looked at next: a period later, ±25 %,
    /// so that a herd of subscribers does not become a herd of writes.
    pub(crate) fn keepalive_at(&self, tick: u32) -> u32 {
        let period = self.keepalive_ticks();
        tick + fastrand::u32(self.keepalive_min()..=period + period / 4)
    }

    /// The ticks of silence from which a comment is due.
    pub(crate) fn keepalive_min(&self) -> u32 {
        let period = self.keepalive_ticks();
        (period - period / 4).max(1)
    }

    /// The ticks for which a socket may take nothing.
    pub(crate) fn stall_ticks(&self) -> u32 {
        ticks(self.config.stall_timeout)
    }

    fn keepalive_ticks(&self) -> u32 {
        ticks(self.config.keepalive)
    }
}

fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX / 4).clamp(1, u32::MAX / 4)
}

// ===== impl SeatRef =====

impl SeatRef {
    /// Whether the seat is still that of the subscriber for whom this was made.
    pub(crate) fn is_taken(&self, shard: usize) -> bool {
        self.channel.upgrade().is_some_and(|channel| {
            let mut state = channel.state.lock();
            state.shards.get_mut(shard).is_some_and(|seats| seats.get_mut(self.key).is_some())
        })
    }
}
