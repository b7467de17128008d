//! Events of topics: whatever a publisher sends, it is refused, or every reader parses exactly one event with this name
//! and this payload.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::readers::{by_sse_codec, by_twin};
use super::sse::parse;
use crate::ids::{Epoch, EventId, Seq};
use crate::wire::{Frame, InvalidMessage, Message, Payload};

/// A body, read naively: which event it asks for.
#[derive(Debug)]
struct Wanted {
    name: String,
    payload: WantedPayload,
    bulk: bool,
}

#[derive(Debug)]
enum WantedPayload {
    Json(Box<RawValue>),
    Text(String),
}

/// Small, so that the fuzzer finds it.
const EVENT_BYTES_MAX: usize = 512;

/// That of a topic that has run for long.
const LONGEST_ID: EventId = EventId { epoch: Epoch(u64::MAX), seq: Seq(u64::MAX) };

/// The body of a publish to a topic, and the lines of a publish of many, of which a stream receives exactly the events
/// that a naive reading finds; of a refused body, it receives nothing.
pub fn topic_json(input: &[u8]) {
    let wanted = Wanted::read(input);
    let is_allowed = wanted.as_ref().is_some_and(|wanted| wanted.encode(input.len()));
    #[cfg(feature = "server")]
    published::check_body(input, wanted.as_ref().filter(|_| is_allowed));
    #[cfg(feature = "server")]
    published::check_lines(input);
    _ = is_allowed;
}

// ===== impl Wanted =====

impl Wanted {
    /// Of repeated members, the last one counts.
    fn read(body: &[u8]) -> Option<Self> {
        Self::of(serde_json::from_slice(body).ok()?)
    }

    fn of(mut members: BTreeMap<String, Box<RawValue>>) -> Option<Self> {
        let name = serde_json::from_str(members.remove("event")?.get()).ok()?;
        let bulk = match members.remove("bulk") {
            Some(bulk) => serde_json::from_str(bulk.get()).ok()?,
            None => false,
        };
        let payload = match (members.remove("data"), members.remove("text")) {
            (Some(json), None) => WantedPayload::Json(json),
            (None, Some(text)) => WantedPayload::Text(serde_json::from_str(text.get()).ok()?),
            _ => return None,
        };
        members.is_empty().then_some(Self { name, payload, bulk })
    }

    /// Encodes it. Readers get it in two pieces, `cut` says where. Returns whether it is allowed.
    fn encode(&self, cut: usize) -> bool {
        let payload = match &self.payload {
            WantedPayload::Json(json) => Payload::Json(json),
            WantedPayload::Text(text) => Payload::Text(text),
        };
        let made = Message::new(&self.name, payload, self.bulk, EVENT_BYTES_MAX);
        let whole = Message::new(&self.name, payload, self.bulk, usize::MAX);
        assert_eq!(whole.is_ok(), self.has_allowed_name(), "{:?}", self.name);
        let Ok(whole) = &whole else { return false };
        let frame = Frame::message(LONGEST_ID, whole);
        let len = frame.payload().len();
        match &made {
            Ok(message) => {
                assert!(len <= EVENT_BYTES_MAX);
                assert_eq!(message.is_bulk(), self.bulk);
            }
            Err(why) => {
                let expected = InvalidMessage::TooLong { len, max: EVENT_BYTES_MAX };
                assert!(len > EVENT_BYTES_MAX && *why == expected, "{why} of {len}");
            }
        }
        self.check(&frame, LONGEST_ID, cut);
        made.is_ok()
    }

    fn has_allowed_name(&self) -> bool {
        let mut characters = self.name.chars();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
        characters.next().is_some_and(|first| first.is_ascii_alphabetic())
            && self.name.len() <= 64
            && characters.all(allowed)
            && !["connected", "resumed", "invalidate", "closed", "ping"].contains(&&*self.name)
    }

    /// Three readers parse exactly this event, wherever it is split.
    fn check(&self, frame: &Frame, id: EventId, cut: usize) {
        let payload = frame.payload();
        let chunk = [format!("{:x}\r\n", payload.len()).as_bytes(), &payload, b"\r\n"].concat();
        assert_eq!(frame.chunked(), &chunk);
        let expected = [[self.name.clone(), self.data(), id.to_string()]];
        let received = parse([&payload[..]]);
        assert_eq!(received.events, expected);
        let cut = cut % payload.len();
        assert_eq!(parse([&payload[..cut], &payload[cut..]]), received);
        assert_eq!(by_twin(&payload), received);
        assert_eq!(by_sse_codec([&payload[..]]), (received.events, None));
        if let WantedPayload::Json(json) = &self.payload {
            assert!(payload.is_ascii(), "some clients end lines at U+0085 or U+2028");
            // What has a value at all, for this reader, has the same one after the transport.
            if let Ok(value) = serde_json::from_str::<Value>(json.get()) {
                assert_eq!(serde_json::from_str::<Value>(&expected[0][1]).ok(), Some(value));
            }
        }
    }

