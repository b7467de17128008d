//! Topics: what opens, publishes, closes and is forgotten at once leaves every stream with what it has to get, and with
//! its end.

use std::task::{Poll, Waker};
use std::time::Duration;

use super::{bell, org, rung, sweep, text};
use crate::config::HubConfig;
use crate::hub::{Hub, Start, Subscription};
use crate::ids::Topic;
use crate::metrics::CloseReason;
use crate::time::{Tick, Time};
use crate::wire::{Message, Payload};

fn hub() -> Hub {
    Hub::new(HubConfig { coalesce: Duration::ZERO, topic_events: 2, ..HubConfig::default() })
}

fn topic() -> Topic {
    Topic { org: org(), name: "run-1".parse().expect("a name") }
}

fn open(hub: &Hub, exclusive: bool) -> Subscription {
    hub.subscribe_topic(&topic(), Start::All, exclusive, Time(0)).expect("not closing").0
}

fn publish(hub: &Hub, text: &str) -> crate::ids::EventId {
    let message = Message::new("output", Payload::Text(text), false, usize::MAX);
    hub.publish_message(&topic(), &message.expect("a message"), Time(0))
}

fn close(hub: &Hub) -> usize {
    hub.close_topic(&topic(), "done", Time(0))
}

/// All that a stream receives until it has to wait, and whether it has ended.
fn take(subscription: &mut Subscription) -> (String, bool) {
    let mut received = String::new();
    loop {
        match subscription.poll_next(Waker::noop()) {
            Poll::Ready(Some(frame)) => {
                received += std::str::from_utf8(&frame.payload()).expect("UTF-8")
            }
            Poll::Ready(None) => return (received, true),
            Poll::Pending => return (received, false),
        }
    }
}

/// The newcomer gets what is published, the loser its end.
#[test]
fn an_exclusive_stream_takes_a_place_during_a_publish() {
    loom::model(|| {
        let hub = hub();
        let mut old = open(&hub, false);
        let publisher = hub.clone();
        let publisher = loom::thread::spawn(move || {
            publish(&publisher, "a");
            sweep(&publisher);
        });
        let (bell, waker) = bell();
        let early = old.poll_next(&waker);
        let mut new = open(&hub, true);
        publisher.join().expect("no panic");
        sweep(&hub);
        if early.is_pending() {
            assert!(rung(&bell), "not woken for its end");
        }
        assert!(take(&mut old).1, "it is replaced");
        assert_eq!(old.ends_for(), CloseReason::Replaced);
        assert!(new.poll_sole(Waker::noop()).is_pending(), "its rival has a seat");
        drop(old);
        assert!(new.poll_sole(Waker::noop()).is_ready());
        let (received, ended) = take(&mut new);
        assert_eq!(received.matches("data: a\n").count(), 1, "{received}");
        assert!(!ended);
    });
}

/// The stream that is replaced goes while the newcomer looks.
#[test]
fn a_newcomer_is_woken_when_its_last_rival_goes() {
    loom::model(|| {
        let hub = hub();
        let rivals = [open(&hub, false), open(&hub, true)];
        let new = open(&hub, true);
        let going = loom::thread::spawn(move || drop(rivals));
        let (bell, waker) = bell();
        let early = new.poll_sole(&waker);
        going.join().expect("no panic");
        assert!(early.is_ready() || rung(&bell), "not woken when it is the only one");
        assert!(new.poll_sole(&waker).is_ready());
        assert_eq!(hub.seats(), 1);
    });
}

/// Its rivals go, while it waits no longer for them.
#[test]
fn rivals_that_are_put_out_have_ended_or_are_woken() {
    loom::model(|| {
        let hub = hub();
        let mut rival = open(&hub, false);
        let new = open(&hub, true);
        publish(&hub, "a");
        let waiting = loom::thread::spawn(move || {
            new.end_rivals();
            new
        });
        let (bell, waker) = bell();
        let mut polled = rival.poll_next(&waker);
        while let Poll::Ready(Some(_)) = polled {
            polled = rival.poll_next(&waker);
        }
        let new = waiting.join().expect("no panic");
        sweep(&hub);
        assert!(polled.is_ready() || rung(&bell), "not woken for its end");
        // Its task closes the connection, or its stream.
        let is_over = matches!(rival.poll_next(&waker), Poll::Ready(None));
        assert!(is_over || rival.handle().is_stalled(false));
        drop(rival);
        assert!(new.poll_sole(Waker::noop()).is_ready());
    });
}

