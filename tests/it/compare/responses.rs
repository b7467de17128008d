//! Responses: their heads, the chunked coding, and the events, wherever the bytes are cut.

use std::io;

use nudged::wire::{Event, Parser};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::recorded::{CENTRIFUGO, DURABLE_STREAMS, MERCURE, NCHAN};
use super::response::Response;
use crate::support::stream_bytes::{bytes_like_a_stream, cut};

/// All that a client notices of a response.
#[derive(Debug, PartialEq)]
struct Noticed {
    status: Option<u16>,
    fields: Vec<(String, String)>,
    events: Vec<Event>,
    last_event_id: String,
    retry_ms: Option<u64>,
    is_complete: bool,
    error: Option<String>,
}

const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: Chunked\r\n\r\n";
/// The longest head.
const HEAD_MAX: usize = 16 * 1024;

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Noticed {
    let (mut response, mut events) = (Response::default(), Vec::new());
    let mut push = |piece| response.push(piece, |event| events.push(event));
    let result: io::Result<()> = pieces.into_iter().try_for_each(&mut push);
    Noticed {
        status: response.head().map(|head| head.status),
        fields: response.head().map(|head| head.fields.clone()).unwrap_or_default(),
        last_event_id: response.last_event_id().to_owned(),
        retry_ms: response.retry_ms(),
        is_complete: response.is_complete(),
        error: result.err().map(|why| why.to_string()),
        events,
    }
}

/// The response in one piece, which is the same byte by byte.
fn noticed(bytes: &[u8]) -> Noticed {
    let whole = read([bytes]);
    assert_eq!(read(bytes.chunks(1)), whole, "{}", String::from_utf8_lossy(bytes));
    whole
}

/// A chunked body that begins like this.
fn body(body: &str) -> Noticed {
    noticed(format!("{HEAD}{body}").as_bytes())
}

fn error(noticed: Noticed) -> String {
    noticed.error.expect("an error")
}

/// The coding of these pieces: sizes in either case, with leading zeros and extensions.
fn chunks(pieces: &[&[u8]], forms: &[usize]) -> Vec<u8> {
    let mut coded = Vec::new();
    for (piece, form) in
        pieces.iter().zip(forms.iter().cycle()).filter(|(piece, _)| !piece.is_empty())
    {
        let length = piece.len();
        let line = match form {
            0 => format!("{length:x}\r\n"),
            1 => format!("{length:X};a=b\r\n"),
            2 => format!("{length:06x} ;name=\"quoted\"\r\n"),
            _ => format!("{length:x}; \r\n"),
        };
        coded.extend([line.as_bytes(), piece, b"\r\n"].concat());
    }
    coded
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_response_is_the_same_wherever_its_bytes_are_cut(
        stream in bytes_like_a_stream(),
        sizes in vec(0usize..40, 0..20),
        forms in vec(0usize..4, 1..5),
        end in select(vec!["", "0\r\n\r\n", "000;last\r\nTrailer: x\r\n\r\n"]),
        lengths in vec(0usize..30, 0..80),
    ) {
        let coded = chunks(&cut(&stream, &sizes), &forms);
        let bytes = [HEAD.as_bytes(), &coded, end.as_bytes()].concat();
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        parser.push(&stream, |event| events.push(event)).expect("a small stream");

        let whole = noticed(&bytes);
        prop_assert_eq!(&read(cut(&bytes, &lengths)), &whole);
        prop_assert_eq!(&whole.events, &events);
        prop_assert_eq!(&whole.last_event_id, parser.last_event_id());
        prop_assert_eq!(whole.retry_ms, parser.retry_ms());
        prop_assert_eq!((whole.status, whole.error), (Some(200), None));
        prop_assert_eq!(whole.is_complete, !end.is_empty());
    }

    #[test]
    fn a_fault_is_the_same_wherever_the_bytes_are_cut(
        parts in vec(select(vec![
            "HTTP/1.1 200 OK\r\n", "a: b\r\n", "transfer-encoding: chunked\r\n", "\r\n", "\n", "\r", "6\r\n",
            "data:\n", "\n\r\n", "0\r\n", "0", "5;x\r\n", "g", " ", ":", "ffffffffffffffff\r\n", "-1",
        ]), 0..12),
        has_head in any::<bool>(),
        lengths in vec(0usize..9, 0..30),
    ) {
        let bytes = [if has_head { HEAD } else { "" }, &parts.concat()].concat().into_bytes();
        let whole = noticed(&bytes);
        prop_assert_eq!(read(cut(&bytes, &lengths)), whole);
    }
}

