//! Publishing: a body is accepted exactly if a naive reading finds it valid, and then every subscriber receives
//! exactly its keys; of a refused body, nothing is received.

use std::collections::BTreeMap;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::HubConfig;
use crate::http::{Grant, Published, Publisher, Reject, publish_batch, publish_one};
use crate::hub::{Hub, Start, Subscription, View};
use crate::ids::{OrgName, Topic};
use crate::time::Time;
use crate::wire::Message;

/// What is published.
#[derive(Clone)]
enum Wanted {
    Keys(OrgName, Vec<String>),
    /// An event of this name.
    Message(Topic, String),
}

/// An object, whose values are as they came. Of repeated members it has the last.
type Object = BTreeMap<String, Box<RawValue>>;
type Outcome = Result<Response<Full<Bytes>>, Reject>;

/// Small, so that the fuzzer finds them.
const KEYS_MAX: usize = 4;
const KEY_BYTES_MAX: usize = 16;

/// The body of a publish to one org.
pub fn publish_json(input: &[u8]) {
    let org: OrgName = "acme".parse().expect("a name");
    let publish = |hub: &Hub, body: &[u8]| {
        publish_one(Publisher::unlimited(hub), &org, body, Time(0)).map(Published::here)
    };
    let document = serde_json::from_slice::<Value>(input).ok();
    let valid = document
        .as_ref()
        .and_then(|document| Some(vec![Wanted::Keys(org.clone(), keys(document, 1)?)]));
    check(input, valid.as_deref(), publish);
    if let Some(document) = document {
        // The document without repeated members, of which the naive reading sees only the last.
        assert_eq!(
            check(document.to_string().as_bytes(), valid.as_deref(), publish),
            valid.is_some()
        );
    }
}

/// The body of a publish to many orgs and topics.
pub fn publish_ndjson(input: &[u8]) {
    let publish = |hub: &Hub, body: &[u8]| {
        let published = publish_batch(Publisher::unlimited(hub), body, &Grant::everyone(), Time(0));
        published.map(Published::here)
    };
    let lines = input.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let documents: Option<Vec<Object>> =
        lines.map(|line| serde_json::from_slice(line).ok()).collect();
    let valid = documents.iter().flatten().map(line).collect::<Option<Vec<_>>>();
    let valid = valid.filter(|lines| documents.is_some() && !lines.is_empty());
    check(input, valid.as_deref(), publish);
    if let Some(documents) = documents {
        let line = |document| serde_json::to_string(document).expect("to memory") + "\n";
        let body: String = documents.iter().map(line).collect();
        assert_eq!(check(body.as_bytes(), valid.as_deref(), publish), valid.is_some());
    }
}

