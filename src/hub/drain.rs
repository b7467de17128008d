//! The end of a shard: its driver sweeps all of its seats once, at the pace that spreads the ends of the
//! streams evenly over the drain window.

use std::sync::Arc;
use std::vec;

use super::batch::{Batch, VISITS_PER_TURN, WriteKind};
use super::channel::Channel;
use super::driver::ShardDriver;
use super::feed::View;
use super::seat::{SeatKey, Seats};
use super::seat_ref::SeatRef;
use super::timers::Timer;
use crate::time::{Tick, Time};

/// The time over which the streams of a hub end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DrainWindow {
    pub(crate) from: Time,
    pub(crate) to: Time,
}

/// One sweep over all seats of a shard.
#[derive(Debug)]
pub(crate) struct Drain {
    window: DrainWindow,
    /// Seats at the beginning. Streams that end by themselves only bring the end of the drain forward.
    total: u64,
    ended: u64,
    /// The next partition of the registry.
    partition: usize,
    /// Channels of the partition before it that have not been swept.
    channels: vec::IntoIter<Arc<Channel>>,
    /// The channel that is being swept, with the view, and the index of its next seat.
    channel: Option<(Arc<Channel>, View)>,
    index: usize,
}

/// When a drain goes on.
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

// ===== impl Drain =====

impl Drain {
    pub(super) fn new(window: DrainWindow, seats: usize) -> Self {
        Self {
            window,
            total: seats as u64,
            ended: 0,
            partition: 0,
            channels: Vec::new().into_iter(),
            channel: None,
            index: 0,
        }
    }

