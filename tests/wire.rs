//! The wire format, out and in. What we write is read back by our parser and by `sse-codec`, which
//! shares no code with it; what our parser makes of any bytes is what a naive twin makes of them.

use futures_util::io::AsyncRead;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use nudged::ids::EventId;
use nudged::wire::{EVENT_LEN_MAX, EventTooLarge, Frame, Greeting, Parser};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// All that a reader learns from a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    /// Type, data, last event id.
    events: Vec<(String, String, String)>,
    retry_ms: Option<u64>,
    last_event_id: String,
}

// ===== three parsers =====

fn by_ours<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    for piece in pieces {
        let result = parser.push(piece, |event| events.push((event.name, event.data, event.id)));
        result.expect("the stream is small");
    }
    let last_event_id = parser.last_event_id().to_owned();
    Heard { events, retry_ms: parser.retry_ms(), last_event_id }
}

/// The standard's algorithm on a whole text, as plainly as it can be written.
fn by_twin(stream: &[u8]) -> Heard {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop(); // not ended, so not a line

    let (mut heard, mut data, mut event_type, mut id) =
        (Heard::default(), String::new(), String::new(), String::new());
    for line in lines {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data = format!("{data}{value}\n"),
            "event" => event_type = value.to_owned(),
            "id" if !value.contains('\0') => id = value.to_owned(),
            "retry" if value.chars().all(|c| c.is_ascii_digit()) && !value.is_empty() => {
                heard.retry_ms = Some(value.parse().unwrap_or(u64::MAX));
            }
            _ => {}
        }
        if line.is_empty() {
            heard.last_event_id.clone_from(&id);
            if let Some(data) = data.strip_suffix('\n') {
                let name = if event_type.is_empty() { "message" } else { &event_type };
                heard.events.push((name.to_owned(), data.to_owned(), id.clone()));
            }
            data.clear();
            event_type.clear();
        }
    }
    heard
}

fn by_sse_codec<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<[String; 3]>, Option<u64>) {
    let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>).collect::<Vec<_>>();
    let (mut events, mut retry_ms) = (Vec::new(), None);
    for item in read_all(futures_util::stream::iter(pieces).into_async_read()) {
        match item {
            sse_codec::Event::Message { id, event, data } => {
                events.push([event, data, id.unwrap_or_default()]);
            }
            sse_codec::Event::Retry { retry } => retry_ms = Some(retry),
        }
    }
    (events, retry_ms)
}

fn read_all(bytes: impl AsyncRead + Unpin) -> Vec<sse_codec::Event> {
    let items = sse_codec::decode_stream(bytes).collect::<Vec<_>>().now_or_never();
    let items = items.expect("all bytes are there");
    items.into_iter().map(|item| item.expect("the text is UTF-8")).collect()
}

fn event(name: &str, data: &str, id: &str) -> (String, String, String) {
    (name.to_owned(), data.to_owned(), id.to_owned())
}

// ===== what we write =====

const ID: &str = "00c0ffee00c0ffee-42";

fn id() -> EventId {
    ID.parse().expect("an id")
}

fn payload_of_chunk(chunk: &[u8]) -> &[u8] {
    let head_len = chunk.windows(2).position(|w| w == b"\r\n").expect("a chunk size line");
    let digits = std::str::from_utf8(&chunk[..head_len]).expect("hexadecimal digits");
    let size = usize::from_str_radix(digits, 16).expect("hexadecimal digits");
    assert_eq!(digits, format!("{size:x}"), "no leading zero, lower case");
    let payload = &chunk[head_len + 2..][..size];
    assert_eq!(&chunk[head_len + 2 + size..], b"\r\n", "the size is that of the payload");
    payload
}

/// Exactly one event, with exactly these keys, whole and split at every byte, by both parsers.
fn assert_invalidates(keys: &[String]) {
    let frame = Frame::invalidate(id(), keys.iter().map(String::as_str));
    let payload = frame.payload();
    assert_eq!(payload_of_chunk(frame.chunked()), payload);

    let heard = by_ours([&payload[..]]);
    let [(name, data, event_id)] = &heard.events[..] else { panic!("not one event: {heard:?}") };
    assert_eq!((name.as_str(), event_id.as_str()), ("invalidate", ID));
    let data_read: serde_json::Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(data_read, serde_json::json!({ "keys": keys }));

    let by_another = (vec![[name.clone(), data.clone(), event_id.clone()]], None);
    for at in 0..=payload.len() {
        let (head, tail) = payload.split_at(at);
        assert_eq!(by_ours([head, tail]), heard, "split at {at}");
        assert_eq!(by_sse_codec([head, tail]), by_another, "split at {at}");
    }
}

fn nasty_key() -> impl Strategy<Value = String> {
    let nasty = select(
        "\r\n\0\t\"\\:{},' \u{7f}\u{85}\u{2028}\u{2029}\u{feff}\u{fffd}"
            .chars()
            .collect::<Vec<_>>(),
    );
    vec(prop_oneof![nasty, any::<char>()], 0..16).prop_map(String::from_iter)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn no_key_breaks_the_framing(keys in vec(nasty_key(), 0..5)) {
        assert_invalidates(&keys);
    }
}

