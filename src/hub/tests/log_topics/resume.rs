//! A client resumes on any server.

use super::{Cluster, Lines, Start, config, events, topic};
use crate::hub::Hub;
use crate::ids::{EventId, Mark};
use crate::wire::Greeting;

#[test]
fn every_server_has_the_same_events_with_the_same_ids_in_the_same_order() {
    let mut cluster = Cluster::new();
    let mut streams = [0, 1].map(|node| cluster.open(node, "run", Start::All));
    let first = cluster.publish("run", "one");
    cluster.publish("walk", "other");
    let last = cluster.publish("run", "two b-three four");
    let received = streams.each_mut().map(|stream| stream.take_events().0);
    assert_eq!(received[0], received[1]);
    let names: Vec<_> = received[0].iter().map(|event| &*event.name).collect();
    assert_eq!(names, ["one", "two", "b-three", "four"]);
    let ids: Vec<EventId> =
        received[0].iter().map(|event| event.id.parse().expect("an id")).collect();
    let id = |mark, later| Hub::topic_id(&topic("run"), mark, later);
    assert_eq!(ids, [id(first, 0), id(last, 2), id(last, 1), id(last, 0)]);
}

#[test]
fn a_client_resumes_on_another_server_after_its_last_event() {
    let mut cluster = Cluster::new();
    let mut client = cluster.open(0, "run", Start::All);
    cluster.publish("run", "one");
    cluster.publish("run", "two");
    assert_eq!(client.names(), "one two");
    cluster.publish("run", "three");
    cluster.publish("run", "b-four");
    let mut client = client.hop(&cluster.nodes[1]);
    assert_eq!((client.greeting, &*client.names()), (Greeting::Resumed, "three b-four"));
    let mut client = client.hop(&cluster.nodes[0]);
    assert_eq!((client.greeting, &*client.names()), (Greeting::Resumed, ""));
    cluster.publish("run", "five");
    assert_eq!(client.names(), "five");
}

/// Its greeting has the id that it came with, if events follow: that before these may be of a record that nothing proves.
#[test]
fn a_client_that_is_cut_off_after_its_greeting_resumes_once_more() {
    let mut cluster = Cluster::new();
    let idle = cluster.publish("walk", "other");
    cluster.publish("run", "one");
    let came = Hub::topic_id(&topic("run"), idle, 0);
    for _ in 0..3 {
        let client = cluster.open(0, "run", Start::After(came));
        assert_eq!((client.greeting, client.id), (Greeting::Resumed, came));
    }
    assert_eq!(cluster.open(0, "run", Start::After(came)).names(), "one");
}

/// It has received some of the events of one record.
#[test]
fn a_client_resumes_between_the_events_of_a_record() {
    let mut cluster = Cluster::new();
    let id = |mark, later| Start::After(Hub::topic_id(&topic("run"), mark, later));
    let mark = cluster.publish("run", "one two three");
    for node in [0, 1] {
        for (later, expected) in [(2, "two three"), (1, "three"), (0, "")] {
            let mut client = cluster.open(node, "run", id(mark, later));
            assert_eq!((client.greeting, &*client.names()), (Greeting::Resumed, expected));
        }
        // There is no such event.
        let mut client = cluster.open(node, "run", id(mark, 3));
        assert_eq!((client.greeting, &*client.names()), (Greeting::Connected, "one two three"));
    }
}

/// A part of a record's events is gone: its id as a whole is covered, and those of the events that are gone are not.
#[test]
fn the_id_of_an_event_that_is_gone_is_not_covered() {
    let mut cluster = Cluster::keeping(2);
    let mut client = cluster.open(0, "run", Start::All);
    let before = cluster.publish("run", "zero");
    let mark = cluster.publish("run", "one two three");
    let id = |mark, later| Start::After(Hub::topic_id(&topic("run"), mark, later));
    for (start, greeting, expected) in [
        (id(mark, 0), Greeting::Resumed, ""),
        (id(mark, 1), Greeting::Resumed, "three"),
        (id(mark, 2), Greeting::Connected, "two three"),
        (id(before, 0), Greeting::Connected, "two three"),
    ] {
        let mut client = cluster.open(1, "run", start);
        assert_eq!((client.greeting, &*client.names()), (greeting, expected), "{start:?}");
    }
    assert_eq!(client.names(), "connected two three");
}

/// SCENARIO: two of three events of a record are kept, and a client has just the `connected` before them when its
/// connection is lost.
/// BUG: a `connected` with the mark of that record would say that the client has the whole of it.
/// FIX: its id is covered by nothing.
#[test]
fn a_connected_between_the_events_of_a_record_loses_none() {
    let mut cluster = Cluster::keeping(2);
    cluster.publish("run", "one two three");
    let client = cluster.open(0, "run", Start::All);
    assert_eq!(client.greeting, Greeting::Connected);
    for node in [0, 1] {
        let mut again = cluster.open(node, "run", Start::After(client.id));
        assert_eq!((again.greeting, &*again.names()), (Greeting::Connected, "two three"));
    }
}