    /// Collects the ends of some of the streams that are due.
    pub(crate) fn collect(&mut self, driver: &ShardDriver, now: Time, batch: &mut Batch) -> Pace {
        let due = self.due(now);
        let mut visits = VISITS_PER_TURN;
        while self.ended < due {
            if visits == 0 || batch.is_full() {
                return Pace::Now;
            }
            let Some((channel, view)) = self.channel.clone() else {
                if !self.next_channel(driver) {
                    driver.set_drained();
                    return Pace::Over;
                }
                visits -= 1;
                continue;
            };
            // What a burst window still holds is delivered before the end.
            channel.release(now);
            driver.shared().common.schedule(&channel);
            let stuck = {
                let mut state = channel.state.lock();
                let feed = state.feeds.get_mut(view);
                match feed.and_then(|feed| feed.shards.get_mut(driver.shard_id().index())) {
                    Some(seats) => self.sweep(seats, due, driver, &mut visits, batch),
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

    /// Ends streams of one view of a channel, and leaves it once all its seats have been visited. Returns those that
    /// take nothing now.
    fn sweep(
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
            if *visits == 0 || batch.is_full() || self.ended == due {
                return stuck;
            }
            *visits -= 1;
            if let Some((seat, key)) = seats.keyed_mut(self.index) {
                self.ended += 1;
                if seat.drain(tick) {
                    stuck.push((seat.stalls_after(tick, common), key));
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
            Some((channel, View::Member)) => Some((channel, View::Public)),
            _ => None,
        };
    }

    /// Goes on to the next channel, or to the next partition. Returns whether there is one.
    fn next_channel(&mut self, driver: &ShardDriver) -> bool {
        self.channel = self.channels.next().map(|channel| (channel, View::Member));
        if self.channel.is_some() {
            return true;
        }
        let Some(channels) = driver.shared().registry.channels_of(self.partition) else {
            return false;
        };
        self.channels = channels.into_iter();
        self.partition += 1;
        true
    }

    /// How many streams must have been ended by now.
    fn due(&self, now: Time) -> u64 {
        let DrainWindow { from, to } = self.window;
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
        let DrainWindow { from, to } = self.window;
        let share = u128::from(self.ended) * u128::from(to.0 - from.0);
        let after = u64::try_from(share.div_ceil(u128::from(self.total.max(1))));
        Time(from.0.saturating_add(after.unwrap_or(u64::MAX))).min(to)
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use super::*;
    use crate::config::HubConfig;
    use crate::hub::{Hub, SEATS_PER_TURN, Subscription};
    use std::task::{Poll, Waker};
    use std::time::Duration;

    const STREAMS: usize = 1_000;

    fn hub_with_streams() -> (Hub, Vec<Subscription>) {
        let hub = Hub::new(HubConfig::default());
        let streams = (0..STREAMS).map(|n| {
            let org = format!("org-{}", n % 300).parse().expect("a name");
            hub.subscribe(&org, View::Member, None, Time(0)).expect("not closing").0
        });
        let streams = streams.collect();
        (hub, streams)
    }

    fn over(stream: &mut Subscription) -> bool {
        matches!(stream.poll_next(Waker::noop()), Poll::Ready(None))
    }

    /// At any time, the part of the streams that has ended equals the part of the window that has passed; no batch has
    /// more than the seats of a turn; and the pace is the time at which the next stream is due.
    #[test]
    fn the_ends_are_spread_evenly_over_the_window() {
        let (hub, mut streams) = hub_with_streams();
        assert!(!streams.iter_mut().any(over), "each is pending");
        hub.drain(Time(500), Duration::from_secs(5));
        let mut drain = hub.driver().begin_drain().expect("the hub drains");
        let (mut batch, mut ended, mut now) = (Batch::default(), 0, Time(500));
        loop {
            let pace = drain.collect(&hub.driver(), now, &mut batch);
            assert!(batch.wakers.len() <= SEATS_PER_TURN);
            ended += batch.wakers.len();
            batch.wake();
            batch.clear();
            match pace {
                Pace::Now => {}
                Pace::Over => break,
                Pace::At(next) => {
                    let share = STREAMS * usize::try_from(now.0 - 500).expect("small") / 5_000;
                    assert_eq!(ended, share + 1, "at {now:?}");
                    assert!(next > now && next <= Time(5_500), "{next:?} at {now:?}");
                    // From time to time the driver is late.
                    now =
                        if ended.is_multiple_of(7) { Time((now.0 + 83).min(5_500)) } else { next };
                }
            }
        }
        assert_eq!(ended, STREAMS);
        assert!(now >= Time(5_400), "{now:?}");
        assert!(streams.iter_mut().all(over));
        assert!(!hub.driver().is_over(), "their seats are still occupied");
        drop(streams);
        assert!(hub.driver().is_over());
    }

    /// SCENARIO: a driver reads the clock, and then the hub drains without a window.
    /// BUG: the driver divided by the length of the window, and its worker panicked.
    /// FIX: in a window without a length every stream is due.
    #[test]
    fn a_window_without_a_length_ends_every_stream_at_once() {
        let (hub, mut streams) = hub_with_streams();
        hub.drain(Time(500), Duration::ZERO);
        let mut drain = hub.driver().begin_drain().expect("the hub drains");
        let mut batch = Batch::default();
        while drain.collect(&hub.driver(), Time(499), &mut batch) == Pace::Now {
            batch.clear();
        }
        assert!(streams.iter_mut().all(over));
    }

    #[test]
    fn streams_that_end_by_themselves_shorten_the_drain() {
        let (hub, mut streams) = hub_with_streams();
        hub.drain(Time(0), Duration::from_secs(5));
        let mut drain = hub.driver().begin_drain().expect("the hub drains");
        let mut batch = Batch::default();
        assert_eq!(drain.collect(&hub.driver(), Time(0), &mut batch), Pace::At(Time(5)));
        streams.clear();
        let mut now = Time(100);
        while drain.collect(&hub.driver(), now, &mut batch) != Pace::Over {
            now = Time(now.0 + 1);
        }
        assert!(now < Time(200) && hub.driver().is_over(), "{now:?}");
    }
}
