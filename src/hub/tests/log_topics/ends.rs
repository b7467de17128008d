//! A topic is closed on every server.

use super::{Cluster, Start, events, topic};
use crate::hub::Hub;
use crate::metrics::CloseReason;
use crate::wire::Greeting;

#[test]
fn a_topic_is_closed_on_every_server_after_what_came_before() {
    let mut cluster = Cluster::new();
    let mut streams = [0, 1].map(|node| cluster.open(node, "run", Start::All));
    let mut walk = cluster.open(1, "walk", Start::All);
    assert_eq!([0, 1].map(|node| cluster.nodes[node].hub.topic_streams(&topic("run"))), [1, 1]);
    cluster.publish("run", "one");
    let mark = cluster.close("run", "done");
    let id = Hub::topic_id(&topic("run"), mark, 0);
    for stream in &mut streams {
        let (events, ended) = stream.take_events();
        assert!(ended);
        assert_eq!((events.len(), &*events[0].name, &*events[1].name), (2, "one", "closed"));
        assert_eq!((&*events[1].data, &*events[1].id), (r#"{"reason":"done"}"#, &*id.to_string()));
    }
    assert_eq!(walk.names(), "");
    drop(streams);
    let ended = [0, 1].map(|node| cluster.nodes[node].ended(CloseReason::Closed));
    assert_eq!((ended, cluster.nodes[0].hub.topics_bytes()), ([1, 1], 0));
}

#[test]
fn what_is_published_after_a_close_begins_anew_everywhere() {
    let mut cluster = Cluster::new();
    let before = cluster.publish("run", "one");
    let close = cluster.close("run", "done");
    let start = |mark| Start::After(Hub::topic_id(&topic("run"), mark, 0));
    for node in [0, 1] {
        let mut client = cluster.open(node, "run", Start::All);
        assert_eq!((client.greeting, &*client.names()), (Greeting::Connected, ""));
        assert_eq!(cluster.open(node, "run", start(before)).greeting, Greeting::Connected);
        assert_eq!(cluster.open(node, "run", start(close)).greeting, Greeting::Resumed);
    }
    cluster.publish("run", "two");
    for node in [0, 1] {
        assert_eq!(cluster.open(node, "run", Start::All).names(), "two");
        cluster.nodes[node].wait(200_000);
        assert_eq!(cluster.open(node, "run", Start::All).names(), "two", "filled");
        let mut client = cluster.open(node, "run", start(close));
        assert_eq!((client.greeting, &*client.names()), (Greeting::Resumed, "two"));
    }
}

/// SCENARIO: a record closes a topic and has events for it after that. A client that gets `closed` comes back.
/// BUG: `closed` had the id of the whole record, behind which the events are, and they were lost in silence.
/// FIX: its id tells that events follow.
#[test]
fn what_follows_a_close_in_its_record_is_not_lost() {
    let mut cluster = Cluster::new();
    let mut stream = cluster.open(0, "run", Start::All);
    cluster.append(|lines| {
        lines.close(&topic("run"), "done");
        events(lines, "run", "one");
    });
    cluster.follow();
    assert_eq!(stream.take(), ("closed".into(), true));
    for node in [0, 1] {
        assert_eq!(cluster.open(node, "run", Start::After(stream.id)).names(), "one");
    }
}

/// All of it is in one record.
#[test]
fn a_record_may_close_a_topic_between_its_events() {
    let mut cluster = Cluster::new();
    let mut stream = cluster.open(0, "run", Start::All);
    let mark = cluster.append(|lines| {
        events(lines, "run", "one two");
        lines.close(&topic("run"), "first");
        events(lines, "run", "three");
        lines.close(&topic("run"), "second");
        events(lines, "run", "four five");
    });
    cluster.follow();
    assert_eq!(stream.take(), ("one two closed".into(), true));
    for node in [0, 1] {
        let mut client = cluster.open(node, "run", Start::All);
        assert_eq!((client.greeting, &*client.names()), (Greeting::Connected, "four five"));
        let id = |later| Start::After(Hub::topic_id(&topic("run"), mark, later));
        assert_eq!(cluster.open(node, "run", id(1)).names(), "five");
        // Of `two`, and of a client that has only the `connected` before these.
        let begun = cluster.open(node, "run", Start::All);
        for mut client in [cluster.open(node, "run", id(3)), begun.hop(&cluster.nodes[1 - node])] {
            assert_eq!((client.greeting, &*client.names()), (Greeting::Connected, "four five"));
        }
    }
}

#[test]
fn a_close_of_a_topic_that_is_not_here_is_known_to_one_that_is_created_later() {
    let mut cluster = Cluster::new();
    cluster.publish("run", "one");
    for node in &mut cluster.nodes {
        node.wait(200_000);
    }
    cluster.close("run", "done");
    assert_eq!(cluster.open(0, "run", Start::All).names(), "");
}

/// A claim whose topic is closed before its record ends with the topic.
#[test]
fn a_claimant_of_a_topic_that_is_closed_ends() {
    let mut cluster = Cluster::new();
    let mut claimant = cluster.nodes[0].claim("run", 7).expect("open");
    cluster.close("run", "done");
    cluster.append(|lines| _ = lines.exclusive(&topic("run"), 7));
    cluster.follow();
    assert!(claimant.stream.poll_sole(std::task::Waker::noop()).is_ready());
    assert_eq!(claimant.take(), ("closed".into(), true));
}
