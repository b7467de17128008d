//! The wire format, in and out, against two readers that share no code with ours.

use super::readers::{Heard, by_sse_codec, by_twin};
use crate::ids::{Epoch, EventId};
use crate::wire::{EVENT_LEN_MAX, Frame, Parser};

/// Any bytes: our parser hears what the others hear, however the bytes are cut, and gives only what can
/// be in a stream. The first byte is the length of the pieces.
pub fn sse_parse(input: &[u8]) {
    let Some((piece_len, stream)) = input.split_first() else { return };
    if stream.len() > EVENT_LEN_MAX / 3 {
        return; // beyond the bound of one event, which the others have not; `tests/it/wire` is there
    }
    let heard = hear([stream]);
    assert_eq!(heard, hear(stream.chunks(usize::from(*piece_len).max(1))));
    assert_eq!(heard, by_twin(stream));
    for [name, data, id] in &heard.events {
        assert!(!name.is_empty() && !name.contains(['\r', '\n']));
        assert!(!data.contains('\r'));
        assert!(!id.contains(['\r', '\n', '\0']));
    }
    let text = that_sse_codec_reads_right(stream);
    let Heard { events, retry_ms, .. } = hear([text.as_bytes()]);
    assert_eq!((events, retry_ms), by_sse_codec([text.as_bytes()]));
}

/// Any keys, separated by bytes that are in no text: to three readers the event that tells of them is
/// one event, with exactly these keys, wherever it is cut.
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
    let [[name, data, heard_id]] = &heard.events[..] else { panic!("not one event: {heard:?}") };
    assert_eq!((name.as_str(), heard_id), ("invalidate", &id.to_string()));
    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(data, serde_json::json!({ "keys": keys }));
    let cut = input.len() % payload.len();
    assert_eq!(hear([&payload[..cut], &payload[cut..]]), heard);
    assert_eq!(by_twin(&payload), heard);
    assert_eq!(by_sse_codec([&payload[..]]), (heard.events, None));
}

fn hear<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    for piece in pieces {
        let heard = parser.push(piece, |event| events.push([event.name, event.data, event.id]));
        heard.expect("the stream is small");
    }
    let last_event_id = parser.last_event_id().to_owned();
    Heard { events, retry_ms: parser.retry_ms(), last_event_id }
}

/// The stream without the lines on which `sse-codec` leaves the standard; `tests/it/wire/read.rs` shows
/// each of them, and that the standard is on our side.
fn that_sse_codec_reads_right(stream: &[u8]) -> String {
    let text = String::from_utf8_lossy(stream);
    let ended = text.split_inclusive(['\r', '\n']);
    ended.filter(|line| reads_right(line.trim_end_matches(['\r', '\n']))).collect()
}

fn reads_right(line: &str) -> bool {
    match line.split_once(':') {
        Some(("retry", value)) => value.parse::<u64>().is_ok() && !value.starts_with('+'),
        Some(("event", value)) => !value.strip_prefix(' ').unwrap_or(value).is_empty(),
        Some(_) => !line.starts_with('\u{feff}'),
        None => line.is_empty() || line == "data",
    }
}
