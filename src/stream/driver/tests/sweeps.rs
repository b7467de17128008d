//! How long sweeps take, as they are counted.

use super::*;
use crate::hub::Start;
use crate::ids::Topic;
use crate::metrics::{SweepTimes, read};
use crate::wire::{Message, Payload};

/// How many sweeps a hub has counted, and how long these took together.
fn counted(hub: &Hub) -> (u64, Duration) {
    let count = |sweeps: &SweepTimes| sweeps.counts().iter().map(read).sum::<u64>();
    let counts = hub.counters().map(|counters| count(&counters.sweeps)).sum();
    let sum = hub.counters().map(|counters| read(counters.sweeps.sum_ms())).sum();
    (counts, Duration::from_millis(sum))
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// 100 subscribers take four turns.
#[tokio::test(start_paused = true)]
async fn a_sweep_takes_from_the_event_until_the_last_seat_was_visited() {
    let streams = Streams::open(1, 100, Duration::ZERO);
    let mut driver = Driver::new(streams.hub.clone(), streams.clock, ());
    streams.publish();
    pass(ms(250));
    for _ in 0..3 {
        driver.turn();
        assert_eq!(counted(&streams.hub), (0, ms(0)), "{} were woken", streams.woken());
        pass(ms(100));
    }
    driver.turn();
    assert_eq!((streams.woken(), counted(&streams.hub)), (100, (1, ms(550))));
    for _ in 0..10 {
        pass(ms(100));
        driver.turn();
    }
    assert_eq!(counted(&streams.hub), (1, ms(550)), "a pass for no event is none");
}

/// Under load a sweep of an org goes on and on, and each pass over its seats counts by itself: from its first event, which
/// is the first one that the pass before did not have when it began.
#[tokio::test(start_paused = true)]
async fn an_event_that_waits_for_the_next_pass_counts_from_its_own_time() {
    let mut streams = Streams::open(1, 40, Duration::ZERO);
    let mut driver = Driver::new(streams.hub.clone(), streams.clock, ());
    streams.publish(); // at 0
    driver.turn();
    pass(ms(100));
    streams.publish(); // at 100
    pass(ms(30));
    streams.publish(); // at 130
    driver.turn(); // The first pass ends at 130.
    assert_eq!(counted(&streams.hub), (1, ms(130)));
    streams.poll();
    pass(ms(1_000));
    streams.publish();
    driver.turn();
    assert_eq!(counted(&streams.hub).0, 1, "40 are visited in two turns");
    driver.turn(); // The second one ends at 1,130.
    assert_eq!(counted(&streams.hub), (2, ms(130 + 1_030)));
    driver.turn();
    assert_eq!(counted(&streams.hub).0, 2);
}

#[tokio::test(start_paused = true)]
async fn each_shard_counts_its_own_sweeps() {
    let config = HubConfig { coalesce: Duration::ZERO, ..HubConfig::default() };
    let (hub, clock) = (Hub::with_shards(config, 3), Clock::start());
    let shards = [hub.on_shard(0), hub.on_shard(1)];
    let streams = shards.each_ref().map(|shard| Streams::open_on(shard.clone(), clock, 1, 2));
    let mut drivers = shards.map(|shard| Driver::new(shard, clock, ()));
    streams[0].publish();
    for driver in &mut drivers {
        pass(ms(10));
        driver.turn();
    }
    assert_eq!(counted(&hub), (2, ms(10 + 20)), "one shard has no stream");
}

/// Streams that are visited for another reason than an event.
#[tokio::test(start_paused = true)]
async fn an_end_and_a_reread_are_no_sweep() {
    let mut streams = Streams::open(2, 3, Duration::ZERO);
    let (hub, clock) = (streams.hub.clone(), streams.clock);
    let mut driver = Driver::new(hub.clone(), clock, ());
    let mut turn = || {
        pass(ms(50));
        (0..4).for_each(|_| _ = driver.turn());
    };
    hub.reread(&streams.orgs[0], clock.now(), Duration::ZERO);
    turn();
    assert_eq!(streams.poll(), 3, "they re-read");
    hub.end_members(&streams.orgs[1], clock.now(), Duration::ZERO);
    turn();
    hub.close(clock.now());
    turn();
    assert_eq!(counted(&hub), (0, ms(0)));
}

/// Of a topic events may be gone between others that are kept.
#[tokio::test(start_paused = true)]
async fn the_sweeps_of_topics_count_too() {
    let config = HubConfig { topic_events: 2, ..HubConfig::default() };
    let (hub, clock) = (Hub::new(config), Clock::start());
    let topic =
        Topic { org: "acme".parse().expect("a name"), name: "run".parse().expect("a name") };
    let streams: Vec<_> = (0..40)
        .map(|_| {
            EventStream::open_topic(&hub, &topic, Start::Now, false, clock.now()).expect("open")
        })
        .collect();
    let wakes = Arc::default();
    let mut streams = Streams { hub: hub.clone(), clock, orgs: Vec::new(), streams, wakes };
    streams.poll();
    let mut driver = Driver::new(hub.clone(), clock, ());
    let publish = |bulk: bool| {
        let message = Message::new("output", Payload::Text("1"), bulk, usize::MAX);
        let message = message.expect("a message");
        hub.publish_message(&topic, &message, clock.now());
    };
    publish(false); // at 0
    driver.turn();
    for bulk in [true, true, false, true] {
        pass(ms(10));
        publish(bulk); // at 10, 20, 30 and 40; the first is gone by then
    }
    driver.turn(); // The first pass ends at 40.
    assert_eq!(counted(&hub), (1, ms(40)));
    streams.poll();
    driver.turn(); // The second one as well.
    assert_eq!(counted(&hub), (2, ms(40 + 20)), "from the event at 20 on");
}