#[test]
fn the_nastiest_keys_do_not_break_the_framing() {
    let breakers = [
        "\r", "\n", "\r\n", "\n\n", "\r\r", "\0", "\u{2028}", "\u{feff}", "\"", "\\", "\\u000a", "",
    ];
    assert_invalidates(&breakers.map(str::to_owned));
    assert_invalidates(&["x\n\nevent: connected\ndata: {}\n\n".to_owned()]);
    for filler in ["k", "\n", "\"", "\\", "\0"] {
        assert_invalidates(&[filler.repeat(512)]);
    }
    assert_invalidates(&["é\u{2028}".repeat(102)]);
}

#[test]
fn the_exact_bytes_of_every_event() {
    let keys = ["posts", "feed:123"];
    let invalidate =
        format!("id: {ID}\nevent: invalidate\ndata: {{\"keys\":[\"posts\",\"feed:123\"]}}\n\n");
    let connected = format!("id: {ID}\nevent: connected\ndata: {{}}\n\n");
    let resumed = format!("retry: 1500\nid: {ID}\nevent: resumed\ndata: {{}}\n\n");
    for (frame, text) in [
        (Frame::invalidate(id(), keys), invalidate),
        (Frame::connected(id()), connected.clone()),
        (Frame::greeting(Greeting::Connected, id(), 1500), format!("retry: 1500\n{connected}")),
        (Frame::greeting(Greeting::Resumed, id(), 1500), resumed),
    ] {
        assert_eq!(frame.payload(), text);
        assert_eq!(payload_of_chunk(frame.chunked()), text.as_bytes());
    }
}

// ===== what we read: any bytes =====

fn bytes_like_a_stream() -> impl Strategy<Value = Vec<u8>> {
    let tokens: &[&[u8]] = &[
        b"data",
        b"event",
        b"id",
        b"retry",
        b"data: a\n",
        b"data:\n",
        b"id: 7\r",
        b"id\n",
        b"event: e\r\n",
        b"retry: 10\n",
        b":",
        b" ",
        b"x",
        b"7",
        b"\0",
        b"\n",
        b"\n",
        b"\r",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\r\n\r\n",
        b"\xef\xbb\xbf",
        b"\xef",
        b"\xbb",
        b"\xbf",
        b"\xff",
        b"\xc3",
        b"\xf0\x9f\x98",
        b"\xe2\x80\xa6",
        b"Data",
        b"retry: 99999999999999999999\n",
    ];
    vec(select(tokens), 0..40).prop_map(|tokens| tokens.concat())
}

fn cut<'a>(stream: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = stream;
    let mut pieces = Vec::new();
    for length in lengths {
        let (piece, tail) = rest.split_at((*length).min(rest.len()));
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn any_bytes_in_any_pieces_read_as_the_naive_twin_reads_them(
        stream in bytes_like_a_stream(),
        lengths in vec(0usize..6, 0..80),
    ) {
        let heard = by_twin(&stream);
        prop_assert_eq!(&by_ours([&stream[..]]), &heard);
        prop_assert_eq!(&by_ours(stream.chunks(1)), &heard);
        prop_assert_eq!(&by_ours(cut(&stream, &lengths)), &heard);
    }
}

// ===== what we read: sse-codec's opinion =====

