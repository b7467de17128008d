//! Two readers of event streams that share no code with our parser: a naive one, and `sse-codec`. `tests/it/wire`
//! uses them too.

use futures_util::{FutureExt, StreamExt, TryStreamExt};

/// Everything that a reader parses from a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// Type, data, last event id.
    pub(super) events: Vec<[String; 3]>,
    pub(super) retry_ms: Option<u64>,
    pub(super) last_event_id: String,
}

/// The standard's algorithm (WHATWG HTML 9.2.6) on a whole text, written as simply as possible.
pub(super) fn by_twin(stream: &[u8]) -> Received {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop(); // a line without an end does not count

    let (mut received, mut data, mut name, mut id) =
        (Received::default(), String::new(), String::new(), String::new());
    for line in lines {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data.extend([value, "\n"]),
            "event" => name = value.to_owned(),
            "id" if !value.contains('\0') => id = value.to_owned(),
            "retry" if value.chars().all(|c| c.is_ascii_digit()) && !value.is_empty() => {
                received.retry_ms = Some(value.parse().unwrap_or(u64::MAX));
            }
            _ => {}
        }
        if line.is_empty() {
            received.last_event_id.clone_from(&id);
            if let Some(data) = data.strip_suffix('\n') {
                let name = if name.is_empty() { "message" } else { &name };
                received.events.push([name.to_owned(), data.to_owned(), id.clone()]);
            }
            data.clear();
            name.clear();
        }
    }
    received
}

/// Events, and the last reconnection time.
pub(super) fn by_sse_codec<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<[String; 3]>, Option<u64>) {
    let pieces: Vec<_> = pieces.into_iter().map(Ok::<_, std::io::Error>).collect();
    let pieces = futures_util::stream::iter(pieces).into_async_read();
    let items = sse_codec::decode_stream(pieces).collect::<Vec<_>>();
    let (mut events, mut retry_ms) = (Vec::new(), None);
    for item in items.now_or_never().expect("all bytes are there") {
        match item.expect("the text is UTF-8") {
            sse_codec::Event::Message { id, event, data } => {
                events.push([event, data, id.unwrap_or_default()]);
            }
            sse_codec::Event::Retry { retry } => retry_ms = Some(retry),
        }
    }
    (events, retry_ms)
}
