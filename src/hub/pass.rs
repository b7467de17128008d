//! A pass over seats that is spread evenly over a window of time: those of a shard, or those that one channel has on it
//! for one view.

use std::sync::Arc;
use std::time::Duration;
use std::vec;

use super::batch::{Batch, VISITS_PER_TURN, WriteKind};
use super::channel::Channel;
use super::driver::ShardDriver;
use super::feed::View;
use super::seat_ref::SeatRef;
use super::seats::{SeatKey, Seats};
use super::timers::Timer;
use crate::metrics::CloseReason;
use crate::time::{Tick, Time};

/// The time over which a pass is spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: Time,
    pub(crate) to: Time,
}

/// One pass.
#[derive(Debug)]
pub(super) struct Pass {
    aim: Aim,
    window: Window,
    /// Seats to reach at the beginning. Streams that end by themselves only bring the end of the pass forward.
    total: u64,
    reached: u64,
    /// The next partition of the registry.
    partition: usize,
    /// Channels of the partition before it that have not been visited.
    channels: vec::IntoIter<Arc<Channel>>,
    /// The channel that is being visited, with the view, and the index of its next seat.
    channel: Option<(Arc<Channel>, View)>,
    index: usize,
}

/// What a pass does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// It ends every stream of a shard that drains.
    Drain,
    /// It carries out the commands to the streams of a shard.
    Commands,
    /// The same, of one channel and view.
    CommandsOfOne,
}

/// When a pass goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As soon as the rest of the worker has had its turn.
    Now,
    /// At this time.
    At(Time),
    /// All seats have been visited.
    Over,
}

/// Streams that could take nothing when their end was due, and when they count as stalled.
type Stuck = Vec<(Tick, SeatKey)>;

// ===== impl Window =====

impl Window {
    /// So long from `now` on.
    pub(super) fn from(now: Time, length: Duration) -> Self {
        Self { from: now, to: now.after(length) }
    }

    pub(super) fn length(self) -> Duration {
        Duration::from_millis(self.to.0.saturating_sub(self.from.0))
    }
}

// ===== impl Pass =====

impl Pass {
    /// A pass over all seats of a shard, which has so many.
    pub(super) fn over_shard(aim: Aim, window: Window, seats: usize) -> Self {
        Self {
            aim,
            window,
            total: seats as u64,
            reached: 0,
            partition: 0,
            channels: Vec::new().into_iter(),
            channel: None,
            index: 0,
        }
    }

    /// A pass over the seats that a channel has on a shard for a view.
    pub(super) fn over_channel(
        channel: Arc<Channel>,
        view: View,
        window: Window,
        seats: usize,
    ) -> Self {
        let mut pass = Self::over_shard(Aim::CommandsOfOne, window, seats);
        pass.channel = Some((channel, view));
        pass
    }

    /// Goes on from where it is, at the pace that reaches so many seats in this window.
    pub(super) fn set_pace(&mut self, window: Window, seats: usize) {
        (self.window, self.total, self.reached) = (window, seats as u64, 0);
    }

    /// When all seats should have been visited.
    pub(super) fn window_to(&self) -> Time {
        self.window.to
    }

    /// Begins again with the first seat: of this channel and view, or of the shard.
    pub(super) fn restart(&mut self, one: Option<(Arc<Channel>, View)>) {
        (self.index, self.partition, self.channel) = (0, 0, one);
    }

    /// Collects what some of the streams need that are due.
    pub(super) fn collect(&mut self, driver: &ShardDriver, now: Time, batch: &mut Batch) -> Pace {
        let due = self.due(now);
        let mut visits = VISITS_PER_TURN;
        while self.reached < due {
            if visits == 0 || batch.is_full() {
                return Pace::Now;
            }
            let Some((channel, view)) = self.channel.clone() else {
                if !self.next_channel(driver) {
                    return Pace::Over;
                }
                visits -= 1;
                continue;
            };
            if self.aim == Aim::Drain {
                // What a burst window still holds is delivered before the end.
                channel.release(now);
                driver.shared().common.schedule(&channel);
            }
            let stuck = {
                let mut state = channel.state.lock();
                let shards = state.feeds.shards_mut(view);
                match shards.and_then(|shards| shards.get_mut(driver.shard_id().index())) {
                    Some(seats) => self.visit(seats, due, driver, &mut visits, batch),
                    None => {
                        self.leave();
                        Stuck::new()
                    }
                }
            };
            for (stalls_at, key) in stuck {
                driver.set_timer(stalls_at, Timer::stall(SeatRef::new(&channel, key)));
            }
        }
        Pace::At(self.next_due())
    }

