//! Copies of histories that are made while the hub goes on, and completed later, are what would have been saved as a whole.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::saved;
use crate::config::HubConfig;
use crate::hub::state::Copied;
use crate::hub::{Hub, Keys, Start, Subscription, View};
use crate::ids::{EventId, OrgName, Topic};
use crate::state::{Record, RecordReader, RecordWriter};
use crate::time::Time;
use crate::wire::{Greeting, Message, Payload};

#[derive(Clone, Debug)]
enum Step {
    Publish(usize, usize),
    /// Too long for an event.
    Lose(usize),
    Post(usize, bool),
    Close(usize),
    Open(usize, View),
    OpenTopic(usize),
    Leave(usize),
    Reread(usize),
    Pass(u64),
    Copy,
}

struct Copying {
    hub: Hub,
    other: Hub,
    copied: Copied,
    streams: BTreeMap<usize, Subscription>,
    now: Time,
}

fn config() -> HubConfig {
    HubConfig {
        history_events: 4,
        history_age: Duration::from_secs(30),
        topic_events: 3,
        topic_age: Duration::from_secs(20),
        idle_topics_max: 2,
        event_bytes_max: 300,
        ..HubConfig::default()
    }
}

/// Where nothing goes because it is idle: no stream comes along, and since when a channel is without one is not compared.
fn roomy() -> HubConfig {
    let day = Duration::from_secs(86_400);
    HubConfig { idle_topics_max: 100, history_age: day, topic_age: day, ..config() }
}

fn org(number: usize) -> OrgName {
    format!("org-{number}").parse().expect("a name")
}

fn topic(number: usize) -> Topic {
    Topic { org: org(0), name: format!("t-{number}").parse().expect("a name") }
}

impl Copying {
    fn new() -> Self {
        let (hub, other) = (Hub::with_shards(config(), 2), Hub::with_shards(roomy(), 1));
        let now = Time(86_400_000);
        Self { hub, other, copied: Copied::default(), streams: BTreeMap::new(), now }
    }

    fn step(&mut self, number: usize, step: &Step) {
        let (hub, now) = (&self.hub, self.now);
        match step {
            Step::Publish(of, key) => {
                let key = ["a", "posts", "resolve-path"][*key];
                let keys = Keys::new([key], hub.config()).expect("short");
                hub.publish(&org(*of), &keys, now);
            }
            Step::Lose(of) => {
                let key = "x".repeat(400);
                hub.publish(&org(*of), &Keys::new([&*key], hub.config()).expect("a key"), now);
            }
            Step::Post(of, bulk) => {
                let text = number.to_string();
                let message = Message::new("m", Payload::Text(&text), *bulk, 1_000);
                hub.publish_message(&topic(*of), &message.expect("short"), now);
            }
            Step::Close(of) => _ = hub.close_topic(&topic(*of), "over", now),
            Step::Open(of, view) => {
                let (stream, _) = hub.subscribe(&org(*of), *view, None, now).expect("open");
                self.streams.insert(number, stream);
            }
            Step::OpenTopic(of) => {
                let open = hub.subscribe_topic(&topic(*of), Start::All, false, now);
                self.streams.insert(number, open.expect("open").0);
            }
            Step::Leave(nth) => {
                if let Some(key) = self.streams.keys().nth(*nth).copied() {
                    self.streams.remove(&key);
                }
            }
            Step::Reread(of) => _ = hub.reread(&org(*of), now, Duration::ZERO),
            Step::Pass(ms) => {
                self.now = Time(now.0 + ms);
                hub.begin(self.now);
                hub.shared.registry.tidy_all(self.now);
                hub.shared.topics.tidy(self.now);
            }
            Step::Copy => self.copy(false),
        }
    }

    fn copy(&mut self, rest: bool) {
        let mut writer = RecordWriter::new(Vec::new());
        let (now, mut write) = (self.now, |record: Record| writer.write(&record));
        match rest {
            true => self.hub.save_rest(&mut self.copied, now, &mut write),
            false => self.hub.copy(&mut self.copied, &|| now, &mut write),
        }
        .expect("to memory");
        let bytes = writer.finish().expect("to memory");
        let mut reader = RecordReader::<_, Record>::new(&*bytes);
        while let Some(record) = reader.next().expect("whole") {
            self.other.restore(record, Duration::ZERO, now).expect("valid");
        }
    }
}

fn sorted(hub: &Hub, now: Time) -> Vec<Record> {
    let mut records = saved(hub, now);
    records.sort_by_cached_key(|record| format!("{record:?}"));
    records
}

