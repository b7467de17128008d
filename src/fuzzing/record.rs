//! Records of the log: whatever is in one, each of its lines is read as a naive reading reads it, or skipped; and what is
//! written is read as it was meant.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::config::HubConfig;
use crate::hub::Keys;
use crate::hub::record::{Line, Lines, TopicLine, lines};
use crate::ids::{OrgName, Topic};
use crate::wire::{InvalidMessage, Message, Payload};

/// A line, read naively.
enum Wanted {
    Keys(OrgName, Vec<String>),
    TooMuch(OrgName),
    Reread(OrgName),
    End(OrgName),
    Event { topic: Topic, name: String, payload: WantedPayload, bulk: bool },
    Close(Topic, String),
    Exclusive(Topic, u64),
}

enum WantedPayload {
    Json(Box<RawValue>),
    Text(String),
}

/// An object, whose values are as they came. Of repeated members it has the last.
type Object = BTreeMap<String, Box<RawValue>>;

/// What a line may have; a newer version may have more.
const MEMBERS: [&str; 11] = [
    "org",
    "keys",
    "topic",
    "event",
    "data",
    "text",
    "bulk",
    "close",
    "exclusive",
    "reread",
    "end",
];

/// The bytes of a record.
pub fn record(input: &[u8]) {
    let limits = limits();
    for range in lines(input) {
        let line = &input[range];
        let read = Line::parse(line, &limits);
        let object = serde_json::from_slice::<Object>(line).ok();
        let wanted = object.as_ref().and_then(Wanted::of);
        if let Some(read) = &read {
            // The text of an ignored member is not checked.
            let Some(wanted) = &wanted else {
                assert!(std::str::from_utf8(line).is_err(), "read against a naive reading");
                continue;
            };
            wanted.check(read, &limits);
        }
        if let Some((wanted, object)) = wanted.zip(object) {
            // The line without repeated members, of which the naive reading sees only the last.
            let once = serde_json::to_string(&object).expect("to memory").replace('\n', " ");
            wanted.check(&Line::parse(once.as_bytes(), &limits).expect("usable"), &limits);
            wanted.check_written(&limits);
        }
    }
}

/// Small, so that the fuzzer finds them.
fn limits() -> HubConfig {
    HubConfig { keys_max: 4, key_bytes_max: 16, topic_event_bytes_max: 512, ..HubConfig::default() }
}

// ===== impl Wanted =====

impl Wanted {
    fn of(object: &Object) -> Option<Self> {
        let raw = |name: &str| object.get(name).map(|value| value.get());
        let text = |name: &str| serde_json::from_str::<String>(raw(name)?).ok();
        let has: Vec<_> = MEMBERS.into_iter().filter(|name| object.contains_key(*name)).collect();
        let org: OrgName = text("org")?.parse().ok()?;
        match has[1..] {
            ["keys"] => {
                let keys: Vec<String> = serde_json::from_str(raw("keys")?).ok()?;
                let limits = limits();
                if keys.is_empty() || keys.iter().any(String::is_empty) {
                    return None;
                }
                let fits = keys.len() <= limits.keys_max
                    && keys.iter().all(|key| key.len() <= limits.key_bytes_max);
                return Some(if fits { Self::Keys(org, keys) } else { Self::TooMuch(org) });
            }
            ["reread"] => return (raw("reread")? == "true").then_some(Self::Reread(org)),
            ["end"] => return (raw("end")? == "true").then_some(Self::End(org)),
            _ => {}
        }
        let topic = Topic { org, name: text("topic")?.parse().ok()? };
        match has[2..] {
            ["close"] => {
                text("close").filter(|why| why.len() <= 256).map(|why| Self::Close(topic, why))
            }
            ["exclusive"] => {
                let claim = text("exclusive")?;
                let number = u64::from_str_radix(&claim, 16).ok()?;
                (format!("{number:016x}") == claim).then_some(Self::Exclusive(topic, number))
            }
            ["event", payload @ ("data" | "text")]
            | ["event", payload @ ("data" | "text"), "bulk"] => {
                let payload = match payload {
                    "data" => WantedPayload::Json(object["data"].clone()),
                    _ => WantedPayload::Text(text("text")?),
                };
                let bulk = raw("bulk").map_or(Some(false), |bulk| bulk.parse().ok())?;
                let wanted = Self::Event { topic, name: text("event")?, payload, bulk };
                matches!(wanted.message(), Ok(_) | Err(InvalidMessage::TooLong { .. }))
                    .then_some(wanted)
            }
            _ => None,
        }
    }

    /// Its event, if it is one.
    fn message(&self) -> Result<Message, InvalidMessage> {
        let Self::Event { name, payload, bulk, .. } = self else {
            return Err(InvalidMessage::Name);
        };
        Message::new(name, payload.get(), *bulk, limits().topic_event_bytes_max)
    }

    fn check(&self, read: &Line<'_>, limits: &HubConfig) {
        let same = match (self, read) {
            (Self::Keys(org, wanted), Line::Keys(of, keys)) => {
                Keys::new(keys.iter().map(|key| &**key), limits).is_ok()
                    && *org == of.to_name()
                    && keys.iter().eq(wanted)
            }
            (Self::TooMuch(org), Line::TooMuch(of))
            | (Self::Reread(org), Line::Reread(of))
            | (Self::End(org), Line::End(of)) => *org == of.to_name(),
            (Self::Close(topic, why), Line::Topic(of, TopicLine::Close(read))) => {
                topic == of && why == read
            }
            (Self::Exclusive(topic, claim), Line::Topic(of, TopicLine::Exclusive(read))) => {
                topic == of && claim == read
            }
            (Self::Event { topic, .. }, Line::Topic(of, TopicLine::Message(read))) => {
                topic == of && self.message().as_ref() == Ok(read)
            }
            (
                Self::Event { topic, bulk, .. },
                Line::Topic(of, TopicLine::TooLong { bulk: read }),
            ) => {
                let is_long = matches!(self.message(), Err(InvalidMessage::TooLong { .. }));
                topic == of && bulk == read && is_long
            }
            _ => false,
        };
        assert!(same, "{read:?}");
    }

    /// What is written is one line, which is read as this.
    fn check_written(&self, limits: &HubConfig) {
        let mut written = Lines::new();
        match self {
            Self::Keys(org, keys) => {
                written.keys(org, &Keys::new(keys, limits).expect("within the limits"));
            }
            Self::TooMuch(_) => return,
            Self::Reread(org) => _ = written.reread(org),
            Self::End(org) => _ = written.end(org),
            Self::Event { topic, name, payload, bulk } => {
                written.message(topic, name, payload.get(), *bulk);
                assert_eq!(written.topics().len(), 1);
            }
            Self::Close(topic, why) => _ = written.close(topic, why),
            Self::Exclusive(topic, claim) => _ = written.exclusive(topic, *claim),
        }
        let record = written.into_bytes();
        let is_one = lines(&record).eq(std::iter::once(0..record.len()));
        assert!(is_one, "one line");
        let read = Line::parse(&record, limits).expect("usable");
        match self {
            // Keys that are repeated are written once.
            Self::Keys(_, keys) => {
                let Line::Keys(_, read) = read else { panic!("{read:?}") };
                let keys = Keys::new(keys, limits);
                assert_eq!(Keys::new(read.iter().map(|key| &**key), limits), keys);
            }
            _ => self.check(&read, limits),
        }
    }
}

// ===== impl WantedPayload =====

impl WantedPayload {
    fn get(&self) -> Payload<'_> {
        match self {
            Self::Json(json) => Payload::Json(json),
            Self::Text(text) => Payload::Text(text),
        }
    }
}
