//! The wire format in both directions, against two readers that share no code with ours.

use super::readers::{Received, by_sse_codec, by_twin};
use crate::ids::{Epoch, EventId, Seq};
use crate::wire::{EVENT_LEN_MAX, Frame, Parser};

/// Any bytes: our parser agrees with the others, however the bytes are split, and its events contain only what a
/// stream can carry. The first byte is the length of the pieces.
pub fn sse_parse(input: &[u8]) {
    let Some((piece_len, stream)) = input.split_first() else { return };
    if stream.len() > EVENT_LEN_MAX / 3 {
        return; // beyond the bound of an event, which the others lack; `tests/it/wire` tests it
    }
    let received = parse([stream]);
    assert_eq!(received, parse(stream.chunks(usize::from(*piece_len).max(1))));
    assert_eq!(received, by_twin(stream));
    for [name, data, id] in &received.events {
        assert!(!name.is_empty() && !name.contains(['\r', '\n']));
        assert!(!data.contains('\r'));
        assert!(!id.contains(['\r', '\n', '\0']));
    }
    let text = that_sse_codec_reads_correctly(stream);
    let Received { events, retry_ms, .. } = parse([text.as_bytes()]);
    assert_eq!((events, retry_ms), by_sse_codec([text.as_bytes()]));
}

/// Any keys, separated by bytes that are never UTF-8: three readers parse exactly one event with exactly these keys,
/// wherever it is split.
pub fn sse_roundtrip(input: &[u8]) {
    let keys: Vec<_> = input.split(|b| *b == 0xff).map(String::from_utf8_lossy).collect();
    let id = EventId { epoch: Epoch(u64::MAX), seq: Seq(1) };
    let frame = Frame::invalidate(id, keys.iter().map(AsRef::as_ref));
    let payload = frame.payload();
    let chunk = [format!("{:x}\r\n", payload.len()).as_bytes(), &payload, b"\r\n"].concat();
    assert_eq!(frame.chunked(), &chunk);
    assert!(payload.is_ascii());
    if payload.len() > EVENT_LEN_MAX {
        return;
    }

    let received = parse([&payload[..]]);
    let [[name, data, received_id]] = &received.events[..] else {
        panic!("not one event: {received:?}")
    };
    assert_eq!((name.as_str(), received_id), ("invalidate", &id.to_string()));
    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(data, serde_json::json!({ "keys": keys }));
    let cut = input.len() % payload.len();
    assert_eq!(parse([&payload[..cut], &payload[cut..]]), received);
    assert_eq!(by_twin(&payload), received);
    assert_eq!(by_sse_codec([&payload[..]]), (received.events, None));
}

pub(super) fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Received {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    for piece in pieces {
        let result = parser.push(piece, |event| events.push([event.name, event.data, event.id]));
        result.expect("the stream is small");
    }
    let last_event_id = parser.last_event_id().to_owned();
    Received { events, retry_ms: parser.retry_ms(), last_event_id }
}

/// The stream without the lines on which `sse-codec` deviates from the standard; `tests/it/wire/read.rs` has an
/// example of each.
fn that_sse_codec_reads_correctly(stream: &[u8]) -> String {
    let text = String::from_utf8_lossy(stream);
    let ended = text.split_inclusive(['\r', '\n']);
    ended.filter(|line| reads_correctly(line.trim_end_matches(['\r', '\n']))).collect()
}

fn reads_correctly(line: &str) -> bool {
    match line.split_once(':') {
        Some(("retry", value)) => value.parse::<u64>().is_ok() && !value.starts_with('+'),
        Some(("event", value)) => !value.strip_prefix(' ').unwrap_or(value).is_empty(),
        Some(_) => !line.starts_with('\u{feff}'),
        None => line.is_empty() || line == "data",
    }
}