/// One of two newcomers stays, the other one ends, and so does the stream before them.
#[test]
fn of_two_exclusive_streams_one_stays() {
    loom::model(|| {
        let hub = hub();
        let mut old = open(&hub, true);
        let other = hub.clone();
        let other = loom::thread::spawn(move || open(&other, true));
        let mut streams = [open(&hub, true), other.join().expect("no panic")];
        sweep(&hub);
        assert!(take(&mut old).1, "it is replaced");
        drop(old);
        let ended = streams.each_mut().map(|stream| take(stream).1);
        assert_eq!(ended.iter().filter(|ended| **ended).count(), 1, "{ended:?}");
        let [first, second] = streams;
        let (loser, winner) = if ended[0] { (first, second) } else { (second, first) };
        assert!(winner.poll_sole(Waker::noop()).is_pending());
        drop(loser);
        assert!(winner.poll_sole(Waker::noop()).is_ready());
    });
}

/// A stream takes the place of another while its topic is closed: it has its end from one, or the place in the next run.
#[test]
fn an_exclusive_stream_opens_while_its_topic_is_closed() {
    loom::model(|| {
        let hub = hub();
        let mut old = open(&hub, false);
        let (bell, waker) = bell();
        assert!(old.poll_next(&waker).is_pending());
        let closer = hub.clone();
        let closer = loom::thread::spawn(move || close(&closer));
        let mut new = open(&hub, true);
        let ended = closer.join().expect("no panic");
        sweep(&hub);
        assert!(rung(&bell), "not woken for its end");
        let (received, over) = take(&mut old);
        assert!(over, "{received}");
        let (received, over) = take(&mut new);
        assert_eq!(received.contains("event: closed\n"), over, "{received}");
        // The closing came first, or reached both: of these, the one that was replaced may have been counted.
        assert!(if over { ended >= 1 } else { ended == 1 }, "{ended} streams");
        drop(old);
        assert!(over || new.poll_sole(Waker::noop()).is_ready());
    });
}

/// What is published is in the run that ends, or in a new one: a stream of either gets it.
#[test]
fn a_publish_meets_the_end_of_its_topic() {
    loom::model(|| {
        let hub = hub();
        let mut old = open(&hub, false);
        let (bell, waker) = bell();
        assert!(old.poll_next(&waker).is_pending());
        let before = publish(&hub, "a");
        let closer = hub.clone();
        let closer = loom::thread::spawn(move || close(&closer));
        let id = publish(&hub, "b");
        assert_eq!(closer.join().expect("no panic"), 1);
        sweep(&hub);
        assert!(rung(&bell), "not woken for its end");
        let (received, over) = take(&mut old);
        assert!(over && received.ends_with("event: closed\ndata: {\"reason\":\"done\"}\n\n"));
        let is_old = id.epoch == before.epoch;
        // Three events, of which two are kept, or two.
        let notified = received.contains("event: connected\n") || received.contains("data: a\n");
        assert!(notified && received.contains("data: b\n") == is_old, "{received}");
        drop(old);
        let mut new = open(&hub, false);
        let (received, _) = take(&mut new);
        assert_eq!(received.contains("data: b\n"), !is_old, "{received}");
        assert_eq!(hub.seats(), 1);
    });
}

/// A stream opens while its topic is closed and begins again.
#[test]
fn a_stream_opens_while_its_topic_begins_again() {
    loom::model(|| {
        let hub = hub();
        publish(&hub, "a");
        let backend = hub.clone();
        let backend = loom::thread::spawn(move || {
            close(&backend);
            publish(&backend, "b");
        });
        let mut stream = open(&hub, false);
        let (bell, waker) = bell();
        let mut received = String::new();
        while let Some(event) = text(stream.poll_next(&waker)) {
            received += &event;
        }
        backend.join().expect("no panic");
        sweep(&hub);
        let (late, over) = take(&mut stream);
        assert!(late.is_empty() || rung(&bell), "not woken for {late}");
        received += &late;
        let has = |text: &str| received.contains(text);
        assert_ne!(has("data: a\n"), has("data: b\n"), "of one run: {received}");
        assert_eq!(has("data: a\n"), over);
        assert_eq!(has("event: closed\n"), over, "{received}");
    });
}

/// The registry forgets a topic, of its own or to make room, while a stream opens.
#[test]
fn forgetting_idle_topics_keeps_one_with_a_stream() {
    for by_age in [true, false] {
        loom::model(move || {
            let idle_topics_max = if by_age { 10 } else { 0 };
            let hub = Hub::new(HubConfig { idle_topics_max, ..HubConfig::default() });
            publish(&hub, "a");
            let other = hub.clone();
            let other = loom::thread::spawn(move || {
                if by_age {
                    other.driver().tidy(Tick(0), Time(u64::MAX));
                } else {
                    let name = "other".parse().expect("a name");
                    let message = Message::new("output", Payload::Text("c"), false, usize::MAX);
                    let message = message.expect("a message");
                    other.publish_message(&Topic { org: org(), name }, &message, Time(0));
                }
            });
            let mut stream = open(&hub, false);
            other.join().expect("no panic");
            publish(&hub, "b");
            let (received, over) = take(&mut stream);
            assert!(received.contains("data: b\n"), "its topic was forgotten: {received}");
            assert!(!over);
            assert_eq!(hub.seats(), 1);
        });
    }
}
