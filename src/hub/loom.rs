//! Every interleaving of what two threads do to a hub, explored by loom:
//! `RUSTFLAGS="--cfg nudged_loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release --lib loom`

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use super::{Batch, Deadline, Hub, Keys, Pace, Subscription, View};
use crate::config::HubConfig;
use crate::ids::{OrgName, Time};
use crate::metrics::CloseReason;
use crate::wire::Frame;

/// Counts its wakes.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn bell() -> (Arc<Bell>, Waker) {
    let bell = Arc::new(Bell::default());
    (bell.clone(), bell.into())
}

fn rung(bell: &Bell) -> bool {
    bell.0.load(Ordering::Relaxed) > 0
}

fn hub() -> Hub {
    let coalesce = Duration::ZERO;
    Hub::new(HubConfig { coalesce, ..HubConfig::default() })
}

fn org() -> OrgName {
    "acme".parse().expect("a name")
}

fn subscribe(hub: &Hub) -> Subscription {
    hub.subscribe(&org(), View::Member, None, Time(0)).expect("not closing").0
}

fn publish(hub: &Hub, key: &str) {
    publish_at(hub, key, Time(0));
}

fn publish_at(hub: &Hub, key: &str, now: Time) {
    hub.publish(&org(), &Keys::new([key], hub.config()).expect("a key"), now);
}

/// What the driver does.
fn sweep(hub: &Hub) {
    sweep_between(hub, || ());
}

/// The same, with what other tasks do between its turns.
fn sweep_between(hub: &Hub, mut others: impl FnMut()) {
    let mut batch = Batch::default();
    while let Some(mut sweep) = hub.next_sweep() {
        let mut more = true;
        while more {
            more = sweep.collect(&mut batch);
            batch.wake();
            batch.clear();
            others();
        }
    }
}

/// What the driver does at a tick about ends.
fn tick_alarms(hub: &Hub, tick: u32) {
    let (mut due, mut batch) = (Vec::new(), Batch::default());
    hub.tick(tick, &mut Vec::new());
    hub.timers(tick, &mut due);
    hub.fire(&due, &mut batch);
    batch.wake();
}

fn text(polled: Poll<Option<Frame>>) -> Option<String> {
    match polled {
        Poll::Ready(Some(frame)) => {
            Some(String::from_utf8(frame.payload().to_vec()).expect("UTF-8"))
        }
        _ => None,
    }
}

/// The driver sweeps at once, or after the poll.
#[test]
fn a_publish_wakes_whoever_saw_nothing() {
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
                assert!(rung(&bell), "it waits for what is there");
            }
            let late = early.or_else(|| text(subscription.poll_next(&waker)));
            assert!(late.is_some_and(|event| event.contains("[\"a\"]")));
        });
    }
}

#[test]
fn a_sweep_misses_no_publish() {
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
        // As a task does: it takes what there is when it is woken, and waits again.
        let mut heard = Vec::new();
        let mut take = || {
            if bell.0.swap(0, Ordering::Relaxed) > 0 {
                heard.extend(std::iter::from_fn(|| text(subscription.poll_next(&waker))));
            }
        };
        sweep_between(&hub, &mut take);
        publishers.into_iter().for_each(|publisher| publisher.join().expect("no panic"));
        sweep_between(&hub, &mut take);
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(heard[0].contains("[\"a\"]") != heard[1].contains("[\"a\"]"), "{heard:?}");
    });
}

#[test]
fn a_driver_that_goes_to_sleep_is_woken() {
    loom::model(|| {
        let hub = hub();
        let _subscription = subscribe(&hub);
        let publisher = hub.clone();
        let publisher = loom::thread::spawn(move || publish(&publisher, "a"));
        let (bell, waker) = bell();
        let (dirty, _) = hub.register(&waker);
        publisher.join().expect("no panic");
        assert!(dirty || rung(&bell), "the driver sleeps over a dirty channel");
    });
}

#[test]
fn a_subscriber_that_goes_meanwhile_leaves_nothing() {
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
fn a_subscriber_hears_what_is_published_after_it_came() {
    loom::model(|| {
        let hub = hub();
        let other = hub.clone();
        let other = loom::thread::spawn(move || publish(&other, "before-or-after"));
        let mut subscription = subscribe(&hub);
        publish(&hub, "after");
        other.join().expect("no panic");
        let (_, waker) = bell();
        let heard: Vec<_> = std::iter::from_fn(|| text(subscription.poll_next(&waker))).collect();
        assert!(heard.iter().any(|event| event.contains("[\"after\"]")), "{heard:?}");
        assert!(heard.len() <= 2);
    });
}

/// Somebody comes while the hub is told to end, and once the driver has done its part has to have heard
/// of it.
fn lets_nobody_stay(told: fn(&Hub), driven: fn(&Hub)) {
    loom::model(move || {
        let hub = hub();
        let closer = hub.clone();
        let closer = loom::thread::spawn(move || told(&closer));
        let subscription = hub.subscribe(&org(), View::Member, None, Time(0));
        let (bell, waker) = bell();
        let early = subscription.ok().map(|(mut subscription, _)| {
            let polled = subscription.poll_next(&waker);
            (subscription, polled)
        });
        closer.join().expect("no panic");
        driven(&hub);
        assert_eq!(hub.is_over(), early.is_none());
        if let Some((mut subscription, polled)) = early {
            assert!(matches!(polled, Poll::Ready(None)) || rung(&bell), "it stays for ever");
            assert!(matches!(subscription.poll_next(&waker), Poll::Ready(None)));
        }
    });
}

#[test]
fn closing_lets_nobody_stay() {
    lets_nobody_stay(|hub| hub.close(Time(0)), sweep);
}

/// The walk of a drain alone reaches the seats.
#[test]
fn draining_lets_nobody_stay() {
    lets_nobody_stay(
        |hub| hub.drain(Time(0), Duration::ZERO),
        |hub| {
            let mut walk = hub.begin_drain().expect("it was told to");
            let mut batch = Batch::default();
            while walk.collect(hub, Time(0), &mut batch) == Pace::Now {
                batch.wake();
                batch.clear();
            }
            batch.wake();
        },
    );
}

/// The driver looks once whether it may end, at any moment.
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
        let ended = hub.is_over();
        closer.join().expect("no panic");
        let stream = subscriber.join().expect("no panic");
        if !ended {
            sweep(&hub);
        }
        if let Some((_subscription, bell, true)) = &stream {
            assert!(rung(bell), "it stays for ever");
        }
    });
}

