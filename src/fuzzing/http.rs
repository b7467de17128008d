//! Input over HTTP: paths and ids.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, Uri};

use crate::admission::{Admission, Entrance};
use crate::config::{Config, HubConfig};
use crate::http::{App, Grant, Reject, Route, ServiceFactory, route as our_route};
use crate::hub::{Hub, Keys, View};
use crate::ids::{EventId, OrgName, Seq, TopicName};
use crate::stream::{Clock, EventStream};
use crate::time::Time;

// ===== paths =====

/// A method, a space and a path: our router agrees with a naive reading of the table.
pub fn route(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (method, path) = text.split_once(' ').unwrap_or(("GET", text));
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let ours = our_route(&method, path);
    let segments: Vec<&str> = path.split('/').collect();
    let (allow, org, topic) = match segments[..] {
        ["", "livez" | "readyz" | "metrics" | "nudged.js" | "nudged-adapters.js"] => {
            ("GET, HEAD", None, None)
        }
        ["", "ops"] | ["", "ops", "orgs" | "topics" | "nodes"] => ("GET, HEAD", None, None),
        ["", name] if script_version(name) == Some(env!("CARGO_PKG_VERSION")) => {
            ("GET, HEAD", None, None)
        }
        ["", name]
            if script_version(name)
                .is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit())) =>
        {
            return assert!(matches!(ours, Err(Reject::ScriptVersion)), "{ours:?}");
        }
        ["", "api", "events"] => ("POST", None, None),
        ["", "api", org, "events"] => ("GET, HEAD, POST, DELETE", Some(org), None),
        ["", "api", org, "topics", topic, "events"] => {
            ("GET, HEAD, POST, DELETE", Some(org), Some(topic))
        }
        ["", "api", org, "reread"] => ("POST", Some(org), None),
        ["", "api", "reread"] => ("POST", None, None),
        ["", "api", org, "public", "events"] | ["", "api", org, "position"] => {
            ("GET, HEAD", Some(org), None)
        }
        _ => return assert!(matches!(ours, Err(Reject::NotFound)), "{ours:?}"),
    };
    if !allow.split(", ").any(|allowed| allowed == method.as_str()) {
        return assert!(matches!(&ours, Err(Reject::Method { allow: ours }) if *ours == allow));
    }
    let Some(segment) = org else {
        return assert!(matches!(
            ours,
            Ok(Route::Live
                | Route::Ready
                | Route::Metrics
                | Route::Ops(_)
                | Route::Script(_)
                | Route::PublishBatch
                | Route::RereadAll)
        ));
    };
    let decoded = |segment: &str| String::from_utf8(percent_decode(segment.as_bytes())).ok();
    let expected = decoded(segment).and_then(|name| name.parse::<OrgName>().ok());
    if let Some(segment) = topic {
        let name = decoded(segment).and_then(|name| name.parse::<TopicName>().ok());
        let found = match ours {
            Ok(
                Route::TopicStream { topic }
                | Route::TopicStreamHead { topic }
                | Route::PublishMessage { topic }
                | Route::CloseTopic { topic },
            ) => (Some(topic.org), Some(topic.name)),
            Err(Reject::Org(_)) => return assert_eq!(expected, None),
            Err(Reject::Topic(_)) => (expected.clone(), None),
            other => panic!("{other:?}"),
        };
        return assert_eq!(found, (expected, name));
    }
    let found = match ours {
        Ok(
            Route::Stream { org, .. }
            | Route::StreamHead { org, .. }
            | Route::Publish { org }
            | Route::EndMembers { org }
            | Route::Reread { org }
            | Route::Position { org },
        ) => Some(org),
        Err(Reject::Org(_)) => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(found, expected);
}

/// The version in the name of a script.
fn script_version(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".js")?;
    name.strip_prefix("nudged-adapters-").or_else(|| name.strip_prefix("nudged-"))
}

/// RFC 3986, 2.1; anything but an escape is left unchanged.
fn percent_decode(text: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let (mut decoded, mut rest) = (Vec::new(), text);
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, digit(tail.first()), digit(tail.get(1))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(16 * high + low).expect("two digits"));
                rest = &tail[2..];
            }
            _ => decoded.push(*first),
        }
    }
    decoded
}

// ===== ids =====

/// The id that a client received last, as a header and in the query. Each `@` stands for the epoch, which no fuzzer
/// guesses. The history covers the events 2 to 4 of 4.
pub fn last_event_id(input: &[u8]) {
    let config = HubConfig { coalesce: Duration::ZERO, history_events: 3, ..HubConfig::default() };
    let hub = Hub::new(config.clone());
    let org: OrgName = "acme".parse().expect("a name");
    let observer = hub.subscribe(&org, View::Member, None, Time(0)).expect("open").0;
    for key in ["a", "b", "c", "d"] {
        hub.publish(&org, &Keys::new([key], &config).expect("a key"), Time(0));
    }
    let epoch = observer.position().epoch;
    let id = |seq| EventId { epoch, seq: Seq(seq) }.to_string();
    let name = id(0).replace("-0", "");
    let last = String::from_utf8_lossy(input).replace('@', &name);
    if let Ok(parsed) = last.parse::<EventId>() {
        assert_eq!(parsed.to_string(), last, "one spelling for one position");
    }
    let missed = (1..=4).find(|seq| id(*seq) == last).map(|seq| 4 - seq);

    let (factory, _) = factory(&hub);
    let admitted = factory.admit(Some(Ipv4Addr::LOCALHOST.into()), Entrance::Public).now_or_never();
    let service = factory.service(admitted.expect("there is room"));
    let in_query = |names: &[&str]| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let query = query.extend_pairs(names.iter().map(|name| (name, &last))).finish();
        let uri = format!("/api/acme/events?{query}").parse::<Uri>();
        Some(Request::builder().uri(uri.ok()?).header("last-event-id", ""))
    };
    let requests = [
        in_query(&["last_event_id"]),
        in_query(&["lastEventId", "Last-Event-ID"]),
        HeaderValue::from_str(&last)
            .ok()
            .filter(|value| value.to_str().is_ok())
            .map(|value| Request::builder().uri("/").header("last-event-id", value)),
    ];
    let opened = requests.into_iter().flatten().map(|request| {
        let request = request.body(()).expect("its parts are valid");
        let opened = service.open(&org, View::Member, &request, &Grant::everyone());
        opened.map(|(stream, _)| stream)
    });
    let directly = EventStream::open(&hub, &org, View::Member, Some(&last), Time(0));
    for mut stream in opened.chain([directly.map_err(|_| Reject::Draining)]).flatten() {
        let greeting = stream.greet().expect("a greeting").payload();
        let name = if missed.is_some() { "event: resumed\n" } else { "event: connected\n" };
        assert!(String::from_utf8_lossy(&greeting).contains(name), "{greeting:?} to {last:?}");
        let mut events = 0;
        while let Poll::Ready(Some(_)) = stream.subscription().poll_next(Waker::noop()) {
            events += 1;
        }
        assert_eq!(events, missed.unwrap_or(0), "{last:?}");
    }
    drop(observer);
    assert_eq!(hub.seats(), 0);
}

/// Services of a server with the default settings, and its limits.
pub(super) fn factory(hub: &Hub) -> (ServiceFactory, Admission) {
    // Scripts may name any host.
    let config = Config { insecure_open: true, ..Config::default() };
    let admission = Admission::new(&config, 1_024);
    let app = Arc::new(App::new(config, hub.clone(), Clock::start(), admission.clone()));
    (ServiceFactory::new(app, hub.clone()), admission)
}