#[test]
fn ids_of_other_topics_and_orgs_are_not_covered() {
    let mut cluster = Cluster::new();
    let mark = cluster.append(|lines| {
        events(lines, "run", "one");
        events(lines, "walk", "two");
    });
    cluster.follow();
    let members = Hub::member_id(&"acme".parse().expect("a name"), mark);
    for id in [
        Hub::topic_id(&topic("walk"), mark, 0),
        members,
        EventId { epoch: members.epoch, seq: crate::ids::Seq(9) },
        Hub::topic_id(&topic("run"), Mark { tag: 0, ..mark }, 0),
        Hub::topic_id(&topic("run"), Mark { tag: mark.tag + 1, ..mark }, 0),
        Hub::topic_id(&topic("run"), Mark { position: mark.position + 1, ..mark }, 0),
    ] {
        let client = cluster.open(0, "run", Start::After(id));
        assert_eq!(client.greeting, Greeting::Connected, "{id}");
    }
}

/// What a stream begins with says how far it is, also if other topics have had events since.
#[test]
fn a_stream_begins_with_an_id_that_resumes_elsewhere() {
    let mut cluster = Cluster::new();
    cluster.publish("run", "one");
    cluster.publish("walk", "other");
    for start in [Start::Now, Start::All] {
        let mut client = cluster.open(0, "run", start);
        client.names();
        cluster.publish("run", "two");
        let mut client = client.hop(&cluster.nodes[1]);
        assert_eq!((client.greeting, &*client.names()), (Greeting::Resumed, "two"), "{start:?}");
    }
    // The id of a stream that has received nothing is that of the log.
    let idle = cluster.open(0, "idle", Start::All);
    cluster.publish("idle", "one");
    let mut client = idle.hop(&cluster.nodes[1]);
    assert_eq!((client.greeting, &*client.names()), (Greeting::Resumed, "one"));
}

/// A server that is behind does not know the record yet: it says so, and what comes later is delivered.
#[test]
fn a_server_that_is_behind_does_not_resume_what_it_does_not_know() {
    let mut cluster = Cluster::new();
    cluster.publish("run", "one");
    cluster.append(|lines| events(lines, "run", "two"));
    while cluster.apply(0) {}
    let mut client = cluster.open(0, "run", Start::All);
    assert_eq!(client.names(), "one two");
    let mut client = client.hop(&cluster.nodes[1]);
    assert_eq!((client.greeting, &*client.names()), (Greeting::Connected, "one"));
    cluster.follow();
    assert_eq!(client.names(), "two");
}

/// The limits of servers differ: what one cannot pass on, its clients are notified of.
#[test]
fn an_event_that_is_too_long_here_is_not_lost_in_silence() {
    let mut cluster = Cluster::new();
    let narrow = crate::config::HubConfig { topic_event_bytes_max: 100, ..config() };
    let narrow = cluster.join(narrow);
    let long = "x".repeat(100);
    for (bulk, expected) in [(false, "connected one two"), (true, "two")] {
        let name = format!("run-{bulk}");
        cluster.publish(&name, "one");
        let mut client = cluster.open(narrow, &name, Start::All);
        assert_eq!(client.names(), "one");
        let mark = cluster.append(|lines| {
            lines.message(&topic(&name), "long", super::Payload::Text(&long), bulk);
        });
        cluster.follow();
        let mut wide = cluster.open(0, &name, Start::All);
        assert_eq!(wide.names(), "one long");
        cluster.publish(&name, "two");
        assert_eq!(client.names(), expected);
        // A client of another server, which has it, has missed nothing here.
        let id = Hub::topic_id(&topic(&name), mark, 0);
        let mut other = cluster.open(narrow, &name, Start::After(id));
        assert_eq!((other.greeting, &*other.names()), (Greeting::Resumed, "two"));
    }
}

/// SCENARIO: a broker gives no tag to the records of other programs, and a client comes back with the id of such an
/// event.
/// BUG: it was resumed, as an event with that id was kept; of several events in the record, the earlier ones even had a
/// tag. Another record at that position could have the same.
/// FIX: without a tag an id proves nothing.
#[test]
fn an_id_of_a_record_without_a_tag_resumes_nothing() {
    let mut cluster = Cluster::new();
    cluster.publish("run", "one");
    let mark = cluster.append(|lines| events(lines, "run", "two three four"));
    cluster.log.last_mut().expect("a record").mark.tag = 0;
    cluster.follow();
    for later in 0..3 {
        let id = Hub::topic_id(&topic("run"), Mark { tag: 0, ..mark }, later);
        assert!(Mark::of(id, topic("run").stream()).tag == 0, "{later} events later");
        for node in [0, 1] {
            let client = cluster.open(node, "run", Start::After(id));
            assert_eq!(client.greeting, Greeting::Connected, "{later} events later");
        }
    }
    let mut client = cluster.open(0, "run", Start::All);
    assert_eq!(client.names(), "one two three four");
    let mut lines = Lines::new();
    events(&mut lines, "run", "five");
    let (lines, next) = (lines.into_bytes(), Mark { tag: 7, position: mark.position + 1 });
    cluster.nodes.iter().for_each(|node| _ = node.hub.apply(next, &lines, node.now));
    assert_eq!(client.names(), "five");
    assert_eq!(client.hop(&cluster.nodes[1]).greeting, Greeting::Resumed);
}
