//! No publish is missed, whatever runs concurrently.

use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use super::{bell, hub, publish, publish_at, rung, subscribe, sweep, sweep_between, text};
use crate::config::HubConfig;
use crate::hub::{Batch, Hub};
use crate::time::Time;

/// The driver sweeps at once, or after the poll.
#[test]
fn a_publish_wakes_a_subscriber_that_missed_it() {
    for at_once in [true, false] {
        loom::model(move || {
            let hub = hub();
            let mut subscription = subscribe(&hub);
            let publisher = hub.clone();
            let publisher = loom::thread::spawn(move || {
                publish(&publisher, "a");
                if at_once {
                    sweep(&publisher);
                }
            });
            let (bell, waker) = bell();
            let early = text(subscription.poll_next(&waker));
            publisher.join().expect("no panic");
            sweep(&hub);
            if early.is_none() {
                assert!(rung(&bell), "not woken for a pending event");
            }
            let late = early.or_else(|| text(subscription.poll_next(&waker)));
            assert!(late.is_some_and(|event| event.contains("[\"a\"]")));
        });
    }
}

#[test]
fn a_concurrent_sweep_misses_no_publish() {
    loom::model(|| {
        let hub = hub();
        let (mut subscription, mut behind_it) = (subscribe(&hub), subscribe(&hub));
        let (bell, waker) = bell();
        assert!(subscription.poll_next(&waker).is_pending());
        assert!(behind_it.poll_next(Waker::noop()).is_pending());
        let publishers = ["a", "b"].map(|key| {
            let hub = hub.clone();
            loom::thread::spawn(move || publish(&hub, key))
        });
        // Polls like a task, when it is woken, until nothing is pending.
        let mut received = Vec::new();
        let mut take = || {
            if bell.0.swap(0, Ordering::Relaxed) > 0 {
                received.extend(std::iter::from_fn(|| text(subscription.poll_next(&waker))));
            }
        };
        sweep_between(&hub, &mut take);
        publishers.into_iter().for_each(|publisher| publisher.join().expect("no panic"));
        sweep_between(&hub, &mut take);
        assert_eq!(received.len(), 2, "{received:?}");
        assert!(received[0].contains("[\"a\"]") != received[1].contains("[\"a\"]"), "{received:?}");
    });
}

/// Another driver takes over in the middle of a sweep, during a publish.
#[test]
fn a_dropped_sweep_misses_no_publish() {
    loom::model(|| {
        let hub = hub();
        let mut subscriptions = [subscribe(&hub), subscribe(&hub)];
        let bells = [bell(), bell()];
        for (subscription, (_, waker)) in subscriptions.iter_mut().zip(&bells) {
            assert!(subscription.poll_next(waker).is_pending());
        }
        publish(&hub, "a");
        let publisher = hub.clone();
        let publisher = loom::thread::spawn(move || publish(&publisher, "b"));
        let mut batch = Batch::default();
        let mut dropped = hub.driver().next_sweep().expect("dirty");
        assert!(dropped.collect(&mut batch));
        batch.wake();
        batch.clear();
        drop(dropped);
        publisher.join().expect("no panic");
        sweep(&hub);
        assert!(bells.iter().all(|(bell, _)| rung(bell)), "not woken for a pending event");
    });
}

#[test]
fn a_subscriber_that_is_dropped_during_a_publish_leaves_no_seat() {
    loom::model(|| {
        let hub = hub();
        let mut subscription = subscribe(&hub);
        let (_, waker) = bell();
        assert!(subscription.poll_next(&waker).is_pending());
        let publisher = hub.clone();
        let publisher = loom::thread::spawn(move || {
            publish(&publisher, "a");
            sweep(&publisher);
        });
        drop(subscription);
        publisher.join().expect("no panic");
        assert_eq!(hub.seats(), 0);
    });
}

#[test]
fn a_subscriber_receives_what_is_published_after_it_subscribed() {
    loom::model(|| {
        let hub = hub();
        let other = hub.clone();
        let other = loom::thread::spawn(move || publish(&other, "before-or-after"));
        let mut subscription = subscribe(&hub);
        publish(&hub, "after");
        other.join().expect("no panic");
        let (_, waker) = bell();
        let received: Vec<_> =
            std::iter::from_fn(|| text(subscription.poll_next(&waker))).collect();
        assert!(received.iter().any(|event| event.contains("[\"after\"]")), "{received:?}");
        assert!(received.len() <= 2);
    });
}

#[test]
fn a_window_that_closes_during_publishes_loses_no_key() {
    loom::model(|| {
        let coalesce = Duration::from_millis(50);
        let hub = Hub::new(HubConfig { coalesce, ..HubConfig::default() });
        let mut subscription = subscribe(&hub);
        publish(&hub, "first");
        publish(&hub, "held");
        let publishers = ["b", "c"].map(|key| {
            let hub = hub.clone();
            loom::thread::spawn(move || publish_at(&hub, key, Time(49)))
        });
        hub.driver().close_windows(Time(50));
        publishers.into_iter().for_each(|publisher| publisher.join().expect("no panic"));
        let mut received = String::new();
        for now in [100, 150] {
            hub.driver().close_windows(Time(now));
            let taken = std::iter::from_fn(|| text(subscription.poll_next(Waker::noop())));
            received.extend(taken);
        }
        for key in ["first", "held", "b", "c"] {
            assert_eq!(received.matches(&format!("\"{key}\"")).count(), 1, "{key} in {received}");
        }
        assert_eq!(hub.driver().register(Waker::noop()).1, None, "a window without keys");
    });
}

/// A publish is held on a shard whose driver ends meanwhile: another driver closes the window.
#[test]
fn a_window_is_not_left_to_a_driver_that_has_ended() {
    loom::model(|| {
        let coalesce = Duration::from_millis(50);
        let hub = Hub::with_shards(HubConfig { coalesce, ..HubConfig::default() }, 2);
        let (ending, other) = (hub.on_shard(0), hub.on_shard(1));
        let mut subscription = subscribe(&other);
        publish(&ending, "first");
        let publisher = ending.clone();
        let publisher = loom::thread::spawn(move || publish_at(&publisher, "held", Time(1)));
        ending.driver().end(Time(1));
        publisher.join().expect("no panic");
        other.driver().close_windows(Time(50));
        let received: String =
            std::iter::from_fn(|| text(subscription.poll_next(Waker::noop()))).collect();
        assert!(received.contains("\"held\""), "{received}");
    });
}
