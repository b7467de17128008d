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

/// The body of a publish to a topic.
pub fn topic_json(input: &[u8]) {
    if let Some(wanted) = Wanted::read(input) {
        wanted.encode(input.len());
    }
}

// ===== impl Wanted =====

impl Wanted {
    /// Of repeated members, the last one counts.
    fn read(body: &[u8]) -> Option<Self> {
        let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body).ok()?;
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

    /// Encodes it, if it is allowed. Readers get it in two pieces, `cut` says where.
    fn encode(&self, cut: usize) -> Option<Frame> {
        let payload = match &self.payload {
            WantedPayload::Json(json) => Payload::Json(json),
            WantedPayload::Text(text) => Payload::Text(text),
        };
        let made = Message::new(&self.name, payload, self.bulk, EVENT_BYTES_MAX);
        let whole = Message::new(&self.name, payload, self.bulk, usize::MAX);
        assert_eq!(whole.is_ok(), self.has_allowed_name(), "{:?}", self.name);
        let frame = Frame::message(LONGEST_ID, whole.as_ref().ok()?);
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
        made.ok().map(|message| Frame::message(LONGEST_ID, &message))
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
