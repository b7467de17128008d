//! A server that takes over may have lower limits, and what it finds may be too old: nothing that is missing is covered.

use std::time::Duration;

use super::{hub, moved, publish, received, saved};
use crate::config::HubConfig;
use crate::hub::state::RestoreError;
use crate::hub::{Hub, Start, Subscription, View};
use crate::ids::{EventId, OrgName, Seq, Topic};
use crate::state::Record;
use crate::time::Time;
use crate::wire::{Greeting, Message, Payload};

fn acme() -> OrgName {
    "acme".parse().expect("a name")
}

fn run() -> Topic {
    Topic { org: acme(), name: "run-7".parse().expect("a name") }
}

fn post(hub: &Hub, text: &str, bulk: bool) -> EventId {
    let message = Message::new("m", Payload::Text(text), bulk, 10_000).expect("short");
    hub.publish_message(&run(), &message, Time(10))
}

/// The hub as it goes on with these limits, after this time.
fn restored(from: &Hub, config: HubConfig, passed: Duration) -> Hub {
    let to = Hub::new(config);
    for record in saved(from, Time(10_000)) {
        to.restore(record, passed, Time(10_000_000)).expect("valid");
    }
    to
}

fn resumes(hub: &Hub, id: EventId) -> bool {
    let greeting = match id.epoch {
        _ if hub.topics() > 0 => {
            hub.subscribe_topic(&run(), Start::After(id), false, Time(10_000_000)).expect("open").1
        }
        _ => hub.subscribe(&acme(), View::Member, Some(id), Time(10_000_000)).expect("open").1,
    };
    greeting == Greeting::Resumed
}

/// A hub with five events of an org, whose ids are returned, from that before the first one on, and a stream.
fn five() -> (Hub, Vec<EventId>, Subscription) {
    let hub = hub();
    let (stream, _) = hub.subscribe(&acme(), View::Member, None, Time(0)).expect("open");
    let mut ids = vec![stream.position()];
    for n in 0..5 {
        publish(&hub, &"x".repeat(10 + n), Time(1_000 * n as u64));
        let seq = Seq(n as u64 + 1);
        ids.push(EventId { seq, ..ids[0] });
    }
    (hub, ids, stream)
}

#[test]
fn every_position_is_covered_as_it_was() {
    let (hub, ids, _stream) = five();
    let to = moved(&hub, Time(5_000), 3, Time(90_000_000));
    for id in ids {
        let (_, greeting) =
            to.subscribe(&acme(), View::Member, Some(id), Time(90_000_000)).expect("open");
        assert_eq!(greeting, Greeting::Resumed, "{id}");
    }
}

#[test]
fn lower_limits_drop_the_oldest_events() {
    let (hub, ids, _stream) = five();
    let few = HubConfig { history_events: 2, ..hub.config().clone() };
    // Ages are 10 to 6 seconds.
    let young = HubConfig { history_age: Duration::from_millis(7_500), ..hub.config().clone() };
    let longest = saved(&hub, Time(5_000)).into_iter().find_map(|record| match record {
        Record::Org(org) => Some(org.member.events.last()?.text.len()),
        _ => None,
    });
    let short =
        HubConfig { event_bytes_max: longest.expect("it has events") - 1, ..hub.config().clone() };
    for (config, covered) in [(few, 3), (young, 3), (short, 5)] {
        let to = restored(&hub, config, Duration::ZERO);
        let resumed: Vec<_> = ids.iter().map(|id| resumes(&to, *id)).collect();
        let expected: Vec<_> = (0..ids.len()).map(|n| n >= covered).collect();
        assert_eq!(resumed, expected);
    }
}

#[test]
fn what_has_become_too_old_meanwhile_is_gone() {
    let (hub, ids, stream) = five();
    let age = hub.config().history_age;
    let to = restored(&hub, hub.config().clone(), age - Duration::from_millis(7_500));
    assert!(!resumes(&to, ids[2]) && resumes(&to, ids[3]));
    // The stream ends at the beginning.
    drop(stream);
    assert_eq!(restored(&hub, hub.config().clone(), age).channels(), 0);
    assert_eq!(restored(&hub, hub.config().clone(), Duration::MAX).channels(), 0);
}

