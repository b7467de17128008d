//! The keepalive says how far the log is, so that the id of an idle client does not grow too old.

use super::{Client, Cluster, EventId, Kind, Mark, Node, Payload, Start, Time, config};
use crate::hub::backlog::Backlog;
use crate::hub::log::Log;
use crate::hub::seat::Seat;
use crate::ids::StreamHash;
use crate::wire::{Greeting, Keepalive, Message};

/// The id of the keepalive that is written now, if it has one.
fn keepalive(client: &mut Client) -> Option<EventId> {
    let frame = client.stream.keepalive_frame();
    let payload = frame.payload();
    let id = payload.starts_with(b"id: ").then(|| frame.id())?;
    assert!(payload.ends_with(b"\nevent: ping\ndata: {}\n\n"));
    client.id = id;
    Some(id)
}

#[test]
fn an_idle_client_resumes_elsewhere_after_others_filled_the_tail() {
    let mut cluster = Cluster::new();
    let small = Node::new(config(), 4_000);
    cluster.nodes.push(small);
    let mark = cluster.publish("run", "one");
    let mut client = cluster.open(0, "run", Start::All);
    assert_eq!(client.names(), "one");
    let opened = client.id;
    for _ in 0..200 {
        cluster.publish("other", "two");
    }
    assert!(!cluster.nodes[2].hub.has_mark(mark));
    cluster.nodes[2].wait(200_000);
    let gone = cluster.open(2, "run", Start::After(opened));
    assert_eq!(gone.greeting, Greeting::Connected, "its id has grown too old there");
    let id = keepalive(&mut client).expect("at the head");
    assert_eq!(id.seq.0, 201);
    let mut client = client.hop(&cluster.nodes[2]);
    assert_eq!((client.greeting, &*client.names()), (Greeting::Resumed, ""));
    cluster.publish("run", "three");
    assert_eq!(client.names(), "three");
}

/// It would say that the client has what it has not received.
#[test]
fn a_stream_that_is_behind_gets_no_id() {
    let mut cluster = Cluster::new();
    let mut client = cluster.open(0, "run", Start::All);
    assert!(keepalive(&mut client).is_none(), "there is no record yet");
    cluster.publish("other", "two");
    assert!(keepalive(&mut client).is_some());
    cluster.publish("run", "one");
    assert_eq!(keepalive(&mut client), None);
    assert_eq!(client.names(), "one");
    assert!(keepalive(&mut client).is_some());
    cluster.push(Kind::Barrier);
    cluster.follow();
    assert_eq!(keepalive(&mut client), None, "it has still to be notified");
    assert_eq!(client.names(), "connected one");
    assert!(keepalive(&mut client).is_some());
}

#[test]
fn without_an_id_it_is_what_it_was() {
    let cluster = Cluster::new();
    let mut client = cluster.open(0, "run", Start::All);
    assert_eq!(client.stream.keepalive_frame().payload(), Keepalive::Comment.frame().payload());
    client.stream.set_keepalive(Keepalive::Event);
    assert_eq!(client.stream.keepalive_frame().payload(), Keepalive::Event.frame().payload());
}

/// The record of an event is not applied everywhere yet. An earlier id would have the client receive the event twice.
#[test]
fn a_keepalive_is_no_step_back() {
    let stream = StreamHash::of_topic("acme", "run");
    let mark = |position| Mark { tag: 7, position };
    let mut backlog = Backlog::in_log(stream, mark(1), 1, std::sync::Arc::default());
    let message = Message::new("one", Payload::Text(""), false, 400).expect("valid");
    backlog.append_from_log(mark(3).id(stream, 0), &message, Time(0), &config());
    let seat = Seat::new(backlog.head(), Time(0).tick(), 1, 1);
    assert!(backlog.ping_in_log(&seat, 1, mark(2)).is_none());
    let id = backlog.ping_in_log(&seat, 1, mark(3)).expect("at the head").id();
    assert_eq!(id, mark(3).id(stream, 0));
}

/// One frame is shared by all streams of a topic.
#[test]
fn a_keepalive_is_encoded_once_for_a_topic() {
    let mut cluster = Cluster::new();
    let streams = [0, 0].map(|node| cluster.open(node, "run", Start::All));
    cluster.publish("other", "two");
    let [one, two] = streams.each_ref().map(|client| client.stream.keepalive_frame());
    assert_eq!(one.chunked().as_ptr(), two.chunked().as_ptr());
}
