//! What the fuzz targets in `fuzz/` hold true for every input. Compiled under `cfg(fuzzing)` only,
//! which `cargo fuzz` sets.

use crate::ids::{Epoch, EventId};
use crate::wire::{EVENT_LEN_MAX, Event, EventTooLarge, Frame, Parser};

/// All that a parser gave.
#[derive(Debug, PartialEq)]
struct Heard {
    events: Vec<Event>,
    retry_ms: Option<u64>,
    last_event_id: String,
    result: Result<(), EventTooLarge>,
}

/// Any bytes: the parser hears the same however they are cut, and gives only what can be in a stream.
/// The first byte is the length of the pieces.
pub fn sse_parse(input: &[u8]) {
    let Some((piece_len, stream)) = input.split_first() else { return };
    let heard = hear([stream]);
    assert_eq!(hear(stream.chunks(usize::from(*piece_len).max(1))), heard);
    for event in &heard.events {
        assert!(!event.name.is_empty() && !event.name.contains(['\r', '\n']));
        assert!(!event.data.contains('\r'));
        assert!(!event.id.contains(['\r', '\n', '\0']));
        assert!(event.data.len() <= EVENT_LEN_MAX);
    }
}

/// Any keys, separated by bytes that are in no text: the event that tells of them is one event, with
/// exactly these keys, wherever it is cut.
pub fn sse_roundtrip(input: &[u8]) {
    let keys: Vec<_> = input.split(|b| *b == 0xff).map(String::from_utf8_lossy).collect();
    let id = EventId { epoch: Epoch(u64::MAX), seq: 1 };
    let frame = Frame::invalidate(id, keys.iter().map(AsRef::as_ref));
    let payload = frame.payload();
    let chunk = [format!("{:x}\r\n", payload.len()).as_bytes(), &payload, b"\r\n"].concat();
    assert_eq!(frame.chunked(), &chunk);
    if payload.len() > EVENT_LEN_MAX {
        return;
    }

    let heard = hear([&payload[..]]);
    let [event] = &heard.events[..] else { panic!("not one event: {heard:?}") };
    assert_eq!((event.name.as_str(), &event.id), ("invalidate", &id.to_string()));
    let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
    assert_eq!(data, serde_json::json!({ "keys": keys }));
    let cut = input.len() % payload.len();
    assert_eq!(hear([&payload[..cut], &payload[cut..]]), heard);
}

fn hear<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    let result = pieces.into_iter().try_for_each(|piece| parser.push(piece, |e| events.push(e)));
    let last_event_id = parser.last_event_id().to_owned();
    Heard { events, retry_ms: parser.retry_ms(), last_event_id, result }
}