#[test]
fn memory_counts_and_its_limits_hold() {
    let (hub, ids, _stream) = five();
    let bytes = |hub: &Hub| hub.shared.common.memory.bytes();
    let to = restored(&hub, hub.config().clone(), Duration::ZERO);
    assert!(bytes(&to) > 0 && bytes(&to) <= bytes(&hub));
    let little = HubConfig { history_bytes_total: 1, ..hub.config().clone() };
    let to = restored(&hub, little, Duration::ZERO);
    assert!(!resumes(&to, ids[3]) && resumes(&to, ids[4]), "the newest is kept");
}

#[test]
fn a_topic_with_lower_limits_loses_its_oldest_events() {
    let hub = hub();
    let before = EventId { seq: Seq(0), ..post(&hub, "1", false) };
    let ids =
        [before, post(&hub, "2", true), post(&hub, "3 is longer", false), post(&hub, "4", true)];
    let config = |events, bytes| HubConfig {
        topic_events: events,
        topic_event_bytes_max: bytes,
        ..hub.config().clone()
    };
    for (config, expected) in [
        (config(10, 1_000), [true, true, true, true]),
        // Event 1 is gone.
        (config(1, 1_000), [false, true, true, true]),
        // So is event 3, which is too long.
        (config(10, ids[0].to_string().len() + 30), [false, false, true, true]),
    ] {
        let to = restored(&hub, config, Duration::ZERO);
        assert_eq!(ids.map(|id| resumes(&to, id)), expected);
    }
    let none = HubConfig { topics_bytes_total: 0, ..hub.config().clone() };
    let to = restored(&hub, none, Duration::ZERO);
    assert!(to.topics_bytes() < hub.topics_bytes());
    assert!(!resumes(&to, ids[1]));
}

#[test]
fn what_no_hub_has_saved_is_refused() {
    let (hub, _, _stream) = five();
    let record = saved(&hub, Time(10_000)).remove(0);
    let Record::Org(org) = record else { panic!("{record:?}") };
    let restore = |change: &dyn Fn(&mut crate::hub::state::OrgState)| {
        let (to, mut org) = (super::hub(), org.clone());
        change(&mut org);
        to.restore(Record::Org(org), Duration::ZERO, Time(10_000_000))
    };
    assert!(restore(&|_| ()).is_ok());
    assert!(matches!(restore(&|org| org.org.push('/')), Err(RestoreError::Org(_))));
    assert!(matches!(restore(&|org| org.member.head += 1), Err(RestoreError::Event(_))));
    assert!(matches!(restore(&|org| org.member.epoch ^= 1), Err(RestoreError::Event(_))));
    assert!(matches!(restore(&|org| org.member.head = 4), Err(RestoreError::Numbers)));
    assert!(matches!(restore(&|org| org.member.head = u64::MAX), Err(RestoreError::Numbers)));
    let twins = |org: &mut crate::hub::state::OrgState| org.public = Some(org.member.clone());
    assert!(matches!(restore(&twins), Err(RestoreError::Epochs)));
    let again = hub.restore(Record::Org(org.clone()), Duration::ZERO, Time(10_000_000));
    assert!(matches!(again, Err(RestoreError::Twice(_))), "{again:?}");
    let log = Record::Log(crate::hub::state::LogState::default());
    assert!(matches!(hub.restore(log, Duration::ZERO, Time(0)), Err(RestoreError::Log)));
}

/// Its position is unknown here, so it has to re-read.
#[test]
fn a_stream_of_what_was_not_restored_re_reads_everything() {
    let hub = hub();
    let (mut member, _) = hub.subscribe(&acme(), View::Member, None, Time(0)).expect("open");
    let (mut of_topic, _) = hub.subscribe_topic(&run(), Start::All, false, Time(0)).expect("open");
    let other = super::hub();
    for stream in [&mut member, &mut of_topic] {
        assert_eq!(received(stream), "");
        let state = super::exported(&hub, stream, Time(1_000));
        let mut again = other.import(&state, Time(1_000)).expect("valid");
        let text = received(&mut again);
        assert!(text.contains("event: connected") && text.matches("event:").count() == 1, "{text}");
        assert_ne!(again.position().epoch, stream.position().epoch);
        assert_eq!(received(&mut again), "");
    }
}
