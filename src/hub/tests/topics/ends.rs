//! A topic that is closed, and a hub that closes or drains.

use std::time::Duration;

use super::{World, topic};
use crate::hub::{Batch, Pace, Start, SubscribeError, View};
use crate::metrics::CloseReason;
use crate::time::Time;
use crate::wire::Greeting;

#[test]
fn a_closed_topic_gives_each_stream_the_reason_and_ends_it() {
    let world = World::new();
    world.publish("run", "one");
    let mut late = world.open("run", Start::All);
    let mut live = world.open("run", Start::Now);
    assert_eq!(world.close("run", "it is \"done\""), 2);
    for (client, names) in [(&mut late, &["one", "closed"][..]), (&mut live, &["closed"])] {
        let (events, ended) = client.take_events();
        assert!(ended);
        assert_eq!(events.iter().map(|event| &*event.name).collect::<Vec<_>>(), names);
        let last = events.last().expect("closed");
        assert_eq!(last.data, r#"{"reason":"it is \"done\""}"#);
        assert!(last.id.ends_with("-2"), "{}", last.id);
    }
    drop((late, live));
    assert_eq!((world.ended(CloseReason::Closed), world.hub.seats()), (2, 0));
}

/// SCENARIO: an application opens a stream with the view of topics, which is public, and names no topic.
/// BUG: the hub panicked while it held the org's lock.
/// FIX: it refuses the stream, and takes no seat.
#[test]
fn a_stream_with_the_view_of_topics_is_refused_without_a_topic() {
    let world = World::new();
    let org = topic("run").org;
    let opened = world.hub.subscribe(&org, View::Topic, None, Time(world.now));
    assert_eq!(opened.map(|_| ()), Err(SubscribeError::NoTopic));
    assert_eq!(world.hub.seats(), 0);
}

#[test]
fn nothing_of_a_closed_topic_is_left() {
    let world = World::new();
    let old = world.publish("run", "one");
    assert_eq!(world.close("run", "done"), 0, "no stream");
    assert_eq!(world.close("run", "done"), 0, "an unknown topic");
    assert_eq!((world.hub.topics(), world.hub.shared.common.topics.memory.bytes()), (0, 0));
    let new = world.publish("run", "two");
    assert_ne!(new.epoch, old.epoch);
    let mut back = world.open("run", Start::After(old));
    assert_eq!((back.greeting.0, back.names().as_str()), (Greeting::Connected, "two"));
}

#[test]
fn streams_of_a_closed_topic_get_nothing_of_its_successor() {
    let world = World::new();
    let mut old = world.open("run", Start::All);
    world.close("run", "done");
    world.publish("run", "two");
    let mut new = world.open("run", Start::All);
    assert_eq!(world.hub.seats(), 2);
    assert_eq!(old.take(), (vec!["closed".to_owned()], true));
    drop(old);
    assert_eq!((new.names().as_str(), world.hub.seats()), ("two", 1));
}

#[test]
fn a_closing_hub_ends_streams_of_topics_as_drained() {
    let world = World::new();
    let mut client = world.open("run", Start::All);
    let mut closed = world.open("walk", Start::All);
    world.publish("run", "one");
    world.close("walk", "done");
    world.hub.close(Time(world.now));
    assert!(world.try_open("run", Start::All, false).is_err());
    assert_eq!(client.take(), (vec!["one".to_owned()], true));
    assert_eq!(closed.take(), (vec!["closed".to_owned()], true));
    drop((client, closed));
    let ends = [CloseReason::Drained, CloseReason::Closed].map(|reason| world.ended(reason));
    assert_eq!(ends, [1, 1]);
}

#[test]
fn a_drain_reaches_topics_and_those_that_were_closed() {
    let world = World::new();
    let mut clients: Vec<_> =
        (0..40).map(|n| world.open(&format!("run-{}", n / 2), Start::All)).collect();
    let mut closed = world.open("walk", Start::All);
    closed.names();
    world.close("walk", "done");
    assert!(clients.iter_mut().all(|client| !client.take().1));
    world.hub.drain(Time(world.now), Duration::ZERO);
    let driver = world.hub.driver();
    let mut drain = driver.begin_drain().expect("the hub drains");
    let mut batch = Batch::default();
    while drain.collect(&driver, Time(world.now), &mut batch) != Pace::Over {
        batch.wake();
        batch.clear();
    }
    assert!(clients.iter_mut().all(|client| client.take() == (vec![], true)));
    assert_eq!(closed.take(), (vec!["closed".to_owned()], true));
    drop((clients, closed));
    assert_eq!((world.ended(CloseReason::Drained), world.ended(CloseReason::Closed)), (40, 1));
}

/// Commands are for invalidations only.
#[test]
fn rereads_and_ends_of_members_leave_topics_as_they_are() {
    let mut world = World::keeping(1);
    let mut client = world.open("run", Start::All);
    for name in ["one", "two", "b1"] {
        world.publish("run", name);
    }
    let (org, now) = (topic("run").org, Time(world.now));
    assert_eq!(world.hub.reread(&org, now, Duration::ZERO), 0);
    assert_eq!(world.hub.reread_all(now, Duration::ZERO), 0);
    assert_eq!(world.hub.end_members(&org, now, Duration::ZERO), 0);
    let mut passes = crate::hub::CommandPasses::default();
    while passes.turn(&world.hub.driver(), now, &mut Batch::default(), Batch::wake) {}
    world.pass(3);
    assert_eq!(client.names(), "connected two b1");
    assert!(
        world.open("run", Start::After(client.stream.position())).greeting.0 == Greeting::Resumed
    );
}
