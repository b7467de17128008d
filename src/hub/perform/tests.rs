//! What another process sends is done whole or not at all, whatever it is, and what is more than this server takes is not
//! lost in silence. That it has the effects of direct calls is compared where requests are, in `http::successor`.

use proptest::prelude::*;

use super::*;
use crate::config::HubConfig;
use crate::hub::record::Lines;
use crate::hub::tests::turns::{sweep_all, take_events, turn};
use crate::hub::{CommandPasses, Start, Subscription, View};
use crate::metrics::read;
use crate::wire::Payload;

const WINDOW: Duration = Duration::from_secs(1);

fn config() -> HubConfig {
    HubConfig { keys_max: 2, key_bytes_max: 8, topic_event_bytes_max: 120, ..HubConfig::default() }
}

fn org(name: &str) -> OrgName {
    name.parse().expect("a name")
}

fn run() -> Topic {
    Topic { org: org("acme"), name: "run".parse().expect("a name") }
}

fn names(stream: &mut Subscription) -> Vec<String> {
    take_events(stream, |_| {}).0.into_iter().map(|event| event.name).collect()
}

/// Publishes counted, orgs, topics.
fn traces(hub: &Hub) -> (u64, usize, usize) {
    (read(&hub.shard_counters().published), hub.channels(), hub.topics())
}

#[test]
fn one_unusable_line_is_the_end_of_all() {
    let hub = Hub::new(config());
    let topic = r#"{"org":"acme","topic":"run","event":"a","text":"b"}"#;
    for (lines, number) in [
        ("x", 1),
        (&*format!("{topic}\n\n{topic}\nx"), 3),
        (&*format!("{topic}\n{{\"org\":\"acme\",\"keys\":[]}}\n"), 2),
        (
            &*format!(
                "{topic}\n{{\"org\":\"acme\",\"topic\":\"run\",\"exclusive\":\"0000000000000001\"}}"
            ),
            2,
        ),
    ] {
        let performed = hub.perform(lines.as_bytes(), Time(0), WINDOW);
        assert_eq!(performed, Err(CannotPerform::Line(number)), "{lines}");
        assert_eq!(traces(&hub), (0, 0, 0), "{lines}");
    }
    assert_eq!(hub.perform(b"\n \n", Time(0), WINDOW), Ok(Performed::default()));
    hub.perform(topic.as_bytes(), Time(0), WINDOW).expect("usable");
    assert_eq!(traces(&hub), (1, 0, 1));
}

/// It would be in no log, so no other server would have it.
#[test]
fn a_hub_that_follows_a_log_does_nothing() {
    let hub = Hub::with_log(config(), 1, 1 << 20, WINDOW);
    let line = br#"{"org":"acme","keys":["a"]}"#;
    assert_eq!(hub.perform(line, Time(0), WINDOW), Err(CannotPerform::FollowsLog));
    assert_eq!(hub.perform_reread_all(Time(0), WINDOW), Err(CannotPerform::FollowsLog));
}

#[test]
fn keys_that_are_too_much_here_are_a_reread() {
    for keys in [r#"["a","b","c"]"#, r#"["123456789"]"#] {
        let (hub, mut passes) = (Hub::new(config()), CommandPasses::default());
        let open = |view| hub.subscribe(&org("acme"), view, None, Time(0)).expect("open").0;
        let mut streams = [View::Member, View::Public].map(open);
        let line = format!(r#"{{"org":"acme","keys":{keys}}}"#);
        let performed = hub.perform(line.as_bytes(), Time(0), WINDOW);
        assert_eq!(performed, Ok(Performed::default()), "no event has them");
        turn(&hub, &mut passes, Time(0).after(WINDOW * 2));
        assert!(streams.iter_mut().all(|stream| names(stream) == ["connected"]));
        assert_eq!(read(&hub.shard_counters().published), 1);
    }
}

#[test]
fn of_an_event_that_is_too_long_here_streams_are_notified_unless_it_is_bulk() {
    let hub = Hub::new(config());
    let publish = |text: &str, bulk: bool| {
        let mut lines = Lines::new();
        lines.message(&run(), "a", Payload::Text(text), bulk);
        let performed = hub.perform(&lines.into_bytes(), Time(0), WINDOW).expect("usable");
        sweep_all(&hub);
        performed.id
    };
    let long = "x".repeat(200);
    assert_eq!((publish(&long, false), hub.topics()), (None, 0), "no topic begins with it");
    let first = publish("b", false).expect("it is published");
    let open = |start| hub.subscribe_topic(&run(), start, false, Time(0)).expect("open");
    let (mut stream, _) = open(Start::All);
    assert_eq!(names(&mut stream), ["a"]);
    assert_eq!(publish(&long, true), None);
    assert!(names(&mut stream).is_empty());
    assert_eq!(publish(&long, false), None);
    assert_eq!(names(&mut stream), ["connected", "a"], "with what is kept");
    let second = publish("c", false).expect("it is published");
    assert_eq!(names(&mut stream), ["a"]);
    // An id from before it is not covered, one from after it is.
    let (mut stream, _) = open(Start::After(first));
    assert_eq!(names(&mut stream), ["a", "a"]);
    let (mut stream, _) = open(Start::After(second));
    assert!(names(&mut stream).is_empty());
    assert_eq!(read(&hub.shard_counters().published), 5);
}

/// Lines of every kind.
fn valid() -> Vec<u8> {
    let (acme, run) = (org("acme"), run());
    let keys = Keys::new(["posts", "é\"\n"], &config()).expect("valid");
    let mut lines = Lines::new();
    lines.keys(&acme, &keys).message(&run, "a", Payload::Text("b\nc"), true).reread(&acme);
    lines.topic_body(&run, br#"{"event":"x","data":{"n":[1]}}"#).end(&acme).close(&run, "done");
    lines.into_bytes().to_vec()
}

/// A change to bytes: from here on so many are replaced by these.
fn change() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<u8>)> {
    let json = "[{}\\[\\]\",:a-z0-9\n]{0,4}".prop_map(String::into_bytes);
    let bytes = prop_oneof![json, prop::collection::vec(any::<u8>(), 0..4)];
    (any::<prop::sample::Index>(), 0..4usize, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_024, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_sent_is_done_whole_or_not_at_all(
        changes in prop::collection::vec(change(), 0..4),
    ) {
        let mut lines = valid();
        for (at, removed, bytes) in changes {
            let start = at.index(lines.len() + 1);
            let end = (start + removed).min(lines.len());
            lines.splice(start..end, bytes);
        }
        let (hub, mut passes) = (Hub::new(config()), CommandPasses::default());
        let mut streams = [View::Member, View::Public]
            .map(|view| hub.subscribe(&org("acme"), view, None, Time(0)).expect("open").0);
        let performed = hub.perform(&lines, Time(0), WINDOW);
        turn(&hub, &mut passes, Time(5_000));
        let received: usize = streams.iter_mut().map(|stream| names(stream).len()).sum();
        if performed.is_err() {
            prop_assert_eq!((traces(&hub), received), ((0, 1, 0), 0));
        }
    }
}
