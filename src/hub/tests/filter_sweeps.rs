//! What a sweep does with a filtered stream, case by case.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::Bell;
use crate::config::HubConfig;
use crate::hub::sweep::EVENTS_PER_WRITE;
use crate::hub::{
    Batch, Filter, Frames, Hub, Keys, SocketId, Subscription, Taken, View, WriteKind,
};
use crate::ids::{OrgName, Seq};
use crate::time::{Tick, Time};

const SOCKET: SocketId = SocketId(7);

fn hub(history_events: usize) -> Hub {
    let coalesce = Duration::ZERO;
    Hub::new(HubConfig { coalesce, history_events, ..HubConfig::default() })
}

fn org() -> OrgName {
    "acme".parse().expect("a name")
}

/// A stream with a filter for posts, which has taken what there is.
fn subscribe(hub: &Hub) -> Subscription {
    let (mut stream, _) = hub.subscribe(&org(), View::Member, None, Time(0)).expect("not closing");
    stream.set_filter(Filter::new(["posts"], hub.config()).expect("a key"));
    assert_eq!(take(&stream), (vec![], Taken::Idle));
    stream
}

/// Publishes an event for each key.
fn publish(hub: &Hub, keys: &[&str]) {
    for key in keys {
        let keys = Keys::new([*key], hub.config()).expect("a key");
        hub.publish(&org(), &keys, Time(0));
    }
}

/// What a sweep has written to the socket, with the numbers of the events.
fn sweep(hub: &Hub) -> Vec<(&'static str, Vec<u64>)> {
    let (mut batch, mut writes) = (Batch::default(), Vec::new());
    while let Some(mut sweep) = hub.driver().next_sweep() {
        while {
            let more = sweep.collect(&mut batch);
            batch.wake();
            for op in batch.writes.drain(..) {
                assert_eq!(op.socket, SOCKET);
                writes.push(match op.kind {
                    WriteKind::Events { count } => {
                        let events = &batch.events[batch.events.len() - count..];
                        ("events", events.iter().map(|(seq, _)| seq.0).collect())
                    }
                    WriteKind::CatchUp => ("catch up", vec![]),
                    kind => panic!("{kind:?}"),
                });
            }
            batch.clear();
            more
        } {}
    }
    writes
}

fn take(stream: &Subscription) -> (Vec<u64>, Taken) {
    let mut frames = Frames::new();
    let taken = stream.take_frames(SOCKET, &mut frames);
    (frames.iter().map(|(seq, _)| seq.0).collect(), taken)
}

#[test]
fn of_events_that_cannot_interest_only_the_cursor_notices() {
    let hub = hub(100);
    let stream = subscribe(&hub);
    hub.shard().set_tick(Tick(5));
    publish(&hub, &["users", "users"]);
    assert_eq!(sweep(&hub), []);
    assert_eq!((stream.position().seq, stream.touched()), (Seq(2), Tick(0)));
}

#[test]
fn events_that_may_interest_are_written_from_the_batch() {
    let hub = hub(100);
    let stream = subscribe(&hub);
    hub.shard().set_tick(Tick(5));
    publish(&hub, &["posts", "posts"]);
    assert_eq!(sweep(&hub), [("events", vec![1, 2])]);
    // Those before are skipped.
    publish(&hub, &["users", "posts", "posts"]);
    assert_eq!(sweep(&hub), [("events", vec![4, 5])]);
    assert_eq!((stream.position().seq, stream.touched()), (Seq(5), Tick(5)));
}

#[test]
fn of_mixed_events_a_stream_takes_those_that_may_interest() {
    let hub = hub(100);
    let stream = subscribe(&hub);
    publish(&hub, &["posts", "users", "posts", "users"]);
    assert_eq!(sweep(&hub), [("catch up", vec![])]);
    assert_eq!(take(&stream), (vec![1, 3], Taken::Some));
    assert_eq!(stream.position().seq, Seq(4));
    // What a full socket did not take is given back, and what follows it.
    stream.give_back(Seq(1), false, SOCKET, true);
    assert_eq!(take(&stream), (vec![3], Taken::Some));
    assert_eq!(take(&stream), (vec![], Taken::Idle));
    assert_eq!(stream.position().seq, Seq(4));
}

#[test]
fn a_stream_whose_socket_is_full_moves_past_what_cannot_interest() {
    let hub = hub(3);
    let stream = subscribe(&hub);
    publish(&hub, &["posts"]);
    assert_eq!(sweep(&hub), [("events", vec![1])]);
    stream.stay_blocked(SOCKET, false);
    for _ in 0..9 {
        publish(&hub, &["users"]);
        assert_eq!(sweep(&hub), []);
    }
    publish(&hub, &["posts", "users"]);
    assert_eq!(sweep(&hub), []);
    stream.unblock();
    assert_eq!(take(&stream), (vec![11], Taken::Some));
}

