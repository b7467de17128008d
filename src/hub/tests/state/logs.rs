//! With a log nothing is carried but where a stream is in it.

use std::time::Duration;

use bytes::Bytes;

use super::{exported, received, saved};
use crate::config::HubConfig;
use crate::hub::state::{LogState, RestoreError};
use crate::hub::{Hub, Start, Subscription, View};
use crate::ids::{Mark, Topic};
use crate::state::Record;
use crate::time::Time;

fn hub(oldest: u64, positions: std::ops::Range<u64>) -> Hub {
    let config = HubConfig { coalesce: Duration::ZERO, history_events: 3, ..HubConfig::default() };
    let hub = Hub::with_log(config, 2, 1 << 20, Duration::ZERO);
    hub.begin_log(oldest);
    positions.for_each(|position| apply(&hub, position));
    hub
}

/// Every server reads the same record at a position.
fn apply(hub: &Hub, position: u64) {
    let lines = format!(
        "{{\"org\":\"acme\",\"keys\":[\"k{position}\"]}}\n\
         {{\"org\":\"acme\",\"topic\":\"t\",\"event\":\"m\",\"data\":{position}}}\n"
    );
    hub.apply(Mark { tag: position * 77 + 1, position }, &Bytes::from(lines), Time(0));
}

fn open(hub: &Hub) -> [Subscription; 2] {
    let org: crate::ids::OrgName = "acme".parse().expect("a name");
    let topic = Topic { org: org.clone(), name: "t".parse().expect("a name") };
    let member = hub.subscribe(&org, View::Member, None, Time(0)).expect("open").0;
    [member, hub.subscribe_topic(&topic, Start::Now, false, Time(0)).expect("open").0]
}

#[test]
fn a_stream_goes_on_in_the_log_where_it_was() {
    let old = hub(1, 1..5);
    let [mut member, mut of_topic] = open(&old);
    // The first is at the head, the second one is behind.
    apply(&old, 5);
    received(&mut member);
    let records = saved(&old, Time(0));
    assert!(matches!(
        records[..],
        [Record::Log(LogState { position: 5, .. }), Record::Counters(_)]
    ));
    let states = [&member, &of_topic].map(|stream| exported(&old, stream, Time(0)));

    let new = hub(1, 1..5);
    let Record::Log(log) = records[0] else { panic!("{records:?}") };
    assert!(!new.has_applied(log));
    apply(&new, 5);
    assert!(new.has_applied(log));
    let [mut member_here, mut of_topic_here] =
        states.map(|state| new.import(&state, Time(0)).expect("valid"));
    [&old, &new].into_iter().for_each(|hub| apply(hub, 6));
    for (there, here) in [(&mut member, &mut member_here), (&mut of_topic, &mut of_topic_here)] {
        let expected = received(there);
        assert!(expected.contains("6") && !expected.contains("connected"), "{expected}");
        assert_eq!(received(here), expected);
    }
}

#[test]
fn a_position_that_the_log_does_not_cover_re_reads_everything() {
    let old = hub(1, 1..5);
    let streams = open(&old);
    let states = streams.each_ref().map(|stream| exported(&old, stream, Time(0)));
    // It knows the log from 5 on only.
    let new = hub(5, 5..7);
    for state in states {
        let mut again = new.import(&state, Time(0)).expect("valid");
        let text = received(&mut again);
        assert_eq!(text.matches("event: connected").count(), 1, "{text}");
        assert!(text.contains("event: connected"), "{text}");
        assert_eq!(received(&mut again), "");
    }
}

#[test]
fn servers_with_and_without_a_log_take_nothing_over() {
    let [with, without] = [hub(1, 1..3), super::hub()];
    super::publish(&without, "a", Time(0));
    let _stream = without.subscribe(&"acme".parse().expect("a name"), View::Member, None, Time(0));
    for (from, to) in [(&with, &without), (&without, &with)] {
        let first = saved(from, Time(0)).remove(0);
        let refused = to.restore(first, Duration::ZERO, Time(0));
        assert!(matches!(refused, Err(RestoreError::Log)), "{refused:?}");
    }
}