#[test]
fn the_responses_of_each_server_are_the_same_wherever_they_are_cut() {
    for bytes in [MERCURE, CENTRIFUGO, DURABLE_STREAMS, NCHAN].map(str::as_bytes) {
        let whole = noticed(bytes);
        assert_eq!((whole.status, &whole.error), (Some(200), &None));
        assert!(whole.events.iter().any(|event| event.data.contains(r#"{"keys":["a"]}"#)));
        for at in 0..bytes.len() {
            assert_eq!(read(<[_; 2]>::from(bytes.split_at(at))), whole);
        }
    }
}

#[test]
fn an_event_may_span_chunks_and_a_chunk_may_have_several() {
    let noticed = body("7\r\ndata: a\r\n4\r\n\n\nda\r\nf\r\nta: b\n\ndata: c\n\r\n1\r\n\n\r\n");
    let events: Vec<_> = noticed.events.iter().map(|event| event.data.as_str()).collect();
    assert_eq!(events, ["a", "b", "c"]);
    assert!(!noticed.is_complete);
}

#[test]
fn what_follows_the_last_chunk_and_its_trailer_is_ignored() {
    let [event, other] = ["9\r\ndata: a\n\n\r\n", "9\r\ndata: b\n\n\r\n"];
    for (end, is_complete) in [
        ("", false),
        ("0\r\n", false),
        ("0\r\nName: value\r\n", false),
        ("0\r\n\r\n", true),
        ("0;extension\r\nName: value\r\nOther: value\r\n\r\n", true),
    ] {
        let noticed = body(&format!("{event}{end}"));
        assert_eq!((noticed.is_complete, noticed.events.len()), (is_complete, 1), "{end:?}");
        assert_eq!(noticed.error, None);
    }
    assert_eq!(body(&format!("{event}0\r\n\r\n{other}")).events.len(), 1);
}

#[test]
fn a_body_without_chunks_is_read_to_the_end_of_the_connection() {
    let head = "HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let noticed = noticed(format!("{head}id: 7\ndata: 5\r\n\r\n0\r\n\r\nretry: 250\n").as_bytes());
    assert_eq!((noticed.events.len(), noticed.retry_ms), (1, Some(250)));
    assert_eq!((noticed.last_event_id.as_str(), noticed.is_complete), ("7", false));
    assert_eq!(noticed.error, None);
}

#[test]
fn fields_are_found_by_their_name_in_lower_case() {
    let mut response = Response::default();
    response
        .push(b"HTTP/1.1 204 No Content\r\nRetry-After: 3\r\nretry-after: 4\r\n\r\n", drop)
        .unwrap();
    let head = response.head().expect("it is complete");
    assert_eq!((head.status, head.field("retry-after")), (204, Some("3")));
    assert_eq!(head.field("x"), None);
}

#[test]
fn a_chunk_without_a_valid_size_is_an_error() {
    for size in ["g", "", "-1", "+1", "0x1", "1 1", "1\r", "11111111111111111", " 1"] {
        let why = error(body(&format!("9\r\ndata: a\n\n\r\n{size}\r\n")));
        assert!(why.contains("a chunk without a valid size"), "{size:?}: {why}");
    }
    assert!(error(body("1\n")).contains("a chunk without a valid size"));
    let long = error(body(&format!("9;{}", "x".repeat(1024))));
    assert!(long.contains("1 KiB"), "{long}");
}

#[test]
fn a_chunk_that_is_longer_than_its_size_is_an_error_after_its_events() {
    let noticed = body("8\r\ndata:a\n\nb\r\n");
    assert_eq!(noticed.events.len(), 1);
    assert!(error(noticed).contains("longer than its size"));
}

#[test]
fn an_endless_head_is_an_error_and_so_is_one_that_is_none() {
    let head = |length: usize| {
        let rest = length - "HTTP/1.1 200 OK\r\na: \r\n\r\n".len();
        format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "x".repeat(rest)).into_bytes()
    };
    assert_eq!(noticed(&head(HEAD_MAX)).error, None);
    for endless in [head(HEAD_MAX + 1), head(HEAD_MAX + 100)] {
        let unfinished = noticed(&endless[..=HEAD_MAX]);
        assert_eq!(unfinished.status, None);
        assert!(error(unfinished).contains("16 KiB"));
        assert!(error(noticed(&endless)).contains("16 KiB"));
    }
    for none in ["SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nno field\r\n", "HTTP/1.1 abc\r\n\r\n"] {
        assert_eq!(noticed(none.as_bytes()).status, None);
        error(noticed(none.as_bytes()));
    }
}

#[test]
fn the_id_of_before_stays_until_the_stream_has_another() {
    let mut response = Response::resume("6");
    let mut push = |body: &str| {
        response.push(body.as_bytes(), drop).map(|()| response.last_event_id().to_owned())
    };
    assert_eq!(push("HTTP/1.1 200 OK\r\n\r\ndata: a\n\n").unwrap(), "6");
    assert_eq!(push("id: 7\n").unwrap(), "6");
    assert_eq!(push("\n").unwrap(), "7");
}