/// Nothing else wakes it then: there is no channel to sweep.
#[test]
fn a_driver_that_waits_hears_that_it_is_over() {
    let waits = |hub: &Hub, end: Box<dyn FnOnce() + Send>| {
        let end = loom::thread::spawn(end);
        let (bell, waker) = bell();
        if !hub.is_over() {
            let (work, _) = hub.register(&waker);
            end.join().expect("no panic");
            assert!(work || rung(&bell), "it waits for a tick");
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

#[test]
fn a_window_that_closes_meanwhile_keeps_nothing() {
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
        hub.close_windows(Time(50));
        publishers.into_iter().for_each(|publisher| publisher.join().expect("no panic"));
        let mut heard = String::new();
        for now in [100, 150] {
            hub.close_windows(Time(now));
            let taken = std::iter::from_fn(|| text(subscription.poll_next(Waker::noop())));
            heard.extend(taken);
        }
        for key in ["first", "held", "b", "c"] {
            assert_eq!(heard.matches(&format!("\"{key}\"")).count(), 1, "{key} in {heard}");
        }
        assert_eq!(hub.register(Waker::noop()).1, None, "a window without keys");
    });
}

#[test]
fn making_room_takes_no_channel_from_under_a_subscriber() {
    loom::model(|| {
        let coalesce = Duration::ZERO;
        let hub = Hub::new(HubConfig { coalesce, idle_channels_max: 0, ..HubConfig::default() });
        drop(subscribe(&hub));
        let newcomer = hub.clone();
        let newcomer = loom::thread::spawn(move || {
            let org = "other".parse().expect("a name");
            newcomer.subscribe(&org, View::Member, None, Time(0)).expect("not closing").0
        });
        let mut subscription = subscribe(&hub);
        let other = newcomer.join().expect("no panic");
        publish(&hub, "a");
        let heard = text(subscription.poll_next(Waker::noop()));
        assert!(heard.is_some(), "it listens to a channel that is gone");
        assert_eq!(hub.seats(), 2);
        drop(other);
    });
}

#[test]
fn tidying_takes_no_channel_from_under_a_subscriber() {
    loom::model(|| {
        let hub = hub();
        drop(subscribe(&hub));
        let tidier = hub.clone();
        let tidier = loom::thread::spawn(move || tidier.tidy(0, Time(u64::MAX)));
        let mut subscription = subscribe(&hub);
        tidier.join().expect("no panic");
        publish(&hub, "a");
        let (_, waker) = bell();
        assert!(
            text(subscription.poll_next(&waker)).is_some(),
            "it listens to a channel that is gone"
        );
    });
}

/// The driver finds the deadline while the task looks, sweeps, or has been woken for an event.
#[test]
fn a_deadline_reaches_a_task_whatever_it_does() {
    loom::model(|| {
        let hub = hub();
        let mut subscription = subscribe(&hub);
        subscription.end_at(Deadline { at: Time(1_000), reason: CloseReason::Expired });
        let driver = hub.clone();
        let driver = loom::thread::spawn(move || {
            publish(&driver, "a");
            sweep(&driver);
            tick_alarms(&driver, 1);
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
            assert!(rung(&bell), "it stays for ever");
            while let Poll::Ready(Some(_)) = subscription.poll_next(&waker) {}
            assert!(matches!(subscription.poll_next(&waker), Poll::Ready(None)));
        }
    });
}

/// The owner of a socket finds it full while the driver looks how long it has been so.
#[test]
fn a_full_socket_is_cut_or_its_alarm_set() {
    loom::model(|| {
        let hub = hub();
        let mut subscription = subscribe(&hub);
        let (bell, waker) = bell();
        assert!(subscription.poll_next(&waker).is_pending());
        let watch = subscription.watch();
        let writer = loom::thread::spawn(move || {
            _ = watch.block();
            watch.unblock();
            _ = watch.block();
        });
        tick_alarms(&hub, 100);
        writer.join().expect("no panic");
        bell.0.store(0, Ordering::Relaxed);
        // It takes nothing from here on.
        (2..4).for_each(|minutes| tick_alarms(&hub, minutes * 100));
        assert!(rung(&bell), "nobody watches it");
        assert_eq!(subscription.watch().block(), Some(CloseReason::Stalled));
    });
}

/// Another driver takes over in the middle of a walk, while something is published.
#[test]
fn a_walk_that_is_dropped_misses_no_publish() {
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
        let mut walk = hub.next_sweep().expect("dirty");
        assert!(walk.collect(&mut batch));
        batch.wake();
        batch.clear();
        drop(walk);
        publisher.join().expect("no panic");
        sweep(&hub);
        assert!(bells.iter().all(|(bell, _)| rung(bell)), "it waits for what is there");
    });
}
