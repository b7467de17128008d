//! Ends by the clock, against naive twins, in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::Bell;
use crate::config::HubConfig;
use crate::hub::{Batch, Deadline, Hub, Keys, Subscription, View, WriteKind, WriteOp};
use crate::ids::Time;
use crate::metrics::{CloseReason, read};

/// A subscriber with what its task knows.
struct Waiting {
    subscription: Subscription,
    bell: Arc<Bell>,
}

// ===== impl Waiting =====

impl Waiting {
    fn new(hub: &Hub) -> Self {
        let org = "acme".parse().expect("a name");
        let (subscription, _) = hub.subscribe(&org, View::Member, None, Time(0)).expect("open");
        let mut waiting = Self { subscription, bell: Arc::new(Bell(AtomicBool::new(true))) };
        assert!(!waiting.run());
        waiting
    }

    /// As a task does, which looks only if it was woken. Returns whether the stream has ended.
    fn run(&mut self) -> bool {
        if !self.bell.0.swap(false, Ordering::Relaxed) {
            return false;
        }
        loop {
            match self.subscription.poll_next(&Waker::from(self.bell.clone())) {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
    }
}

fn hub(config: HubConfig) -> Hub {
    Hub::new(HubConfig { coalesce: Duration::ZERO, ..config })
}

fn publish(hub: &Hub) {
    let keys = Keys::new(["k"], hub.config()).expect("a key");
    hub.publish(&"acme".parse().expect("a name"), &keys, Time(0));
}

/// Returns what the tick found for the owners of sockets to do.
fn tick(hub: &Hub, tick: u32) -> Vec<WriteOp> {
    let (mut due, mut batch) = (Vec::new(), Batch::default());
    hub.tick(tick, &mut Vec::new());
    hub.timers(tick, &mut due);
    for timers in due.chunks(3) {
        hub.fire(timers, &mut batch);
        batch.wake();
    }
    batch.writes
}

fn timers(hub: &Hub) -> usize {
    hub.shard().timers.lock().len()
}

fn closed(hub: &Hub, reason: CloseReason) -> u64 {
    hub.counters().map(|c| read(&c.closed[0][reason as usize])).sum()
}

proptest! {
    /// Each stream ends at the first tick that is not before its earliest deadline, with its cause.
    #[test]
    fn streams_end_at_their_deadlines(
        deadlines in prop::collection::vec(prop::collection::vec(0..400_000u64, 0..3), 1..40),
        steps in prop::collection::vec(prop_oneof![9 => 1..4u32, 1 => 1..200u32], 1..150),
    ) {
        let hub = hub(HubConfig::default());
        let mut open: Vec<_> = deadlines.into_iter().map(|deadlines| {
            let waiting = Waiting::new(&hub);
            for at in &deadlines {
                let reason = CloseReason::Expired;
                waiting.subscription.end_at(Deadline { at: Time(*at), reason });
            }
            (waiting, deadlines.into_iter().min())
        }).collect();
        let count = open.len() as u64;
        let mut now = 0;
        for step in steps {
            now += step;
            tick(&hub, now);
            open.retain_mut(|(waiting, _)| !waiting.run());
            for (_, deadline) in &open {
                prop_assert!(deadline.is_none_or(|at| at > u64::from(now) * 1_000), "{} s: {:?}", now, deadline);
            }
            let early = open.iter().filter(|(_, at)| at.is_some_and(|at| at <= u64::from(now) * 1_000));
            prop_assert_eq!(early.count(), 0);
            prop_assert_eq!(closed(&hub, CloseReason::Expired), count - open.len() as u64);
        }
        prop_assert!(open.iter().all(|(_, at)| at.is_none_or(|at| at > u64::from(now) * 1_000)));
        prop_assert_eq!(hub.seats(), open.len());
    }

    /// A stream whose socket is full and takes nothing for the limit, and at most a tick more, is ended as
    /// stalled; one whose socket takes something meanwhile is not. However often it is full, there is one timer.
    #[test]
    fn a_socket_stalls_after_its_limit(
        limit in 1..20u32,
        steps in prop::collection::vec((0..3u8, 0..6u32), 1..150),
    ) {
        const SOCKET: u32 = 7;
        let stall_timeout = Duration::from_secs(limit.into());
        let hub = hub(HubConfig { stall_timeout, ..HubConfig::default() });
        let Waiting { subscription, .. } = Waiting::new(&hub);
        let (mut now, mut since) = (0, None);
        for (step, ticks) in steps {
            match step {
                0 => {
                    subscription.stay_blocked(SOCKET, false);
                    since.get_or_insert(now);
                }
                1 => {
                    subscription.unblock();
                    since = None;
                }
                _ => {}
            }
            for _ in 0..ticks {
                now += 1;
                let writes = tick(&hub, now);
                let is_end = |op: &WriteOp| {
                    op.socket == SOCKET && matches!(op.kind, WriteKind::End(CloseReason::Stalled))
                };
                let ends = writes.iter().filter(|op| is_end(op)).count();
                prop_assert_eq!(writes.len(), ends);
                prop_assert_eq!(ends > 0, since.is_some_and(|since| now - since > limit), "at {}", now);
                prop_assert!(timers(&hub) <= 1);
            }
        }
    }
}

/// What is published after the deadline is for who comes back.
#[test]
fn nothing_is_handed_out_after_a_deadline() {
    let hub = hub(HubConfig::default());
    let mut waiting = Waiting::new(&hub);
    let deadline = Deadline { at: Time(5_000), reason: CloseReason::Expired };
    waiting.subscription.end_at(deadline);
    tick(&hub, 5);
    publish(&hub);
    assert!(matches!(waiting.subscription.poll_next(Waker::noop()), Poll::Ready(None)));
    drop(waiting);
    assert_eq!(closed(&hub, CloseReason::Expired), 1);
}

/// A task that has something to write is not asked for more; its end must reach it all the same, and
/// again at every tick until it comes.
#[test]
fn a_busy_task_hears_of_its_end() {
    let hub = hub(HubConfig::default());
    let mut waiting = Waiting::new(&hub);
    waiting.subscription.end_at(Deadline { at: Time(1_000), reason: CloseReason::MaxAge });
    publish(&hub);
    while let Some(mut sweep) = hub.next_sweep() {
        let mut batch = Batch::default();
        while sweep.collect(&mut batch) {}
        batch.wake();
    }
    for now in 1..4 {
        waiting.bell.0.store(false, Ordering::Relaxed);
        tick(&hub, now);
        assert!(waiting.bell.0.load(Ordering::Relaxed), "at {now}");
    }
    assert!(waiting.run());
}

/// A reset that comes with a deadline is a reset; and a cause that is known later changes nothing.
#[test]
fn the_first_cause_counts() {
    let hub = hub(HubConfig::default());
    let waiting = Waiting::new(&hub);
    let seat = waiting.subscription.handle();
    seat.note(CloseReason::Reset);
    seat.note(CloseReason::Error);
    drop(waiting);
    seat.note(CloseReason::Error);
    assert_eq!((closed(&hub, CloseReason::Reset), closed(&hub, CloseReason::Error)), (1, 0));
}

/// A stream that goes before its deadline leaves a timer behind, and those do not pile up.
#[test]
fn alarms_of_streams_that_are_gone_are_bounded() {
    let hub = hub(HubConfig { stream_age_max: None, ..HubConfig::default() });
    let stays = Waiting::new(&hub);
    for now in 1..100 {
        for _ in 0..100 {
            let goes = Waiting::new(&hub);
            let deadline = Deadline { at: Time(86_400_000), reason: CloseReason::MaxAge };
            goes.subscription.end_at(deadline);
        }
        tick(&hub, now);
        assert!(timers(&hub) <= 1_024 + 100 + 4, "{} at {now}", timers(&hub));
    }
    drop(stays);
}

/// SCENARIO: a driver is dropped when it has walked past some of a channel's subscribers; another one
/// takes its place, and something more is published.
/// BUG: the channel counted as known to be dirty, so that nobody told the new driver: its subscribers
/// slept for ever.
/// FIX: a walk that is dropped before it is done leaves its channel to the next driver.
#[test]
fn a_walk_that_is_dropped_is_left_to_the_next_driver() {
    let hub = hub(HubConfig::default());
    let waiting: Vec<_> = (0..100).map(|_| Waiting::new(&hub)).collect();
    publish(&hub);
    let (mut sweep, mut batch) = (hub.next_sweep().expect("dirty"), Batch::default());
    assert!(sweep.collect(&mut batch), "there are more than one batch takes");
    batch.wake();
    drop(sweep);
    publish(&hub);
    let mut sweep = hub.next_sweep().expect("a channel for the new driver");
    while sweep.collect(&mut batch) {
        batch.wake();
    }
    batch.wake();
    assert!(waiting.iter().all(|waiting| waiting.bell.0.load(Ordering::Relaxed)));
    drop(sweep);
    assert!(hub.next_sweep().is_none(), "a walk that is done leaves nothing");
}
