//! Reading: any bytes, in any pieces, up to a bound.

use futures_util::{FutureExt, StreamExt};
use nudged::wire::{EVENT_LEN_MAX, EventTooLarge, Parser};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::by_ours;
use super::readers::{by_sse_codec, by_twin};
use crate::support::stream_bytes::{bytes_like_a_stream, cut};

fn event(name: &str, data: &str, id: &str) -> [String; 3] {
    [name, data, id].map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn our_parser_agrees_with_the_naive_twin_on_any_bytes_in_any_pieces(
        stream in bytes_like_a_stream(),
        lengths in vec(0usize..6, 0..80),
    ) {
        let expected = by_twin(&stream);
        prop_assert_eq!(&by_ours([&stream[..]]), &expected);
        prop_assert_eq!(&by_ours(stream.chunks(1)), &expected);
        prop_assert_eq!(&by_ours(cut(&stream, &lengths)), &expected);
    }
}

// ===== comparison with sse-codec =====

/// Streams on which `sse-codec` follows the standard; the test after the next covers the others.
fn text_that_sse_codec_reads_correctly() -> impl Strategy<Value = Vec<u8>> {
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
    fn our_parser_and_sse_codec_read_the_same_events(
        stream in text_that_sse_codec_reads_correctly(),
        lengths in vec(1usize..9, 0..40),
    ) {
        let ours = by_ours([&stream[..]]);
        prop_assert_eq!(by_sse_codec(cut(&stream, &lengths)), (ours.events, ours.retry_ms));
    }
}

/// Where the two differ, our parser follows the standard. If one of these fails after an update of `sse-codec`, move
/// the case into the strategy above.
#[test]
fn where_sse_codec_differs_our_parser_follows_the_standard() {
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
    assert_eq!(ours("\n\u{feff}data:1\n\n").events, [[""; 3]; 0]);
    // Invalid UTF-8 is replaced.
    let items = sse_codec::decode_stream(&b"data:\xff\n\n"[..]).collect::<Vec<_>>().now_or_never();
    assert!(matches!(items.as_deref(), Some([Err(sse_codec::Error::Utf8Error(_)), ..])));
    assert_eq!(by_ours([&b"data:\xff\n\n"[..]]).events, [event("message", "\u{fffd}", "")]);
}

// ===== the bound =====

/// The number of events, and whether the stream was read to its end.
type Outcome = (usize, Result<(), EventTooLarge>);

fn push_all(stream: &[u8], piece_len: usize) -> Outcome {
    let mut parser = Parser::default();
    let mut events = 0;
    let result = stream.chunks(piece_len).try_for_each(|piece| parser.push(piece, |_| events += 1));
    if result.is_err() {
        assert_eq!(
            parser.push(b"\n\ndata:x\n\n", |_| events += 1),
            Err(EventTooLarge),
            "the error is final"
        );
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
fn the_last_id_is_kept_for_the_next_stream() {
    let mut parser = Parser::resume("7".to_owned());
    let mut ids = Vec::new();
    parser.push(b"data\n\nid:8\ndata\n\n", |event| ids.push(event.id)).expect("a small stream");
    assert_eq!((ids, parser.last_event_id()), (vec!["7".to_owned(), "8".to_owned()], "8"));
}
