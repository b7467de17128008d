//! How much is kept, and for how long.

use std::time::Duration;

use proptest::prelude::*;

use super::{World, message, topic};
use crate::config::HubConfig;
use crate::hub::{Keys, Start, View};
use crate::ids::EventId;
use crate::time::Time;
use crate::wire::Greeting;

impl World {
    fn bytes(&self) -> usize {
        usize::try_from(self.hub.shared.common.topics.memory.bytes()).expect("small")
    }

    /// Publishes an event with so many bytes of text.
    fn fill(&self, to: &str, name: &str, bytes: usize) -> EventId {
        let message = message(name, &"x".repeat(bytes), name.starts_with('b'));
        self.hub.publish_message(&topic(to), &message, Time(self.now))
    }

    fn invalidate(&self, org: &str) -> Option<EventId> {
        let keys = Keys::new(["posts"], self.hub.config()).expect("a key");
        self.hub.publish(&org.parse().expect("a name"), &keys, Time(self.now)).id
    }
}

fn config(topic_bytes: usize, topics_bytes_total: usize) -> HubConfig {
    let coalesce = Duration::ZERO;
    HubConfig { topic_bytes, topics_bytes_total, coalesce, ..HubConfig::default() }
}

#[test]
fn bulk_events_give_way_first_where_a_topic_has_too_many_bytes() {
    let world = World::with(config(10_000, usize::MAX));
    for name in ["one", "b1", "two", "b2"] {
        world.fill("run", name, 2_000);
    }
    assert_eq!(world.open("run", Start::All).names(), "one b1 two b2");
    let first = world.fill("run", "three", 2_000);
    assert_eq!(world.open("run", Start::All).names(), "one two b2 three");
    world.fill("run", "four", 4_000);
    assert_eq!(world.open("run", Start::All).names(), "two three four");
    assert!(world.bytes() <= 10_000);
    // The newest is kept, whatever it costs.
    world.fill("run", "b3", 20_000);
    let mut left = world.open("run", Start::After(first));
    assert_eq!((left.greeting.0, left.names().as_str()), (Greeting::Connected, "b3"));
}

proptest! {
    /// A topic never keeps more than it may, its newest event apart, and what counts is what it has allocated.
    #[test]
    fn a_topic_keeps_no_more_than_it_may(
        events in prop::collection::vec((any::<bool>(), 0..3_000usize), 1..60),
        topic_events in 1..5usize,
    ) {
        let world = World::with(HubConfig { topic_events, ..config(6_000, usize::MAX) });
        for (bulk, bytes) in events {
            world.fill("run", if bulk { "b" } else { "e" }, bytes);
            let mut client = world.open("run", Start::All);
            let (names, _) = client.take();
            for class in ["b", "e"] {
                prop_assert!(names.iter().filter(|name| *name == class).count() <= topic_events);
            }
            prop_assert!(names.len() == 1 || world.bytes() <= 6_000, "{} bytes", world.bytes());
        }
        world.close("run", "done");
        prop_assert_eq!(world.bytes(), 0);
    }
}

#[test]
fn the_longest_idle_topics_give_way_where_topics_have_too_many_bytes() {
    let mut world = World::with(config(usize::MAX, 10_000));
    let subscribed = world.open("d", Start::Now);
    for name in ["a", "b", "c", "d"] {
        world.fill(name, "one", 2_000);
        world.now += 1;
    }
    world.publish("a", "again");
    world.fill("e", "one", 2_000);
    assert!(world.bytes() <= 10_000, "{}", world.bytes());
    let kept = |name| !world.open(name, Start::All).names().is_empty();
    assert_eq!(["a", "b", "c", "d", "e"].map(kept), [true, false, true, true, true]);
    drop(subscribed);
}

#[test]
fn a_topic_that_is_published_to_keeps_its_newest_event_where_no_idle_one_is_left() {
    let world = World::with(config(usize::MAX, 5_600));
    let others = ["a", "b"].map(|name| world.open(name, Start::Now));
    for name in ["a", "b", "c"] {
        world.fill(name, "one", 1_500);
    }
    let names = |name| world.open(name, Start::All).names();
    assert_eq!(["a", "b", "c"].map(names), ["one", "one", "one"]);
    world.fill("a", "two", 1_500);
    assert_eq!(["a", "b", "c"].map(names), ["one two", "one", ""], "the idle one gives way");
    world.fill("a", "three", 4_000);
    assert_eq!(["a", "b"].map(names), ["three", "one"]);
    drop(others);
}