    /// The data that a browser has of it.
    fn data(&self) -> String {
        match &self.payload {
            WantedPayload::Text(text) => text.replace("\r\n", "\n").replace('\r', "\n"),
            WantedPayload::Json(json) => {
                let mut data = String::new();
                for c in json.get().chars().filter(|c| !['\r', '\n'].contains(c)) {
                    if c.is_ascii() {
                        data.push(c);
                    } else {
                        let units = c.encode_utf16(&mut [0; 2]).to_vec();
                        data.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
                    }
                }
                data
            }
        }
    }
}

/// What the server makes of a body.
#[cfg(feature = "server")]
mod published {
    use std::task::{Poll, Waker};

    use http::StatusCode;

    use super::{BTreeMap, EVENT_BYTES_MAX, EventId, Frame, RawValue, Wanted, WantedPayload};
    use crate::config::HubConfig;
    use crate::http::{Grant, Published, Publisher, Reject, publish_batch, publish_message};
    use crate::hub::{Hub, Start};
    use crate::ids::Topic;
    use crate::time::Time;

    /// It is published exactly if it is allowed, but for members that occur twice, of which the naive reading sees only
    /// the last.
    pub(super) fn check_body(body: &[u8], allowed: Option<&Wanted>) {
        let topic =
            Topic { org: "acme".parse().expect("a name"), name: "run-1".parse().expect("a name") };
        let publish = |body: &[u8]| {
            let hub = hub(1);
            let done = publish_message(Publisher::unlimited(&hub), &topic, body, Time(0));
            let done = done.map(Published::here);
            let accepted = is_accepted(done);
            let expected = if accepted { allowed.as_slice() } else { &[] };
            assert!(allowed.is_some() || !accepted, "published against a naive reading");
            check_received(&hub, &topic, expected);
            accepted
        };
        publish(body);
        if let Some(wanted) = allowed {
            assert!(publish(wanted.body().as_bytes()), "an allowed event is refused");
        }
    }

    /// Lines that are events of topics, in which no member occurs twice, are published exactly if each is allowed.
    pub(super) fn check_lines(body: &[u8]) {
        let lines = body.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let Some(lines) = lines.map(read_line).collect::<Option<Vec<_>>>() else { return };
        let all_allowed = lines.iter().all(|(_, wanted)| wanted.encode(body.len()));
        let text = |(topic, wanted): &(Topic, Wanted)| {
            let event = wanted.body();
            let event = event.strip_prefix('{').expect("an object");
            format!("{{\"org\":\"{}\",\"topic\":\"{}\",{event}\n", topic.org, topic.name)
        };
        let hub = hub(lines.len());
        let body: String = lines.iter().map(text).collect();
        let publisher = Publisher::unlimited(&hub);
        let done = publish_batch(publisher, body.as_bytes(), &Grant::everyone(), Time(0));
        let done = done.map(Published::here);
        let accepted = is_accepted(done);
        assert_eq!(accepted, all_allowed && !lines.is_empty(), "{body}");
        let mut topics = BTreeMap::<&Topic, Vec<&Wanted>>::new();
        lines.iter().for_each(|(topic, wanted)| topics.entry(topic).or_default().push(wanted));
        for (topic, wanted) in topics {
            check_received(&hub, topic, if accepted { &wanted } else { &[] });
        }
    }

    fn read_line(line: &[u8]) -> Option<(Topic, Wanted)> {
        let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(line).ok()?;
        let mut text = |name| serde_json::from_str::<String>(members.remove(name)?.get()).ok();
        let (org, name) = (text("org")?.parse().ok()?, text("topic")?.parse().ok()?);
        let wanted = Wanted::of(members)?;
        // A line can hold no other.
        let one_line = |json: &RawValue| !json.get().contains('\n');
        let is_one = !matches!(&wanted.payload, WantedPayload::Json(json) if !one_line(json));
        is_one.then_some((Topic { org, name }, wanted))
    }

    fn is_accepted<T>(done: Result<http::Response<T>, Reject>) -> bool {
        let Ok(response) = done else { return false };
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        true
    }

    fn hub(events: usize) -> Hub {
        Hub::new(HubConfig {
            topic_events: events.max(1),
            topic_event_bytes_max: EVENT_BYTES_MAX,
            topic_bytes: 1 << 40,
            topics_bytes_total: 1 << 40,
            ..HubConfig::default()
        })
    }

    fn check_received(hub: &Hub, topic: &Topic, expected: &[&Wanted]) {
        let opened = hub.subscribe_topic(topic, Start::All, false, Time(0));
        let mut stream = opened.expect("not closing").0;
        let mut frames = Vec::<(EventId, Frame)>::new();
        while let Poll::Ready(Some(frame)) = stream.poll_next(Waker::noop()) {
            frames.push((stream.position(), frame));
        }
        assert_eq!(frames.len(), expected.len(), "events");
        for ((id, frame), wanted) in frames.iter().zip(expected) {
            wanted.check(frame, *id, 17);
        }
    }

    // ===== impl Wanted =====

    impl Wanted {
        /// The body that publishes it.
        fn body(&self) -> String {
            let name = serde_json::Value::from(self.name.as_str());
            let payload = match &self.payload {
                WantedPayload::Json(json) => format!("\"data\":{}", json.get()),
                WantedPayload::Text(text) => {
                    format!("\"text\":{}", serde_json::Value::from(text.as_str()))
                }
            };
            format!("{{\"event\":{name},{payload},\"bulk\":{}}}", self.bulk)
        }
    }
}
