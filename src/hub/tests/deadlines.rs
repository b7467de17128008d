//! Timers compared with naive twins, in virtual time: deadlines, ages, stalls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::Bell;
use crate::config::HubConfig;
use crate::hub::{
    Batch, Deadline, Hub, Keys, Pace, SocketId, Subscription, View, WriteKind, WriteOp,
};
use crate::metrics::{CloseReason, read};
use crate::stream::EventStream;
use crate::time::{Tick, Time};

/// A subscriber with the state of its task.
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

    /// Polls like a task, only if it was woken. Returns whether the stream has ended.
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

/// Advances the timers, and returns the writes for the reactor.
fn tick(hub: &Hub, tick: u32) -> Vec<WriteOp> {
    let (mut due, mut batch) = (Vec::new(), Batch::default());
    hub.driver().tick(Tick(tick), &mut Vec::new());
    hub.driver().timers(Tick(tick), &mut due);
    for timers in due.chunks(3) {
        hub.driver().fire(timers, &mut batch);
        batch.wake();
    }
    batch.writes
}

/// Has the end of every stream be due at this second.
fn drain_at(hub: &Hub, second: u32) {
    let now = Tick(second).time();
    hub.drain(now, Duration::ZERO);
    let (mut drain, mut batch) = (hub.driver().begin_drain().expect("it drains"), Batch::default());
    while drain.collect(&hub.driver(), now, &mut batch) == Pace::Now {
        batch.wake();
        batch.clear();
    }
}

/// The sockets whose streams end as stalled at this second.
fn stalled_at(hub: &Hub, second: u32) -> Vec<u32> {
    let is_end = |op: &WriteOp| matches!(op.kind, WriteKind::End(CloseReason::Stalled));
    tick(hub, second).into_iter().filter(is_end).map(|op| op.socket.0).collect()
}

/// SCENARIO: the end of a stream is due in a drain, and its client reads nothing.
/// BUG: the stream held the drain until its stall timeout, a minute.
/// FIX: it ends after the grace. A client that reads some of it still gets the rest.
#[test]
fn a_stream_that_makes_no_progress_when_its_end_is_due_ends_after_the_grace() {
    let hub = hub(HubConfig::default());
    let [stuck, recovered, slow] = [0; 3].map(|_| Waiting::new(&hub).subscription);
    let mut task = Waiting::new(&hub);
    tick(&hub, 100);
    for (socket, stream) in [(1, &stuck), (2, &recovered), (3, &slow)] {
        stream.stay_blocked(SocketId(socket), false);
    }
    // It has timers for its stall that fire far too late.
    recovered.unblock();
    // A task took an event, and waits for the flow-control window.
    publish(&hub);
    task.bell.0.store(true, Ordering::Relaxed);
    assert!(matches!(
        task.subscription.poll_next(&Waker::from(task.bell.clone())),
        Poll::Ready(Some(_))
    ));
    task.subscription.handle().rest();
    task.bell.0.store(false, Ordering::Relaxed);

    assert_eq!(stalled_at(&hub, 130), [0; 0], "the stall timeout is a minute");
    drain_at(&hub, 130);
    recovered.stay_blocked(SocketId(2), false);
    for second in 131..140 {
        slow.stay_blocked(SocketId(3), true);
        let mut stalled = stalled_at(&hub, second);
        stalled.sort_unstable();
        match second {
            131 => assert_eq!(stalled, [0; 0], "the grace is a second, and ticks are rounded"),
            _ => assert_eq!(stalled, [1, 2], "at {second} s"),
        }
        assert_eq!(task.subscription.handle().is_stalled(false), second > 131);
    }
    assert!(task.bell.0.load(Ordering::Relaxed), "its task was woken");
    let ends = (140..150).find(|second| stalled_at(&hub, *second).contains(&3));
    assert!(ends.is_some_and(|second| second <= 142), "without progress it ends at {ends:?}");
}

fn timers(hub: &Hub) -> usize {
    hub.shard().timers()
}

fn closed(hub: &Hub, reason: CloseReason) -> u64 {
    hub.counters().map(|c| read(&c.closed[0][reason as usize])).sum()
}