/// Publishes, and compares what is received. Returns whether it was accepted.
fn check(body: &[u8], valid: Option<&[Wanted]>, publish: impl Fn(&Hub, &[u8]) -> Outcome) -> bool {
    let hub = Hub::new(HubConfig {
        coalesce: Duration::ZERO,
        history_events: body.len() + 1,
        keys_max: KEYS_MAX,
        key_bytes_max: KEY_BYTES_MAX,
        topic_event_bytes_max: usize::MAX,
        topic_events: body.len() + 1,
        topic_bytes: 1 << 40,
        topics_bytes_total: 1 << 40,
        ..HubConfig::default()
    });
    let mut expected = BTreeMap::<OrgName, Vec<Value>>::new();
    let mut messages = BTreeMap::<Topic, Vec<String>>::new();
    for wanted in valid.unwrap_or_default() {
        let (org, keys) = match wanted {
            Wanted::Keys(org, keys) => (org, keys),
            Wanted::Message(topic, name) => {
                messages.entry(topic.clone()).or_default().push(name.clone());
                continue;
            }
        };
        let mut unique: Vec<&String> = Vec::new();
        keys.iter().for_each(|key| {
            if !unique.contains(&key) {
                unique.push(key)
            }
        });
        expected.entry(org.clone()).or_default().push(serde_json::json!({ "keys": unique }));
    }
    let subscribe =
        |org: &OrgName| hub.subscribe(org, View::Member, None, Time(0)).expect("open").0;
    let mut subscribers: Vec<Subscription> = expected.keys().map(subscribe).collect();

    let answer = publish(&hub, body);
    let accepted = answer.is_ok();
    let response = answer.unwrap_or_else(Reject::into_response);
    let status = response.status();
    let text = read(response);
    let document: Value = serde_json::from_slice(&text).expect("a response is JSON");
    if accepted {
        assert_eq!(status, StatusCode::ACCEPTED);
        let count = valid.expect("accepted, although a naive reading finds it invalid").len();
        assert!(document["published"] == count || document["id"].is_string());
    } else {
        assert!(matches!(status.as_u16(), 400 | 422), "{status}");
        assert_eq!(document["status"], status.as_u16());
        assert!(document["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
    for (subscriber, events) in subscribers.iter_mut().zip(expected.values()) {
        let expected: &[Value] = if accepted { events } else { &[] };
        assert_eq!(receive(subscriber), expected);
    }
    for (topic, names) in &messages {
        let opened = hub.subscribe_topic(topic, Start::All, false, Time(0));
        let expected: &[String] = if accepted { names } else { &[] };
        assert_eq!(received_names(&mut opened.expect("open").0), expected);
    }
    accepted
}

/// What a line publishes, if it is valid.
fn line(object: &Object) -> Option<Wanted> {
    let text = |name: &str| serde_json::from_str::<String>(object.get(name)?.get()).ok();
    let org = text("org")?.parse().ok()?;
    if object.contains_key("keys") {
        let document = serde_json::to_value(object).ok()?;
        return Some(Wanted::Keys(org, keys(&document, 2)?));
    }
    let topic = Topic { org, name: text("topic")?.parse().ok()? };
    let payload = match (object.contains_key("data"), object.contains_key("text")) {
        (true, false) => "data",
        (false, true) => text("text").map(|_| "text")?,
        _ => return None,
    };
    let name = text("event").filter(|name| is_event(name))?;
    if object.get("bulk").is_some_and(|bulk| !["true", "false"].contains(&bulk.get())) {
        return None;
    }
    let known = ["org", "topic", "event", "bulk", payload];
    object.keys().all(|member| known.contains(&&**member)).then_some(Wanted::Message(topic, name))
}

/// `[A-Za-z][A-Za-z0-9._:-]{0,63}`, and no event of the server.
fn is_event(name: &str) -> bool {
    let mut chars = name.chars();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.all(allowed)
        && name.len() <= 64
        && !Message::RESERVED.contains(&name)
}

/// The names of the events that a stream gets.
fn received_names(subscriber: &mut Subscription) -> Vec<String> {
    let mut names = Vec::new();
    while let Poll::Ready(Some(frame)) = subscriber.poll_next(Waker::noop()) {
        let payload = frame.payload();
        let text = std::str::from_utf8(&payload).expect("UTF-8");
        let name = text.lines().find_map(|line| line.strip_prefix("event: ")).expect("a name");
        names.push(name.to_owned());
    }
    names
}

/// The keys of an object with this number of members, if they are within the limits.
fn keys(document: &Value, members: usize) -> Option<Vec<String>> {
    let object = document.as_object().filter(|object| object.len() == members)?;
    let keys = object.get("keys")?.as_array()?.iter();
    let keys: Vec<_> = keys.map(|key| key.as_str().map(str::to_owned)).collect::<Option<_>>()?;
    let fits = |key: &String| (1..=KEY_BYTES_MAX).contains(&key.len());
    ((1..=KEYS_MAX).contains(&keys.len()) && keys.iter().all(fits)).then_some(keys)
}

fn receive(subscriber: &mut Subscription) -> Vec<Value> {
    let mut received = Vec::new();
    while let Poll::Ready(Some(frame)) = subscriber.poll_next(Waker::noop()) {
        let payload = frame.payload();
        let text = std::str::from_utf8(&payload).expect("UTF-8");
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
        received.push(serde_json::from_str(data).expect("JSON"));
    }
    received
}

fn read(response: Response<Full<Bytes>>) -> Bytes {
    use futures_util::FutureExt;
    let body = response.into_body().collect().now_or_never().expect("all of it is there");
    body.expect("memory").to_bytes()
}
