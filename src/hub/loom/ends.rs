//! Every stream and every driver ends, and not too early.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::{bell, hub, org, publish, rung, subscribe, sweep, tick_timers};
use crate::hub::{Batch, Deadline, Frames, Hub, Pace, SocketId, Taken, View, WriteKind, WriteOp};
use crate::metrics::CloseReason;
use crate::time::Time;

/// A client subscribes while the hub closes: it is refused, or the driver's work (`driven`) wakes it for its end.
fn every_stream_ends(close: fn(&Hub), driven: fn(&Hub)) {
    loom::model(move || {
        let hub = hub();
        let closer = hub.clone();
        let closer = loom::thread::spawn(move || close(&closer));
        let subscription = hub.subscribe(&org(), View::Member, None, Time(0));
        let (bell, waker) = bell();
        let early = subscription.ok().map(|(mut subscription, _)| {
            let polled = subscription.poll_next(&waker);
            (subscription, polled)
        });
        closer.join().expect("no panic");
        driven(&hub);
        assert_eq!(hub.driver().is_over(), early.is_none());
        if let Some((mut subscription, polled)) = early {
            assert!(matches!(polled, Poll::Ready(None)) || rung(&bell), "not woken for its end");
            assert!(matches!(subscription.poll_next(&waker), Poll::Ready(None)));
        }
    });
}

#[test]
fn closing_ends_every_stream() {
    every_stream_ends(|hub| hub.close(Time(0)), sweep);
}

/// Only the sweep of a drain reaches the seats.
#[test]
fn draining_ends_every_stream() {
    every_stream_ends(
        |hub| hub.drain(Time(0), Duration::ZERO),
        |hub| {
            let mut drain = hub.driver().begin_drain().expect("the hub drains");
            let mut batch = Batch::default();
            while drain.collect(&hub.driver(), Time(0), &mut batch) == Pace::Now {
                batch.wake();
                batch.clear();
            }
            batch.wake();
        },
    );
}

#[test]
fn a_driver_that_registers_during_a_publish_is_woken() {
    loom::model(|| {
        let hub = hub();
        let _subscription = subscribe(&hub);
        let publisher = hub.clone();
        let publisher = loom::thread::spawn(move || publish(&publisher, "a"));
        let (bell, waker) = bell();
        let (dirty, _) = hub.driver().register(&waker);
        publisher.join().expect("no panic");
        assert!(dirty || rung(&bell), "not woken for a dirty channel");
    });
}

/// The driver checks once, at any moment, whether it may end.
#[test]
fn a_driver_outlives_its_streams() {
    loom::model(|| {
        let hub = hub();
        let closer = hub.clone();
        let closer = loom::thread::spawn(move || closer.close(Time(0)));
        let other = hub.clone();
        let subscriber = loom::thread::spawn(move || {
            let (mut subscription, _) =
                other.subscribe(&org(), View::Member, None, Time(0)).ok()?;
            let (bell, waker) = bell();
            let waits = subscription.poll_next(&waker).is_pending();
            Some((subscription, bell, waits))
        });
        let ended = hub.driver().is_over();
        closer.join().expect("no panic");
        let stream = subscriber.join().expect("no panic");
        if !ended {
            sweep(&hub);
        }
        if let Some((_subscription, bell, true)) = &stream {
            assert!(rung(bell), "not woken for its end");
        }
    });
}

/// Without a channel to sweep, nothing else wakes it.
#[test]
fn a_waiting_driver_is_woken_when_the_hub_is_over() {
    let waits = |hub: &Hub, end: Box<dyn FnOnce() + Send>| {
        let end = loom::thread::spawn(end);
        let (bell, waker) = bell();
        if !hub.driver().is_over() {
            let (work, _) = hub.driver().register(&waker);
            end.join().expect("no panic");
            assert!(work || rung(&bell), "not woken before the next tick");
        }
    };
    loom::model(move || {
        let hub = hub();
        let closer = hub.clone();
        waits(&hub, Box::new(move || closer.close(Time(0))));
    });
    loom::model(move || {
        let hub = hub();
        let last = subscribe(&hub);
        hub.close(Time(0));
        sweep(&hub);
        waits(&hub, Box::new(move || drop(last)));
    });
}

/// The deadline passes while the task polls, waits, or has been woken for an event.
#[test]
fn a_deadline_ends_a_task_in_every_state() {
    loom::model(|| {
        let hub = hub();
        let mut subscription = subscribe(&hub);
        subscription.end_at(Deadline { at: Time(1_000), reason: CloseReason::Expired });
        let driver = hub.clone();
        let driver = loom::thread::spawn(move || {
            publish(&driver, "a");
            sweep(&driver);
            tick_timers(&driver, 1);
        });
        let (bell, waker) = bell();
        let waits = loop {
            match subscription.poll_next(&waker) {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => break false,
                Poll::Pending => break true,
            }
        };
        driver.join().expect("no panic");
        if waits {
            assert!(rung(&bell), "not woken for its end");
            while let Poll::Ready(Some(_)) = subscription.poll_next(&waker) {}
            assert!(matches!(subscription.poll_next(&waker), Poll::Ready(None)));
        }
    });
}

/// The reactor finds a socket full while the driver checks how long it has been full.
#[test]
fn a_socket_that_stays_full_is_ended_as_stalled() {
    const SOCKET: SocketId = SocketId(7);
    loom::model(|| {
        let hub = hub();
        let subscription = Arc::new(subscribe(&hub));
        let written_to = subscription.clone();
        let writer = loom::thread::spawn(move || {
            written_to.stay_blocked(SOCKET, false);
            written_to.unblock();
            written_to.stay_blocked(SOCKET, false);
        });
        tick_timers(&hub, 100);
        writer.join().expect("no panic");
        // It makes no progress from here on.
        let ends = (2..4).flat_map(|minutes| tick_timers(&hub, minutes * 100));
        let is_end = |op: &WriteOp| matches!(op.kind, WriteKind::End(CloseReason::Stalled));
        assert!(ends.filter(|op| op.socket == SOCKET && is_end(op)).count() > 0, "no timer is set");
        let taken = subscription.take_frames(SOCKET, &mut Frames::new());
        assert_eq!(taken, Taken::End(CloseReason::Stalled));
    });
}