#[test]
fn a_stream_that_takes_by_itself_skips_too() {
    let hub = hub(100);
    let (mut stream, _) = hub.subscribe(&org(), View::Member, None, Time(0)).expect("not closing");
    stream.set_filter(Filter::new(["posts"], hub.config()).expect("a key"));
    publish(&hub, &["users", "posts", "users"]);
    assert_eq!(sweep(&hub), []);
    assert_eq!(take(&stream), (vec![2], Taken::Some));
    assert_eq!(take(&stream), (vec![], Taken::Idle));
}

#[test]
fn a_stream_far_behind_skips_what_is_kept_and_rereads_what_is_not() {
    let many = ["users"; EVENTS_PER_WRITE + 10];
    let hub_of_many = hub(1_000);
    let stream = subscribe(&hub_of_many);
    publish(&hub_of_many, &many);
    assert_eq!(sweep(&hub_of_many), []);
    assert_eq!(stream.position().seq, Seq(many.len() as u64));

    // What was evicted before the sweep is not known to be of no interest any more.
    let hub_of_few = hub(8);
    let stream = subscribe(&hub_of_few);
    publish(&hub_of_few, &many);
    assert_eq!(sweep(&hub_of_few), [("catch up", vec![])]);
    assert_eq!(take(&stream), (vec![many.len() as u64], Taken::Reread));
}

#[test]
fn a_loss_is_passed_over_by_no_filter() {
    let hub = Hub::new(HubConfig { event_bytes_max: 200, ..HubConfig::default() });
    let stream = subscribe(&hub);
    publish(&hub, &["users"]);
    let long = "x".repeat(300);
    hub.driver().close_windows(Time(1_000));
    let keys = Keys::new([long.as_str()], hub.config()).expect("a key");
    hub.publish(&org(), &keys, Time(1_000));
    assert_eq!(sweep(&hub), [("catch up", vec![])]);
    assert_eq!(take(&stream), (vec![2], Taken::Reread));
}

#[test]
fn a_task_is_woken_only_for_what_may_interest() {
    let hub = hub(100);
    let mut stream = subscribe(&hub);
    let bell = Arc::new(Bell(AtomicBool::new(false)));
    let waker = Waker::from(bell.clone());
    assert!(stream.poll_next(&waker).is_pending());
    publish(&hub, &["users"]);
    sweep(&hub);
    assert!(!bell.0.load(Ordering::Relaxed));
    publish(&hub, &["users", "posts", "users"]);
    sweep(&hub);
    assert!(bell.0.load(Ordering::Relaxed));
    let Poll::Ready(Some(frame)) = stream.poll_next(&waker) else { panic!("an event") };
    assert!(frame.payload().ends_with(b"{\"keys\":[\"posts\"]}\n\n"));
    assert!(stream.poll_next(&waker).is_pending());
}

/// What an event was about is forgotten with the last filtered stream, and not known of events from before the first.
#[test]
fn events_from_before_the_first_filter_pass() {
    let hub = hub(100);
    let all = hub.subscribe(&org(), View::Member, None, Time(0)).expect("not closing").0;
    let start = all.position();
    publish(&hub, &["users", "users"]);
    let resume = || {
        let opened = hub.subscribe(&org(), View::Member, Some(start), Time(0));
        let mut stream = opened.expect("not closing").0;
        stream.set_filter(Filter::new(["posts"], hub.config()).expect("a key"));
        stream
    };
    let first = resume();
    publish(&hub, &["users", "posts"]);
    assert_eq!(take(&first), (vec![1, 2, 4], Taken::Some));
    drop(first);
    let second = resume();
    publish(&hub, &["users"]);
    assert_eq!(take(&second), (vec![1, 2, 3, 4], Taken::Some));
}

/// Until a stream has re-read, the position in its keepalive resumes nothing.
#[test]
fn a_keepalive_in_a_reread_resumes_nothing() {
    let hub = hub(100);
    let stream = subscribe(&hub);
    publish(&hub, &["users"]);
    sweep(&hub);
    let id = |stream: &Subscription| {
        let (seq, frame) = (stream.position().seq, stream.keepalive_frame());
        let text = String::from_utf8(frame.payload().to_vec()).expect("UTF-8");
        let rest = text.strip_suffix("\nevent: ping\ndata: {}\n\n").expect("a ping");
        assert_eq!(seq, Seq(1));
        rest.strip_prefix("id: ").expect("an id").parse::<crate::ids::EventId>().expect("an id")
    };
    let resumes = |id| {
        let opened = hub.subscribe(&org(), View::Member, Some(id), Time(0));
        opened.expect("not closing").1 == crate::wire::Greeting::Resumed
    };
    let before = id(&stream);
    assert!(resumes(before));
    hub.reread(&org(), Time(0), Duration::from_secs(60));
    let during = id(&stream);
    assert!(!resumes(before) && !resumes(during) && during.seq == Seq(1));
    let other = subscribe(&hub);
    let frame = other.keepalive_frame();
    // Two ids, each encoded once.
    assert_eq!(frame.payload(), other.keepalive_frame().payload());
    assert!(resumes(id(&other)) && id(&stream) == during);
}
