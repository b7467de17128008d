//! The log does not go on from what a server has: everything before is unknown.

use super::{Cluster, Kind, Start, WINDOW, topic};
use crate::hub::Hub;
use crate::wire::Greeting;

fn cut(cluster: &mut Cluster) {
    cluster.push(Kind::Barrier);
    cluster.follow();
}

#[test]
fn after_a_cut_every_stream_gets_connected_and_then_what_is_kept() {
    let mut cluster = Cluster::new();
    cluster.publish("run", "one two");
    let mut streams = [0, 1].map(|node| cluster.open(node, "run", Start::All));
    let mut empty = cluster.open(0, "empty", Start::All);
    streams.iter_mut().for_each(|stream| assert_eq!(stream.names(), "one two"));
    cut(&mut cluster);
    for stream in &mut streams {
        assert_eq!(stream.names(), "connected one two");
        assert_eq!(stream.names(), "", "once");
    }
    assert_eq!(empty.names(), "connected");
    cluster.publish("run", "three");
    cluster.publish("empty", "four");
    streams.iter_mut().for_each(|stream| assert_eq!(stream.names(), "three"));
    assert_eq!(empty.names(), "four");
}

/// Whatever is published first, before the stream's turn: `connected` comes before it.
#[test]
fn no_later_event_comes_before_the_connected_of_a_cut() {
    let mut cluster = Cluster::new();
    let mut stream = cluster.open(0, "run", Start::All);
    cluster.publish("run", "one");
    cluster.push(Kind::Barrier);
    cluster.publish("run", "two");
    assert_eq!(stream.names(), "connected one two");
}

#[test]
fn no_id_from_before_a_cut_resumes_and_every_one_from_then_on_does() {
    let mut cluster = Cluster::new();
    let before = cluster.publish("run", "one");
    let mut stream = cluster.open(0, "run", Start::All);
    stream.names();
    cluster.push(Kind::Barrier);
    let barrier = cluster.log.last().expect("the barrier").mark;
    cluster.follow();
    let after = cluster.publish("run", "two");
    let id = |mark| Start::After(Hub::topic_id(&topic("run"), mark, 0));
    for (mark, greeting) in
        [(before, Greeting::Connected), (barrier, Greeting::Resumed), (after, Greeting::Resumed)]
    {
        for node in [0, 1] {
            assert_eq!(cluster.open(node, "run", id(mark)).greeting, greeting, "{mark:?}");
        }
    }
    // While it takes what is kept, its ids are those from before.
    assert_eq!(stream.names(), "connected one two");
    let mut client = stream.hop(&cluster.nodes[1]);
    assert_eq!((client.greeting, &*client.names()), (Greeting::Resumed, ""));
}

/// The log has lost records that one server had, and gives their positions to others.
#[test]
fn positions_that_are_used_again_are_followed() {
    let mut cluster = Cluster::new();
    cluster.publish("run", "one");
    let mut streams = [0, 1].map(|node| cluster.open(node, "run", Start::All));
    let lost = cluster.append(|lines| super::events(lines, "run", "lost gone"));
    cluster.append(|lines| super::events(lines, "run", "away"));
    while cluster.apply(0) {}
    assert_eq!(streams[0].names(), "one lost gone away");
    cluster.log.truncate(1);
    cut(&mut cluster);
    assert_eq!(streams[0].names(), "connected one lost gone away");
    assert_eq!(streams[1].names(), "connected one");
    cluster.publish("run", "two");
    cluster.publish("run", "three");
    streams.iter_mut().for_each(|stream| assert_eq!(stream.names(), "two three"));
    let id = |later| Start::After(Hub::topic_id(&topic("run"), lost, later));
    for node in [0, 1] {
        for later in [0, 1] {
            assert_eq!(cluster.open(node, "run", id(later)).greeting, Greeting::Connected);
        }
    }
    for stream in streams {
        for node in [1, 0] {
            let again = cluster.open(node, "run", Start::After(stream.id));
            assert_eq!(again.greeting, Greeting::Resumed);
        }
    }
}

/// SCENARIO: a topic keeps as much as it may when the log is cut, and an event is published before its streams have had
/// their turn.
/// BUG: the oldest event gave way, and the topic counted as one that had lost nothing but that: streams that had it were
/// not notified of the cut.
/// FIX: what gives way from before a cut changes nothing.
#[test]
fn an_event_that_gives_way_after_a_cut_does_not_undo_it() {
    let mut cluster = Cluster::keeping(2);
    let mut stream = cluster.open(0, "run", Start::All);
    let before = cluster.publish("run", "one two");
    assert_eq!(stream.names(), "one two");
    cut(&mut cluster);
    cluster.publish("run", "three");
    let id = Hub::topic_id(&topic("run"), before, 0);
    assert_eq!(cluster.open(0, "run", Start::After(id)).greeting, Greeting::Connected);
    assert_eq!(stream.names(), "connected two three");
}

/// The drivers notify the streams, which receive nothing else, evenly over the window.
#[test]
fn idle_streams_are_notified_of_a_cut_over_the_window() {
    let mut cluster = Cluster::new();
    let count = 100;
    let mut streams: Vec<_> =
        (0..count).map(|n| cluster.open(0, &format!("run-{n}"), Start::All)).collect();
    let bells: Vec<_> = streams
        .iter_mut()
        .map(|stream| {
            let bell = std::sync::Arc::new(super::super::Bell(false.into()));
            assert!(stream.stream.poll_next(&bell.clone().into()).is_pending());
            bell
        })
        .collect();
    cut(&mut cluster);
    let rung =
        || bells.iter().filter(|bell| bell.0.load(std::sync::atomic::Ordering::Relaxed)).count();
    assert_eq!(rung(), 0);
    let step = u64::try_from(WINDOW.as_millis()).expect("short") / 10;
    for part in 1..=10 {
        cluster.nodes[0].wait(step);
        assert!(rung().abs_diff(part * count / 10) <= count / 10, "{} after {part}/10", rung());
    }
    cluster.nodes[0].wait(2_000);
    assert_eq!(rung(), count);
    streams.iter_mut().for_each(|stream| assert_eq!(stream.names(), "connected"));
}