/// A channel with streams was in use when it was copied, and not only then: that it has been since is no change.
fn used_now(mut records: Vec<Record>, hub: &Hub, now: Time) -> Vec<Record> {
    let of_hub = saved(hub, now);
    let org_in_use = |name: &str| {
        of_hub.iter().any(|of| matches!(of, Record::Org(of) if of.in_use && of.org == name))
    };
    let topic_in_use = |name: &str| {
        of_hub.iter().any(|of| matches!(of, Record::Topic(of) if of.in_use && of.topic == name))
    };
    for record in &mut records {
        match record {
            Record::Org(of) if org_in_use(&of.org) => of.idle_ms = 0,
            Record::Topic(of) if topic_in_use(&of.topic) => of.idle_ms = 0,
            _ => {}
        }
    }
    records
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3usize, 0..3usize).prop_map(|(of, key)| Step::Publish(of, key)),
        1 => (0..3usize).prop_map(Step::Lose),
        6 => (0..4usize, any::<bool>()).prop_map(|(of, bulk)| Step::Post(of, bulk)),
        1 => (0..4usize).prop_map(Step::Close),
        3 => (0..3usize, any::<bool>()).prop_map(|(of, public)| {
            Step::Open(of, if public { View::Public } else { View::Member })
        }),
        2 => (0..4usize).prop_map(Step::OpenTopic),
        3 => (0..6usize).prop_map(Step::Leave),
        1 => (0..3usize).prop_map(Step::Reread),
        3 => prop_oneof![Just(10), Just(100), Just(9_000), Just(40_000)].prop_map(Step::Pass),
        4 => Just(Step::Copy),
    ]
}

proptest! {
    #[test]
    fn copies_and_the_rest_are_what_would_be_saved_at_once(steps in vec(step(), 1..60)) {
        let mut copying = Copying::new();
        for (number, step) in steps.iter().enumerate() {
            copying.step(number, step);
        }
        copying.copy(true);
        let now = copying.now;
        let whole = Hub::new(roomy());
        for record in saved(&copying.hub, now) {
            whole.restore(record, Duration::ZERO, now).expect("valid");
        }
        // What has been idle for too long meanwhile goes at the end.
        copying.other.end_restore(now);
        whole.end_restore(now);
        let of_other = used_now(sorted(&copying.other, now), &copying.hub, now);
        prop_assert_eq!(of_other, used_now(sorted(&whole, now), &copying.hub, now));
        prop_assert_eq!(copying.other.topics_bytes(), whole.topics_bytes());
    }
}

/// What the rest has, after one copy.
fn rest(copying: &mut Copying) -> Vec<Record> {
    let mut records = Vec::new();
    let (now, mut keep) = (copying.now, |record: Record| {
        records.push(record);
        Ok(())
    });
    copying.hub.save_rest(&mut copying.copied, now, &mut keep).expect("to memory");
    records
}

/// SCENARIO: an upgrade of a server whose histories take 64 MiB.
/// BUG: all of them were written and read while nothing was delivered, which took longer than the second that this may
/// last: no upgrade was possible.
/// FIX: they are copied before, and then only what has changed since.
#[test]
fn only_what_has_changed_since_is_left_for_the_rest() {
    let mut copying = Copying::new();
    let streams: Vec<_> = (0..3)
        .map(|of| copying.hub.subscribe(&org(of), View::Member, None, copying.now).expect("open").0)
        .collect();
    for (number, of) in [0, 1, 2, 0, 1, 2].into_iter().enumerate() {
        copying.step(number, &Step::Publish(of, 0));
        copying.step(number, &Step::Post(of, false));
        copying.step(number, &Step::Pass(100));
    }
    copying.step(0, &Step::Copy);
    assert!(matches!(rest(&mut copying)[..], [Record::Counters(_)]));
    copying.step(0, &Step::Publish(1, 1));
    copying.step(0, &Step::Post(2, true));
    let mut left = rest(&mut copying);
    left.sort_by_key(|record| matches!(record, Record::NewerTopic(_)));
    let [Record::Counters(_), Record::NewerTopic(topic)] = &left[1..] else { panic!("{left:?}") };
    let Record::NewerOrg(org) = &left[0] else { panic!("{left:?}") };
    assert_eq!((&*org.state.org, org.state.member.events.len(), org.member_start), ("org-1", 1, 0));
    assert_eq!((&*topic.state.topic, topic.state.events.len()), ("t-2", 1));
    drop(streams);
}

/// Else an id from before would cover what was published in between and had no channel.
#[test]
fn what_is_forgotten_after_the_copy_is_not_known_to_the_other() {
    let mut copying = Copying::new();
    copying.step(0, &Step::Open(0, View::Member));
    let id: EventId = copying.streams[&0].position();
    copying.step(1, &Step::Post(1, false));
    copying.step(2, &Step::Leave(0));
    copying.step(3, &Step::Copy);
    assert_eq!((copying.other.channels(), copying.other.topics()), (1, 1));
    copying.step(4, &Step::Pass(40_000));
    copying.step(5, &Step::Publish(0, 0));
    copying.copy(true);
    assert_eq!((copying.other.channels(), copying.other.topics()), (0, 0));
    let now = copying.now;
    let open = copying.other.subscribe(&org(0), View::Member, Some(id), now);
    assert_eq!(open.expect("open").1, Greeting::Connected);
}