    /// Visits seats of one view of a channel, and leaves it once it has visited all. Returns those of streams that have
    /// to end and take nothing now.
    fn visit(
        &mut self,
        seats: &mut Seats,
        due: u64,
        driver: &ShardDriver,
        visits: &mut usize,
        batch: &mut Batch,
    ) -> Stuck {
        let (common, tick) = (&driver.shared().common, driver.tick_now());
        let mut stuck = Stuck::new();
        while self.index < seats.end() {
            if *visits == 0 || batch.is_full() || self.reached == due {
                return stuck;
            }
            *visits -= 1;
            let reason = match self.aim {
                Aim::Drain => Some(CloseReason::Drained),
                Aim::Commands | Aim::CommandsOfOne => {
                    seats.has_to_end(self.index).then_some(CloseReason::Removed)
                }
            };
            let rereads = self.aim != Aim::Drain && seats.has_to_reread(self.index);
            if (reason.is_some() || rereads)
                && let Some((seat, key)) = seats.keyed_mut(self.index)
            {
                self.reached += 1;
                match reason {
                    Some(reason) if seat.leave(reason, tick) => {
                        stuck.push((seat.stalls_after(tick, common), key));
                    }
                    Some(_) => {}
                    None => seat.reread(),
                }
                seat.notify(WriteKind::CatchUp, batch);
            }
            self.index += 1;
        }
        self.leave();
        stuck
    }

    /// Goes on to the other view of the channel, or leaves it.
    fn leave(&mut self) {
        self.index = 0;
        self.channel = match self.channel.take() {
            Some((channel, View::Member)) if self.aim != Aim::CommandsOfOne => {
                Some((channel, View::Public))
            }
            _ => None,
        };
    }

    /// Goes on to the next channel, or to the next partition. Returns whether there is one.
    fn next_channel(&mut self, driver: &ShardDriver) -> bool {
        self.channel = self.channels.next().map(|channel| {
            let first = if channel.topic.is_some() { View::Topic } else { View::Member };
            (channel, first)
        });
        if self.channel.is_some() {
            return true;
        }
        if self.aim == Aim::CommandsOfOne {
            return false;
        }
        let shared = driver.shared();
        let channels = match self.aim {
            Aim::Drain => shared.all_channels_of(self.partition),
            // Commands are for orgs; of a log, for topics too.
            Aim::Commands if shared.common.log.is_some() => shared.all_channels_of(self.partition),
            Aim::Commands | Aim::CommandsOfOne => shared.registry.channels_of(self.partition),
        };
        let Some(channels) = channels else { return false };
        self.channels = channels.into_iter();
        self.partition += 1;
        true
    }

    /// How many streams must have been reached by now.
    fn due(&self, now: Time) -> u64 {
        let Window { from, to } = self.window;
        if now >= to || from == to {
            return u64::MAX;
        }
        let share = u128::from(self.total) * u128::from(now.0.saturating_sub(from.0));
        // Once all streams are due, so is the visit that finds no other.
        let due = u64::try_from(share / u128::from(to.0 - from.0)).unwrap_or(u64::MAX) + 1;
        if due >= self.total { u64::MAX } else { due }
    }

    /// When one more is due.
    fn next_due(&self) -> Time {
        let Window { from, to } = self.window;
        let share = u128::from(self.reached) * u128::from(to.0 - from.0);
        let after = u64::try_from(share.div_ceil(u128::from(self.total.max(1))));
        Time(from.0.saturating_add(after.unwrap_or(u64::MAX))).min(to)
    }
}
