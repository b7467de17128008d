//! The end of a shard: its driver walks all of its seats once, at the pace that spreads their ends
//! evenly over the drain window.

use std::mem;
use std::sync::Arc;
use std::vec;

use super::Hub;
use super::channel::Channel;
use super::seat::{Seats, Waiter};
use super::sweep::{Batch, WriteKind, WriteOp};
use crate::ids::Time;
use crate::sync::Ordering;

/// The time over which the streams of a hub end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DrainWindow {
    pub(crate) from: Time,
    pub(crate) to: Time,
}

/// The walk over a shard's seats.
#[derive(Debug)]
pub(crate) struct Drain {
    window: DrainWindow,
    /// Seats when the walk began. Those that leave by themselves only bring its end forward.
    total: u64,
    ended: u64,
    /// The part of the registry that comes next.
    partition: usize,
    /// Channels of the part before it that have not been walked.
    channels: vec::IntoIter<Arc<Channel>>,
    /// The channel that is being walked, and the index of its next seat.
    channel: Option<Arc<Channel>>,
    position: usize,
}

/// When the walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// After others had their turn.
    Now,
    /// At this time.
    At(Time),
    /// It has reached its end.
    Over,
}

/// Places, channels and parts of the registry that are looked at in one turn.
const LOOKS_PER_TURN: usize = 256;

// ===== impl Drain =====

impl Drain {
    /// Collects what some of the streams need whose time to end has come.
    pub(crate) fn collect(&mut self, hub: &Hub, now: Time, batch: &mut Batch) -> Pace {
        let due = self.due(now);
        let mut looks = LOOKS_PER_TURN;
        while self.ended < due {
            if looks == 0 || batch.is_full() {
                return Pace::Now;
            }
            let Some(channel) = self.channel.clone() else {
                if !self.next_channel(hub) {
                    hub.shard().drained.store(true, Ordering::Release);
                    return Pace::Over;
                }
                looks -= 1;
                continue;
            };
            // What a burst has left in its window is told before the end.
            channel.release(now);
            hub.common().schedule(&channel);
            let mut state = channel.state.lock();
            match state.shards.get_mut(hub.shard) {
                Some(seats) => self.walk(seats, due, &mut looks, batch),
                None => self.channel = None,
            }
        }
        Pace::At(self.next_due())
    }

    /// Ends streams of one channel, and leaves it when all of them have been.
    fn walk(&mut self, seats: &mut Seats, due: u64, looks: &mut usize, batch: &mut Batch) {
        while self.position < seats.end() {
            if *looks == 0 || batch.is_full() || self.ended == due {
                return;
            }
            *looks -= 1;
            if let Some(seat) = seats.at_mut(self.position) {
                seat.draining = true;
                self.ended += 1;
                match mem::replace(&mut seat.waiter, Waiter::None) {
                    Waiter::None => {}
                    Waiter::Task(waker) => {
                        seat.waiter = Waiter::Busy(waker.clone());
                        batch.push_waker(waker);
                    }
                    // It has something to write, and comes to its end after that.
                    waiter @ (Waiter::Busy(_) | Waiter::Blocked { .. }) => seat.waiter = waiter,
                    Waiter::Socket { number, .. } => {
                        batch.writes.push(WriteOp { socket: number, kind: WriteKind::CatchUp });
                    }
                }
            }
            self.position += 1;
        }
        self.channel = None;
    }

    /// Goes to the next channel, or to the next part of the registry. Returns whether there is one.
    fn next_channel(&mut self, hub: &Hub) -> bool {
        self.position = 0;
        self.channel = self.channels.next();
        if self.channel.is_some() {
            return true;
        }
        let Some(partition) = hub.shared.partitions.get(self.partition) else { return false };
        self.channels = partition.lock().channels().cloned().collect::<Vec<_>>().into_iter();
        self.partition += 1;
        true
    }

    /// How many streams have to have ended by now.
    fn due(&self, now: Time) -> u64 {
        let DrainWindow { from, to } = self.window;
        if now >= to || from == to {
            return u64::MAX;
        }
        let share = u128::from(self.total) * u128::from(now.0.saturating_sub(from.0));
        // The last look finds that there is nobody left, for which nobody need wait.
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

// ===== impl Hub, for the driver of a shard =====

impl Hub {
    /// The walk that drains this shard, if the hub was told to drain.
    pub(crate) fn begin_drain(&self) -> Option<Drain> {
        let window = (*self.shared.drain.lock())?;
        Some(Drain {
            window,
            total: self.seats_on_shard() as u64,
            ended: 0,
            partition: 0,
            channels: Vec::new().into_iter(),
            channel: None,
            position: 0,
        })
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use super::*;
    use crate::config::HubConfig;
    use crate::hub::{Subscription, View};
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

    /// Whenever it is asked, as many have ended as that part of the window has streams; no turn ends
    /// more than the seats of a turn; and it names the time at which one more is due.
    #[test]
    fn the_ends_follow_the_window() {
        let (hub, mut streams) = hub_with_streams();
        assert!(!streams.iter_mut().any(over), "each waits now");
        hub.drain(Time(500), Duration::from_secs(5));
        let mut walk = hub.begin_drain().expect("told to");
        let (mut batch, mut ended, mut now) = (Batch::default(), 0, Time(500));
        loop {
            let pace = walk.collect(&hub, now, &mut batch);
            assert!(batch.wakers.len() <= super::super::SEATS_PER_TURN);
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
                    // Now and then the driver comes late.
                    now =
                        if ended.is_multiple_of(7) { Time((now.0 + 83).min(5_500)) } else { next };
                }
            }
        }
        assert_eq!(ended, STREAMS);
        assert!(now >= Time(5_400), "{now:?}");
        assert!(streams.iter_mut().all(over));
        assert!(!hub.is_over(), "their seats are still taken");
        drop(streams);
        assert!(hub.is_over());
    }

    /// SCENARIO: a driver looks at the clock, and then the hub is told to drain at once.
    /// BUG: the driver divided by the length of the window, and its worker ended in a panic.
    /// FIX: in a window without a length everybody is due.
    #[test]
    fn a_window_without_a_length_may_begin_after_the_driver_looked() {
        let (hub, mut streams) = hub_with_streams();
        hub.drain(Time(500), Duration::ZERO);
        let mut walk = hub.begin_drain().expect("told to");
        let mut batch = Batch::default();
        while walk.collect(&hub, Time(499), &mut batch) == Pace::Now {
            batch.clear();
        }
        assert!(streams.iter_mut().all(over));
    }

    #[test]
    fn who_leaves_is_not_waited_for() {
        let (hub, mut streams) = hub_with_streams();
        hub.drain(Time(0), Duration::from_secs(5));
        let mut walk = hub.begin_drain().expect("told to");
        let mut batch = Batch::default();
        assert_eq!(walk.collect(&hub, Time(0), &mut batch), Pace::At(Time(5)));
        streams.clear();
        let mut now = Time(100);
        while walk.collect(&hub, now, &mut batch) != Pace::Over {
            now = Time(now.0 + 1);
        }
        assert!(now < Time(200) && hub.is_over(), "{now:?}");
    }
}