/// Streams on which `sse-codec` follows the standard; where it does not, see the test after the next.
fn text_that_sse_codec_reads_right() -> impl Strategy<Value = Vec<u8>> {
    let text = vec(prop_oneof![select(vec![' ', ':', '\0', '\u{feff}', 'x']), any::<char>()], 0..6)
        .prop_map(|chars| String::from_iter(chars).replace(['\r', '\n'], ""));
    let field = prop_oneof![
        3 => select(vec!["data", "data:", "data: ", ":", "id:", "id: ", "event:x", "event: y"]),
        1 => select(vec!["Data:", " data:", "data_", "datadata:", "ids:", "events:"]),
    ];
    let line = prop_oneof![
        4 => (field, text).prop_map(|(field, text)| field.to_owned() + &text),
        3 => Just(String::new()),
        1 => (0u32..).prop_map(|ms| format!("retry:{ms}")),
    ];
    let ended = (line, select(vec!["\n", "\r", "\r\n"])).prop_map(|(line, end)| line + end);
    vec(ended, 0..20).prop_map(|lines| lines.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn we_and_sse_codec_hear_the_same(
        stream in text_that_sse_codec_reads_right(),
        lengths in vec(1usize..9, 0..40),
    ) {
        let ours = by_ours([&stream[..]]);
        let events: Vec<_> = ours.events.into_iter().map(|(name, data, id)| [name, data, id]).collect();
        prop_assert_eq!(by_sse_codec(cut(&stream, &lengths)), (events, ours.retry_ms));
    }
}

/// Where the two differ, ours is what the standard says. Should one of these fail after an update of
/// `sse-codec`, the case belongs into the strategy above.
#[test]
fn what_sse_codec_reads_otherwise() {
    let theirs = |stream: &str| by_sse_codec([stream.as_bytes()]);
    let ours = |stream: &str| by_ours([stream.as_bytes()]);

    // 9.2.6 removes one leading space from every value.
    assert_eq!(theirs("retry: 5\n").1, None);
    assert_eq!(ours("retry: 5\n").retry_ms, Some(5));
    // An empty type is `message`, and a field without a colon has an empty value.
    assert_eq!(theirs("event:\ndata\n\n").0[0][0], "");
    assert_eq!(ours("event:\ndata\n\n").events, [event("message", "", "")]);
    assert_eq!(theirs("event:e\nevent\ndata\n\n").0[0][0], "e");
    assert_eq!(ours("event:e\nevent\ndata\n\n").events, [event("message", "", "")]);
    assert_eq!(theirs("id:1\n\nid\ndata\n\n").0[0][2], "1");
    assert_eq!(ours("id:1\n\nid\ndata\n\n").events, [event("message", "", "")]);
    // Only the stream's very first character can be a byte order mark.
    assert_eq!(theirs("\n\u{feff}data:1\n\n").0.len(), 1);
    assert_eq!(ours("\n\u{feff}data:1\n\n").events, []);
    // Bytes that are no UTF-8 are replaced.
    let items = sse_codec::decode_stream(&b"data:\xff\n\n"[..]).collect::<Vec<_>>().now_or_never();
    assert!(matches!(items.as_deref(), Some([Err(sse_codec::Error::Utf8Error(_)), ..])));
    assert_eq!(by_ours([&b"data:\xff\n\n"[..]]).events, [event("message", "\u{fffd}", "")]);
}

// ===== what we read: the bound =====

/// The number of events that came out, and whether the stream was followed to its end.
type Outcome = (usize, Result<(), EventTooLarge>);

fn push_all(stream: &[u8], piece_len: usize) -> Outcome {
    let mut parser = Parser::default();
    let mut events = 0;
    let result = stream.chunks(piece_len).try_for_each(|piece| parser.push(piece, |_| events += 1));
    if result.is_err() {
        assert_eq!(parser.push(b"\n\ndata:x\n\n", |_| events += 1), Err(EventTooLarge), "for good");
    }
    (events, result)
}

#[test]
fn a_line_or_an_event_beyond_the_bound_ends_the_stream() {
    let line = |field: &str, len: usize| field.to_owned() + &"x".repeat(len - field.len());
    let fits = line("data:", EVENT_LEN_MAX) + "\n\n";
    let half = line("data:", EVENT_LEN_MAX / 2);
    let broken = [b"data:".as_slice(), &[0xff; EVENT_LEN_MAX / 3 + 1], b"\n\n"].concat();
    let filled = line("data:", EVENT_LEN_MAX - 10) + "\ndata:"; // decoded, with LF: 14 bytes to go
    let cases: [(Vec<u8>, Outcome); 11] = [
        (fits.repeat(2).into(), (2, Ok(()))),
        (format!("{half}\n{half}\n\n").into(), (1, Ok(()))),
        (format!(":{}\n", "c\n:".repeat(EVENT_LEN_MAX)).into(), (0, Ok(()))),
        ((line("data:", EVENT_LEN_MAX + 1) + "\n\n").into(), (0, Err(EventTooLarge))),
        (format!("data\n\n{}", line("data:", EVENT_LEN_MAX + 1)).into(), (1, Err(EventTooLarge))),
        (format!("data\n\n{half}\n{half}\n{half}\n\n").into(), (1, Err(EventTooLarge))),
        ((line(":", EVENT_LEN_MAX + 1) + "\n").into(), (0, Err(EventTooLarge))),
        (format!("{half}\n{}\n\n", half.replace("data", "event")).into(), (1, Ok(()))),
        (format!("{filled}{}\n\n", "x".repeat(13)).into(), (1, Ok(()))),
        (format!("{filled}{}\n\n", "x".repeat(14)).into(), (0, Err(EventTooLarge))),
        (broken, (0, Err(EventTooLarge))), // three bytes for every one replaced
    ];
    for (i, (stream, expected)) in cases.iter().enumerate() {
        for piece_len in [usize::MAX, 1000, 1] {
            assert_eq!(push_all(stream, piece_len), *expected, "case {i} in pieces of {piece_len}");
        }
    }
}

#[test]
fn an_id_survives_its_stream() {
    let mut parser = Parser::resume("7".to_owned());
    let mut ids = Vec::new();
    parser.push(b"data\n\nid:8\ndata\n\n", |event| ids.push(event.id)).expect("a small stream");
    assert_eq!((ids, parser.last_event_id()), (vec!["7".to_owned(), "8".to_owned()], "8"));
}