/// The id that its publisher was given is of something.
#[test]
fn a_publish_never_removes_its_own_topic_for_the_bytes() {
    let world = World::with(config(usize::MAX, 5_600));
    let other = world.open("a", Start::Now);
    world.fill("a", "one", 3_000);
    world.fill("b", "one", 1_000);
    let id = world.fill("b", "two", 4_000);
    let mut client = world.open("b", Start::All);
    assert_eq!((client.names().as_str(), client.stream.position()), ("two", id));
    drop(other);
}

/// However much topics keep, invalidations do not give way, and the other way round.
#[test]
fn topics_and_invalidations_do_not_push_each_other_out() {
    let config = HubConfig {
        history_bytes_total: 3_000,
        idle_channels_max: 64,
        idle_topics_max: 8,
        ..config(usize::MAX, 3_000)
    };
    let world = World::with(config);
    let org = "acme".parse().expect("a name");
    let open = |id| world.hub.subscribe(&org, View::Member, id, Time(world.now)).expect("open");
    drop(open(None));
    let first = world.invalidate("acme").expect("kept");
    world.invalidate("acme");
    for n in 0..200 {
        world.fill(&format!("acme/run-{n}"), "one", 1_000);
        drop(world.open(&format!("other-{n}/run"), Start::All));
    }
    world.hub.driver().tidy(crate::time::Tick(1), Time(world.now));
    assert_eq!(open(Some(first)).1, Greeting::Resumed);
    assert_eq!(world.hub.channels(), 1);
    let (kept, bytes) = (world.hub.topics(), world.bytes());
    assert!(kept > 0 && bytes > 1_000 && bytes <= 3_000, "{kept} topics, {bytes} bytes");
    for n in 0..200 {
        drop(world.hub.subscribe(
            &format!("o-{n}").parse().expect("a name"),
            View::Member,
            None,
            Time(world.now),
        ));
        world.invalidate(&format!("o-{n}"));
    }
    assert_eq!((world.hub.topics(), world.bytes()), (kept, bytes));
}

#[test]
fn a_topic_is_kept_for_its_age_after_its_last_event_or_stream() {
    let mut world = World::new();
    world.publish("run", "one");
    world.pass(119);
    let id = world.publish("run", "two");
    world.pass(119);
    let client = world.open("run", Start::All);
    world.pass(1_000);
    drop(client);
    world.pass(119);
    let mut back = world.open("run", Start::After(id));
    assert_eq!((back.greeting.0, back.names().as_str()), (Greeting::Resumed, ""));
    drop(back);
    world.pass(121);
    assert_eq!((world.hub.topics(), world.bytes()), (0, 0));
    assert_eq!(world.open("run", Start::After(id)).start(), (Greeting::Connected, 0));
}

#[test]
fn a_topic_without_an_event_is_held_by_its_streams_only() {
    let mut world = World::new();
    let first = world.open("run", Start::All);
    let second = world.open("run", Start::All);
    let id = first.greeting.1;
    drop(first);
    world.pass(200);
    assert_eq!(world.hub.topics(), 1);
    drop(second);
    world.pass(1);
    assert_eq!(world.hub.topics(), 0);
    assert_eq!(world.open("run", Start::After(id)).greeting.0, Greeting::Connected);
}

#[test]
fn the_longest_idle_topics_give_way_where_they_are_too_many() {
    let mut world = World::with(HubConfig { idle_topics_max: 3, ..HubConfig::default() });
    let held = world.open("a", Start::All);
    for name in ["a", "b", "c", "d"] {
        world.publish(name, "one");
        world.now += 1;
    }
    world.publish("b", "two");
    world.publish("e", "one");
    assert_eq!(world.hub.topics(), 4);
    world.pass(1);
    drop(held);
    // The next tick finds that there are too many.
    world.pass(1);
    assert_eq!(world.hub.topics(), 3);
    let kept = |name| !world.open(name, Start::All).names().is_empty();
    assert_eq!(["a", "b", "c", "d", "e"].map(kept), [true, true, false, false, true]);
}

/// A stream that holds an event which is gone counts, and so does none that only waits.
#[test]
fn topics_that_come_and_go_leave_nothing() {
    let mut world = World::new();
    for n in 0..3_000u64 {
        let name = format!("run-{n}");
        let mut client = world.open(&name, Start::All);
        world.publish(&name, "one");
        assert_eq!(client.names(), "one");
        match n % 3 {
            0 => drop(client),
            1 => {
                world.close(&name, "done");
                assert!(client.take().1);
            }
            _ => {
                drop(client);
                world.close(&name, "done");
            }
        }
        if n % 100 == 0 {
            world.pass(5);
        }
    }
    let streams = world.hub.seats();
    world.pass(130);
    assert_eq!((world.hub.topics(), streams, world.bytes()), (0, 0, 0));
    let listed = world.hub.shared.topics.channels_of(usize::MAX);
    assert!(listed.is_none());
}