proptest! {
    /// Each stream ends at the first tick at or after its earliest deadline, with the cause of that deadline.
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

    /// A stream ends as stalled when its full socket makes no progress for the limit, and at most a tick longer; any
    /// progress prevents it. There is one timer, however often the socket is full.
    #[test]
    fn a_socket_stalls_after_its_limit(
        limit in 1..20u32,
        steps in prop::collection::vec((0..3u8, 0..6u32), 1..150),
    ) {
        const SOCKET: SocketId = SocketId(7);
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

    /// The same for a stream over HTTP/2, whose task is idle while its last frame waits for flow control: it stalls
    /// exactly at the limit after the last progress.
    #[test]
    fn a_task_stalls_after_the_limit(
        limit in 1..20u32,
        steps in prop::collection::vec((0..4u8, 0..6u32), 1..150),
    ) {
        let stall_timeout = Duration::from_secs(limit.into());
        let hub = hub(HubConfig { stall_timeout, ..HubConfig::default() });
        let Waiting { mut subscription, bell } = Waiting::new(&hub);
        let waker = Waker::from(bell.clone());
        let seat = subscription.handle();
        let (mut now, mut since) = (0, None);
        for (step, ticks) in steps {
            let stalled = since.is_some_and(|since| now - since > limit);
            match step {
                // One more event is handed out, and waits for flow control.
                0 if !stalled => {
                    publish(&hub);
                    prop_assert!(subscription.poll_next(&waker).is_ready());
                    seat.rest();
                    since = Some(now);
                }
                // A part of the event is sent.
                1 => {
                    prop_assert!(!seat.is_stalled(true));
                    since = since.map(|_| now);
                }
                // Everything is sent.
                2 => {
                    while subscription.poll_next(&waker).is_ready() {}
                    seat.rest();
                    since = None;
                }
                _ => {}
            }
            bell.0.store(false, Ordering::Relaxed);
            for _ in 0..ticks {
                now += 1;
                tick(&hub, now);
                let stalled = since.is_some_and(|since| now - since > limit);
                prop_assert_eq!(seat.is_stalled(false), stalled, "at {}", now);
                prop_assert!(!stalled || bell.0.load(Ordering::Relaxed), "its task is not woken");
                prop_assert!(timers(&hub) <= 1);
            }
        }
    }
}

/// The end is drawn for each stream, so that the clients do not reconnect all at once.
#[test]
fn streams_end_at_80_to_100_percent_of_their_maximum_age() {
    const STREAMS: usize = 1_000;
    let stream_age_max = Some(Duration::from_secs(100));
    let hub = hub(HubConfig { stream_age_max, ..HubConfig::default() });
    let org = "acme".parse().expect("a name");
    let open = |_| EventStream::open(&hub, &org, View::Member, None, Time(0)).expect("open");
    let mut streams: Vec<_> = (0..STREAMS).map(open).collect();
    let mut ended_at = |now| {
        tick(&hub, now);
        streams.retain_mut(|stream| stream.subscription().poll_next(Waker::noop()).is_pending());
        STREAMS - streams.len()
    };
    assert_eq!(ended_at(79), 0);
    let half = ended_at(90);
    assert!((STREAMS / 4..STREAMS * 3 / 4).contains(&half), "{half}");
    assert_eq!(ended_at(100), STREAMS);
    assert_eq!(closed(&hub, CloseReason::MaxAge), STREAMS as u64);
}

/// An event after the deadline is delivered when the client resumes.
#[test]
fn nothing_is_delivered_after_a_deadline() {
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

/// A task with a pending write is not woken for more events, but it is woken for its end, at every tick until it has
/// ended.
#[test]
fn a_busy_task_is_woken_for_its_end() {
    let hub = hub(HubConfig::default());
    let mut waiting = Waiting::new(&hub);
    waiting.subscription.end_at(Deadline { at: Time(1_000), reason: CloseReason::MaxAge });
    publish(&hub);
    while let Some(mut sweep) = hub.driver().next_sweep() {
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

/// A cause that is noted later, or after the end, has no effect.
#[test]
fn only_the_first_cause_of_an_end_is_counted() {
    let hub = hub(HubConfig::default());
    let waiting = Waiting::new(&hub);
    let seat = waiting.subscription.handle();
    seat.note(CloseReason::Reset);
    seat.note(CloseReason::Error);
    drop(waiting);
    seat.note(CloseReason::Error);
    assert_eq!((closed(&hub, CloseReason::Reset), closed(&hub, CloseReason::Error)), (1, 0));
}

/// A stream that ends before its deadline leaves a timer behind; the number of such timers is bounded.
#[test]
fn timers_of_ended_streams_are_bounded() {
    let hub = hub(HubConfig { stream_age_max: None, ..HubConfig::default() });
    let open = Waiting::new(&hub);
    for now in 1..100 {
        for _ in 0..100 {
            let ended = Waiting::new(&hub);
            let deadline = Deadline { at: Time(86_400_000), reason: CloseReason::MaxAge };
            ended.subscription.end_at(deadline);
        }
        tick(&hub, now);
        assert!(timers(&hub) <= 1_024 + 100 + 4, "{} at {now}", timers(&hub));
    }
    drop(open);
}

/// SCENARIO: a driver is dropped after it has swept a part of a channel's subscribers; another driver replaces it,
/// and an event is published.
/// BUG: the channel was still marked as dirty, so that it was not queued for the new driver: its subscribers were
/// never woken.
/// FIX: a sweep that is dropped before its end queues its channel for the next driver.
#[test]
fn the_next_driver_continues_a_dropped_sweep() {
    let hub = hub(HubConfig::default());
    let waiting: Vec<_> = (0..100).map(|_| Waiting::new(&hub)).collect();
    publish(&hub);
    let (mut sweep, mut batch) = (hub.driver().next_sweep().expect("dirty"), Batch::default());
    assert!(sweep.collect(&mut batch), "one batch does not hold all subscribers");
    batch.wake();
    drop(sweep);
    publish(&hub);
    let mut sweep = hub.driver().next_sweep().expect("a channel for the new driver");
    while sweep.collect(&mut batch) {
        batch.wake();
    }
    batch.wake();
    assert!(waiting.iter().all(|waiting| waiting.bell.0.load(Ordering::Relaxed)));
    drop(sweep);
    assert!(hub.driver().next_sweep().is_none(), "a finished sweep queues nothing");
}
