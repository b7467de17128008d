//! The end of a shard: its driver visits all of its seats once, at the pace that spreads the ends of the
//! streams evenly over the drain window.

use super::batch::Batch;
use super::driver::ShardDriver;
use super::pass::{Aim, Pace, Pass, Window};
use crate::time::Time;

/// One pass over all seats of a shard.
#[derive(Debug)]
pub(crate) struct Drain(Pass);

// ===== impl Drain =====

impl Drain {
    pub(super) fn new(window: Window, seats: usize) -> Self {
        Self(Pass::over_shard(Aim::Drain, window, seats))
    }

    /// Collects the ends of some of the streams that are due.
    pub(crate) fn collect(&mut self, driver: &ShardDriver, now: Time, batch: &mut Batch) -> Pace {
        let pace = self.0.collect(driver, now, batch);
        if pace == Pace::Over {
            driver.set_drained();
        }
        pace
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use super::*;
    use crate::config::HubConfig;
    use crate::hub::{Hub, SEATS_PER_TURN, Subscription, View};
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
